package sim

import (
	"time"

	"mailsidecar/sim/model"
)

// pause pauses a relay, by itself for a while or until it is resumed. It does nothing where
// another action pauses the relay already.
func (h *history) pause(a Action) {
	c := h.world.chance.Of("pause").N(a.ID)
	name := h.world.Relays[c.Of("relay").Below(len(h.world.Relays))].Name
	if !h.lock(name) {
		return
	}
	defer h.unlock(name)
	s := h.running(a.Instance)
	if s == nil || !s.enter() {
		return
	}
	until, begun := time.Time{}, time.Now()
	if c.Of("ends").Happens(0.5) {
		until = h.now().Add(a.For)
	}
	_, err := s.queue.PauseRelay(s.ctx, name, until, "")
	known := err == nil && !s.dead.Load()
	s.requests.Done()
	h.log.Add("operator", "pauses", name, int(a.For/time.Second))
	p := model.Pause{Relay: name, From: time.Now(), To: begun.Add(a.For)}
	time.Sleep(a.For)
	if until.IsZero() || !known {
		p.To = time.Now()
		h.resume(name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if known {
		h.told.Pauses = append(h.told.Pauses, p)
	}
	h.told.HeldUp = append(h.told.HeldUp, model.Span{From: begun, To: time.Now()})
}

// lock says that no other action pauses the relay, or drains the service.
func (h *history) lock(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused[name] {
		return false
	}
	h.paused[name] = true
	return true
}

func (h *history) unlock(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.paused, name)
}

// resume ends a pause. A person repeats that until it is done: the service may be down, or
// the store may fail.
func (h *history) resume(name string) {
	for n := range 10_000 {
		if s := h.running(0); s != nil && s.enter() {
			err := s.queue.ResumeRelay(s.ctx, name)
			done := err == nil && !s.dead.Load()
			s.requests.Done()
			if done {
				h.log.Add("operator", "resumes", name, n)
				return
			}
		}
		time.Sleep(time.Second + h.world.chance.Of("resume").N(n).Between(0, time.Millisecond))
	}
	h.fail("liveness", "%s cannot be resumed", name)
}

// drain accepts nothing new for a while, or until the run ends. It does nothing where
// another action drains the service already.
func (h *history) drain(a Action) {
	if !h.lock("drain") {
		return
	}
	defer h.unlock("drain")
	s := h.running(a.Instance)
	if s == nil || !s.enter() {
		return
	}
	s.queue.Drain()
	d := model.Drain{Span: model.Span{From: time.Now()}, Instance: s.node.number}
	s.requests.Done()
	h.log.Add("operator", "drains", "", int(a.For/time.Second))
	select {
	case <-s.ctx.Done(): // a later run knows nothing of it
		d.To = time.Now()
	case <-time.After(a.For):
		d.To = time.Now()
		s.queue.EndDrain()
	}
	h.log.Add("operator", "ends the drain", "", 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Drains = append(h.told.Drains, d)
}
