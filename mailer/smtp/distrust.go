package smtp

import (
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// distrustTime is how long an extension is not used after it misbehaved. By then the
// relay, or the firewall before it, may have been repaired.
const distrustTime = time.Hour

// behindDot is a pseudo-extension: sending the next envelope right behind the final
// dot, which PIPELINING allows.
const behindDot = "PIPELINING behind the final dot"

// endsBehindDot is the number of consecutive connections that must end after an
// envelope behind the final dot before that is switched off. One may end by chance.
const endsBehindDot = 2

// distrust holds the extensions that a relay offers but handles wrongly.
type distrust struct {
	mu    sync.Mutex
	until map[string]time.Time // by keyword
	ended int                  // consecutive connections that ended, see endsBehindDot
	last  time.Time            // when the last of them ended
}

// filter removes the distrusted extensions from ext.
func (d *distrust) filter(ext extensions) extensions {
	d.mu.Lock()
	defer d.mu.Unlock()
	for keyword, until := range d.until {
		if time.Now().Before(until) {
			delete(ext, keyword)
		}
	}
	return ext
}

// has reports whether the keyword is distrusted.
func (d *distrust) has(keyword string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[keyword])
}

// add distrusts the keyword from now on, and reports whether it was trusted before.
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

// switchOff stops using an extension at this relay for distrustTime, and logs why.
func (r *Relay) switchOff(keyword string, why *mailer.Failure) {
	if r.distrust.add(keyword) {
		r.opts.Logger.Warn("extension misbehaves, switched off",
			"relay", r.opts.Name, "extension", keyword, "duration", distrustTime, "cause", why.Error())
	}
}

// endedBehind records that the relay ended a connection instead of answering an
// envelope that was sent behind a final dot, at sent. Connections that end together
// count once: the relay may have restarted.
func (r *Relay) endedBehind(sent time.Time, why *mailer.Failure) {
	if r.distrust.endedOnce(sent) {
		r.switchOff(behindDot, why)
	}
}

// endedOnce counts one end, and reports whether there were enough.
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

// answered records that the relay answered an envelope behind a final dot.
func (d *distrust) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = 0
}

// refusesParameters reports whether a refusal of MAIL is about its parameters,
// although the relay offers them.
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

// withoutParameters removes from e the extensions that the MAIL parameters params
// belong to, where mail can go without them, and returns their keywords.
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
