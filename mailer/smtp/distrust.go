package smtp

import (
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// distrustTime is how long an extension that misbehaved is left alone. Then the
// relay, or the firewall before it, may have been mended.
const distrustTime = time.Hour

// behindDot stands among the extensions for what PIPELINING promises beyond one
// envelope: that the next one may follow the final dot in the same flight.
const behindDot = "PIPELINING behind the final dot"

// endsBehindDot is how many connections in a row must have ended when an envelope
// followed the final dot. One may end by chance.
const endsBehindDot = 2

// distrust holds the extensions that a relay offers and does not master.
type distrust struct {
	mu    sync.Mutex
	until map[string]time.Time // by keyword
	ended int                  // connections that ended in a row, see endsBehindDot
	last  time.Time            // when the last of them did
}

// among removes the distrusted ones from what was offered.
func (d *distrust) among(ext extensions) extensions {
	d.mu.Lock()
	defer d.mu.Unlock()
	for keyword, until := range d.until {
		if time.Now().Before(until) {
			delete(ext, keyword)
		}
	}
	return ext
}

// has says whether the keyword is distrusted.
func (d *distrust) has(keyword string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[keyword])
}

// add says whether the keyword was trusted before.
func (d *distrust) add(keyword string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = map[string]time.Time{}
	}
	known := time.Now().Before(d.until[keyword])
	d.until[keyword] = time.Now().Add(distrustTime)
	return !known
}

// switchOff leaves an extension alone at this relay for a while.
func (r *Relay) switchOff(keyword string, why *mailer.Failure) {
	if r.distrust.add(keyword) {
		r.opts.Logger.Warn("extension misbehaves, switched off",
			"relay", r.opts.Name, "extension", keyword, "duration", distrustTime, "cause", why.Error())
	}
}

// endedBehind notes that the relay ended a connection instead of answering an
// envelope that went out at sent, behind a final dot. Connections that end together
// count once: that is a relay that restarts.
func (r *Relay) endedBehind(sent time.Time, why *mailer.Failure) {
	if r.distrust.endedOnce(sent) {
		r.switchOff(behindDot, why)
	}
}

func (d *distrust) endedOnce(sent time.Time) (enough bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sent.Before(d.last) {
		return false
	}
	d.ended++
	d.last = time.Now()
	return d.ended >= endsBehindDot
}

// heard notes that the relay answered an envelope behind a final dot.
func (d *distrust) heard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = 0
}

// refusesParameters: the reply to MAIL is about its parameters, though they were
// offered.
func refusesParameters(r mailer.Reply) bool {
	switch r.Code {
	case 555:
		return true
	case 501, 503, 504:
		return r.Enhanced == "" || strings.HasPrefix(r.Enhanced, "5.5.")
	default:
		return false
	}
}

// withoutParameters takes the extensions out of ext that the parameters of MAIL
// came from, as far as mail can go without, and returns their keywords.
func (e extensions) withoutParameters(params string) []string {
	var keywords []string
	for _, p := range []struct{ parameter, keyword string }{{"SIZE=", "SIZE"}, {"BODY=8BITMIME", "8BITMIME"}} {
		if strings.Contains(params, " "+p.parameter) {
			delete(e, p.keyword)
			keywords = append(keywords, p.keyword)
		}
	}
	return keywords
}
