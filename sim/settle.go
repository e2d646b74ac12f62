package sim

import (
	"context"
	"time"

	"mailsidecar/queue"
	"mailsidecar/sim/model"
	"mailsidecar/units"
)

const (
	// settleStep is how often it is looked whether all is over; sharedStep where instances share a
	// store, and time costs more.
	settleStep = 10 * time.Minute
	sharedStep = 2 * time.Minute
	// patience is after which time without faults nothing that is due may lie there for
	// longer than lies.
	patience = 3 * time.Hour
	lies     = time.Hour
	// longest is how long it takes at most until all is over: a send_at is half a day
	// ahead, and the clock may have been set.
	longest = 3 * 24 * time.Hour
)

// settle ends all faults, and lets time run until all is over.
func (h *history) settle() {
	for _, r := range h.relays {
		r.Calm()
	}
	h.weather.Calm()
	h.weather.Hang(false)
	h.told.Calmed = time.Now()
	h.log.Add("world", "calm", "", 0)
	for _, n := range h.nodes {
		if h.at(n) == nil {
			h.up(n)
		}
	}
	s := h.running(0)
	if s == nil {
		return
	}
	h.resolve()
	step := settleStep
	if h.world.shared() {
		step = sharedStep
	}
	for over := false; !over; {
		time.Sleep(step)
		took := time.Since(h.told.Calmed)
		over = h.over(s, took)
		if !over && took > longest {
			break // the model says what is left
		}
	}
	if h.world.shared() { // each counts every sixth of a lease what the others have done
		time.Sleep(h.world.Lease/6 + time.Second)
	}
	for _, n := range h.nodes {
		s := h.at(n)
		h.usage = append(h.usage, s.queue.Usage())
		if l := s.queue.Load(); l != (queue.Load{}) {
			h.fail("left", "in memory: %+v", l)
		}
	}
}

// over says whether nothing waits any more but for a person, and fails where something
// lies there for no reason.
func (h *history) over(s *service, took time.Duration) bool {
	over, cursor := true, ""
	for {
		page, err := s.queue.List(context.Background(), queue.Filter{Key: queue.AnyKey}, 500, cursor)
		if err != nil {
			h.fail("liveness", "list: %v", err)
			return true
		}
		for _, m := range page.Messages {
			for _, r := range m.Recipients {
				if r.State.Final() || r.State == queue.Held {
					continue
				}
				over = false
				if since := h.now().Sub(r.NextAttempt); took > patience && since > lies && !r.NextAttempt.IsZero() {
					h.fail("liveness", "%s of %s is %s, and due for %v", r.ForwardPath, m.Subject, r.State, since)
					return true
				}
			}
		}
		if cursor = page.Next; cursor == "" {
			return over
		}
	}
}

// audit reads the store when the service has ended, and looks for what is left.
func (h *history) audit() {
	store, err := h.reopen()
	if err != nil {
		h.fail("audit", "%v", err)
		return
	}
	defer store.Close()
	ctx := context.Background()
	if leases, err := store.Recover(ctx, "auditor", time.Now(), false); err != nil || leases.Any() {
		h.fail("left", "leases: %+v, %v", leases, err)
	}
	cursor := ""
	for {
		page, err := store.List(ctx, queue.Filter{Key: queue.AnyKey}, 500, cursor)
		if err != nil {
			h.fail("audit", "%v", err)
			return
		}
		for _, listed := range page.Messages {
			m, err := store.Get(ctx, queue.AnyKey, listed.ID)
			if err != nil {
				h.fail("audit", "%v", err)
				return
			}
			h.told.Messages = append(h.told.Messages, m)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	h.auditUsage(store)
	notes := h.weather.Notes()
	for _, e := range notes.Expired {
		h.told.Expired = append(h.told.Expired, model.Expired(e))
	}
	for _, t := range notes.Troubles {
		h.told.Troubles = append(h.told.Troubles, model.Span(t))
	}
	for _, l := range notes.Leases {
		h.told.Leases = append(h.told.Leases, model.Lease(l))
	}
	h.told.Domains = map[string]string{}
	for _, k := range h.world.Keys {
		h.told.Domains[k.Domain] = k.Name
	}
	for i, r := range h.world.Relays {
		h.told.Relays[r.Name] = model.Relay{
			Notes: h.relays[i].Notes(), Rate: units.Rate(r.Rate), Strays: r.Odds.Strays(),
			Senders: r.Senders, Weight: r.Weight, Keys: r.Keys,
		}
		h.told.Order = append(h.told.Order, r.Name)
	}
}

// auditUsage compares the store's count with its messages.
func (h *history) auditUsage(store queue.Store) {
	usage, err := store.Usage(context.Background())
	if err != nil {
		h.fail("audit", "%v", err)
	}
	var want queue.Usage
	for _, m := range h.told.Messages {
		switch m.Status() {
		default:
		case queue.StatusQueued, queue.StatusDeferred, queue.StatusHeld:
			want.Messages++
			want.Bytes += m.Size
		}
	}
	for _, counted := range append(h.usage, usage) {
		if counted != want {
			h.fail("audit", "the store counts %+v, the queues %+v, and there are %+v", usage, h.usage, want)
			break
		}
	}
}
