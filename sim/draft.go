package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"mailsidecar/sim/chance"
	"mailsidecar/sim/model"
)

// Draft is a request that submits.
type Draft struct {
	Key         Key
	Path        string
	Header      http.Header
	Body        string
	Batch       bool          `json:",omitzero"`
	Foreign     bool          `json:",omitzero"` // to the API of a provider
	Wait        time.Duration `json:",omitzero"` // Prefer: wait
	Leaves      time.Duration `json:",omitzero"` // the client leaves after that; zero: it waits
	Name        string        `json:",omitzero"` // its Idempotency-Key
	Submissions []model.Submission
}

// idempotent says whether requests of the submit bear an Idempotency-Key.
func (w *World) idempotent(id int) bool {
	for _, a := range w.Actions {
		if a.Of == id && (a.Kind == Repeat || a.Kind == Other) {
			return true
		}
	}
	return false
}

// draft makes the request of a Submit, or of what repeats it: action is that, and id the
// Submit. Another body comes of other.
func (w *World) draft(id, action int, other bool, now time.Time) *Draft {
	if d := w.Drafts[action]; d != nil {
		return d
	}
	c := w.chance.Of("draft").N(id)
	d := &Draft{Key: w.Keys[c.Of("key").Below(len(w.Keys))], Header: http.Header{}}
	name := fmt.Sprint("m", id)
	if other {
		name = fmt.Sprintf("m%do%d", id, action)
	}
	d.Header.Set("Authorization", "Bearer "+d.Key.Secret())
	if w.idempotent(id) {
		d.Name = fmt.Sprint("key-", id)
		d.Header.Set("Idempotency-Key", d.Name)
	}
	at := w.chance.Of("client").N(action)
	if at.Of("leaves").Happens(0.07) {
		d.Leaves = at.Of("leaves after").Between(time.Microsecond, chance.Pick(at.Of("patience"), 2*time.Millisecond, time.Second))
	}
	form := c.Of("form").Below(11)
	if d.Name != "" && form >= 9 {
		form = 0 // most providers know no such key
	}
	switch {
	case form < 5:
		w.native(d, c, at, name, now)
	case form < 7:
		w.raw(d, c, name)
	case form < 9:
		w.several(d, c, name, now)
	default:
		w.provider(d, c, name, now)
	}
	return d
}

// people are the recipients of a message.
func people(c chance.Chance, name string) (to, cc, bcc []string) {
	for n := range 1 + c.Of("recipients").Below(4)*c.Of("several").Below(2) {
		switch c.Of("role").N(n).Below(5) {
		default:
			to = append(to, fmt.Sprintf("to-%s-%d@%s.example.org", name, n, name))
		case 3:
			cc = append(cc, fmt.Sprintf("cc-%s-%d@%s.example.org", name, n, name))
		case 4:
			bcc = append(bcc, fmt.Sprintf("bcc-%s-%d@%s.example.org", name, n, name))
		}
	}
	if len(to) == 0 {
		to = []string{"to-" + name + "-9@" + name + ".example.org"}
	}
	return to, cc, bcc
}

func text(c chance.Chance, name string) string {
	var b strings.Builder
	b.WriteString("Dear reader,\r\n")
	if c.Of("eight bits").Happens(0.2) {
		b.WriteString("schöne Grüße\r\n")
	}
	b.WriteString(strings.Repeat(".a line of forty octets, with a dot....\r\n", chance.Pick(c.Of("size"), 0, 1, 10, 40)))
	b.WriteString("end of " + name + "\r\n")
	return b.String()
}

func (w *World) from(k Key, name string) string {
	if w.SharedSenders {
		name = "mail"
	}
	return name + "@" + k.Domain
}

// message is one message of the native API.
func (w *World) message(d *Draft, c chance.Chance, name string, now time.Time) map[string]any {
	to, cc, bcc := people(c, name)
	m := map[string]any{"from": w.from(d.Key, name), "to": to, "subject": name, "text": text(c, name)}
	if len(cc) > 0 {
		m["cc"] = cc
	}
	if len(bcc) > 0 {
		m["bcc"] = bcc
	}
	s := model.Submission{Token: name, Paths: append(append(to, cc...), bcc...), Priority: chance.Pick(c.Of("priority"), "normal", "normal", "high", "bulk"), Valid: true}
	if s.Priority != "normal" || c.Of("say").Happens(0.5) {
		m["priority"] = s.Priority
	}
	switch c.Of("times").Below(12) {
	case 0, 1:
		s.Lifetime = chance.Pick(c.Of("life"), time.Minute, 10*time.Minute, 2*time.Hour)
		m["expires_in"] = s.Lifetime.String()
	case 2, 3:
		s.SendAt = now.Add(c.Of("send at").Between(time.Second, chance.Pick(c.Of("far"), time.Minute, time.Hour, w.furthest())))
		m["send_at"] = s.SendAt.UTC().Format(time.RFC3339Nano)
	}
	if c.Of("invalid").Happens(0.03) {
		m["to"], s.Valid = append(to, "no address"), false
	}
	d.Submissions = append(d.Submissions, s)
	return m
}

// furthest is how far ahead a message is scheduled at most.
func (w *World) furthest() time.Duration {
	if w.shared() {
		return 2 * time.Minute
	}
	return 10 * time.Hour
}

func (w *World) native(d *Draft, c, at chance.Chance, name string, now time.Time) {
	d.Path = "/v1/messages"
	d.json(w.message(d, c, name, now))
	if at.Of("wait").Happens(0.3) {
		d.Wait = time.Duration(1+at.Of("how long").Below(60)) * time.Second
		d.Header.Set("Prefer", fmt.Sprint("wait=", int(d.Wait/time.Second)))
	}
}

func (d *Draft) json(v any) {
	d.Header.Set("Content-Type", "application/json")
	body, _ := json.Marshal(v) // maps, lists and texts
	d.Body = string(body)
}

// raw is a finished message. The envelope is in the request's header, or in the message.
func (w *World) raw(d *Draft, c chance.Chance, name string) {
	d.Path = "/v1/messages"
	d.Header.Set("Content-Type", "message/rfc822")
	to, cc, bcc := people(c, name)
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\n", w.from(d.Key, name), strings.Join(to, ",\r\n "))
	if len(cc) > 0 {
		fmt.Fprintf(&b, "Cc: %s\r\n", strings.Join(cc, ", "))
	}
	all := append(append(to, cc...), bcc...)
	if c.Of("envelope").Happens(0.5) {
		d.Header.Set("Envelope-To", strings.Join(all, ", "))
		d.Header.Set("Envelope-From", w.from(d.Key, name))
	} else if len(bcc) > 0 {
		fmt.Fprintf(&b, "Bcc: %s\r\n", strings.Join(bcc, ", "))
	}
	fmt.Fprintf(&b, "Subject: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s", name, text(c, name))
	d.Body = b.String()
	d.Submissions = []model.Submission{{Token: name, Paths: all, Priority: "normal", Valid: true}}
}

// several is a batch.
func (w *World) several(d *Draft, c chance.Chance, name string, now time.Time) {
	d.Path, d.Batch = "/v1/messages/batch", true
	var list []any
	for n := range 1 + c.Of("batch").Below(chance.Pick(c.Of("large"), 3, 6, 12)) {
		list = append(list, w.message(d, c.N(n), fmt.Sprintf("%sx%d", name, n), now))
	}
	d.json(map[string]any{"messages": list})
}
