package ui

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailsidecar/api"
)

// relayView is a relay as pages show it.
type relayView struct {
	api.Relay
	Rungs []rungView
	// Ends are certificates, tokens and logins that end one day.
	Ends   []ending
	Report *checkReport // of a check that was just made; nil without
}

// rungView is one port of the ladder.
type rungView struct {
	api.RelayRung
	Mode  string
	State string // serves, not reached, not needed, not tried or fails
}

// ending is something that ends at a time.
type ending struct {
	What string
	At   time.Time
	Soon bool
}

// soon is when an end is worth a warning.
const soon = 14 * 24 * time.Hour

var modeNames = map[string]string{"starttls": "STARTTLS", "tls": "TLS", "none": "clear text"}

func (u *UI) newRelayView(r api.Relay) relayView {
	view := relayView{Relay: r}
	if r.PausedByOperator != nil && len(r.Advice) > 0 {
		view.Advice = r.Advice[1:] // the first is about the pause, which the page shows itself
	}
	serving := -1
	for i, rung := range r.Ladder {
		if rung.Serving {
			serving = i
		}
	}
	for i, rung := range r.Ladder {
		state := "not tried yet"
		switch {
		case rung.Serving:
			state = "serves"
		case serving >= 0 && i < serving:
			state = "not reached"
		case serving >= 0:
			state = "not needed"
		case r.Status == api.RelayFailing || r.Status == api.RelayPaused && r.PausedByOperator == nil:
			state = "fails"
		}
		mode := modeNames[rung.Mode]
		if mode == "" {
			mode = rung.Mode
		}
		view.Rungs = append(view.Rungs, rungView{rung, mode, state})
	}
	add := func(what string, at time.Time, within time.Duration) {
		if !at.IsZero() {
			view.Ends = append(view.Ends, ending{what, at, time.Until(at) < within})
		}
	}
	add("certificate", r.CertificateExpires, soon)
	if o := r.OAuth2; o != nil {
		add("access token", o.TokenExpires, 0)
		add("login", o.LoginExpires, soon)
		add("client secret", o.SecretExpires, soon)
		add("client certificate", o.CertificateExpires, soon)
	}
	return view
}

// relaysPage is the page of all relays.
type relaysPage struct {
	Problem string
	Relays  []relayView
	Drain   *api.Drain
	Error   string // why a form was refused
	Checked bool
}

// getRelays serves GET /ui/relays.
func (v *visit) getRelays() error {
	v.showRelays(http.StatusOK, nil, "")
	return nil
}

func (v *visit) showRelays(status int, reports []checkReport, problem string) {
	p := relaysPage{Error: problem, Checked: reports != nil, Drain: v.drain()}
	relays, err := v.relays()
	if err != nil {
		p.Problem = explain(err)
	}
	for _, r := range relays {
		view := v.ui.newRelayView(r)
		for i := range reports {
			if reports[i].Name == r.Name {
				view.Report = &reports[i]
			}
		}
		p.Relays = append(p.Relays, view)
	}
	v.show(status, "relays.html", page{Title: "Relays", Nav: "relays", Data: p})
}

// checkReport is what POST /v1/relays/check says of one relay.
type checkReport struct {
	Name      string        `json:"name"`
	OK        bool          `json:"ok"`
	DNSMillis int64         `json:"dns_ms"`
	Addresses []string      `json:"addresses"`
	Sender    string        `json:"sender"`
	Failure   *checkFailure `json:"failure"`
	Rungs     []checkRung   `json:"rungs"`
	Others    []checkRung   `json:"other_ports"`
	Advice    []api.Advice  `json:"advice"`
}

type checkRung struct {
	Port      int           `json:"port"`
	Mode      string        `json:"mode"`
	TCP       string        `json:"tcp"`
	TCPMillis int64         `json:"tcp_ms"`
	Auth      string        `json:"auth"`
	Mechanism string        `json:"mechanism"`
	NextLogin time.Time     `json:"next_login_at"`
	Failure   *checkFailure `json:"failure"`
	TLS       *checkTLS     `json:"tls"`
}

type checkTLS struct {
	Version string `json:"version"`
}

type checkFailure struct {
	Text      string `json:"text"`
	ReplyCode int    `json:"reply_code"`
}

// checkTime is how long a check of the relays may take.
const checkTime = 70 * time.Second

// postRelayCheck serves POST /ui/relays/NAME/check. The API checks all relays together; the
// page shows what came of each.
func (v *visit) postRelayCheck() error {
	v.pause(checkTime)
	var answer struct {
		Relays []checkReport `json:"relays"`
	}
	if err := v.post("/v1/relays/check", nil, &answer); err != nil {
		return err
	}
	if !v.begin() {
		return errBusy
	}
	v.showRelays(http.StatusOK, answer.Relays, "")
	return nil
}

func (v *visit) relayPath(what string) string {
	return "/v1/relays/" + url.PathEscape(v.r.PathValue("name")) + "/" + what
}

// postRelayPause serves POST /ui/relays/NAME/pause.
func (v *visit) postRelayPause() error {
	form := v.r.PostForm
	err := v.post(v.relayPath("pause"), api.Pause{For: strings.ReplaceAll(form.Get("for"), " ", ""), Reason: strings.TrimSpace(form.Get("reason"))}, nil)
	return v.relayDone(err, "paused")
}

// postRelayResume serves POST /ui/relays/NAME/resume.
func (v *visit) postRelayResume() error {
	return v.relayDone(v.post(v.relayPath("resume"), nil, nil), "resumed")
}

// postDrain serves POST /ui/drain, which begins or ends it.
func (v *visit) postDrain() error {
	if v.r.PostForm.Get("end") != "" {
		return v.relayDone(v.call(v.ctx, http.MethodDelete, "/v1/drain", nil, nil, nil), "undrained")
	}
	return v.relayDone(v.post("/v1/drain", nil, nil), "drained")
}

// relayDone shows the relays again, with what came of a form.
func (v *visit) relayDone(err error, done string) error {
	if err == nil {
		v.redirect("/ui/relays?done=" + done)
		return nil
	}
	if isCode(err, api.CodeInvalidParameter) {
		v.showRelays(http.StatusUnprocessableEntity, nil, "The relay is not paused. "+fieldErrors(err))
		return nil
	}
	return err
}
