package sim

import (
	"slices"
	"time"

	"mailsidecar/sim/model"
)

// shared says that several instances have one store.
func (w *World) shared() bool { return w.Instances > 1 }

// again is how often a client repeats a request of which it does not know whether it was
// stored, and that has an Idempotency-Key.
const again = 3

// send makes the request of a draft at an instance, and where its outcome is not known at the
// next ones.
func (h *history) send(instance int, d *Draft) {
	for n := range 1 + again {
		answer := h.submit(instance+n, d)
		if answer != model.Unknown || d.Name == "" || !h.world.shared() {
			return
		}
		time.Sleep(h.world.chance.Of("again").Of(d.Name).N(instance).N(n).Between(time.Millisecond, 3*time.Second))
	}
}

// resolve repeats, when all is well, the requests of which it is not known whether they were
// stored, until that is known.
func (h *history) resolve() {
	h.mu.Lock()
	unknown := slices.Clone(h.unknown)
	h.mu.Unlock()
	for i, d := range unknown {
		d.Leaves = 0
		if h.submit(i, &d) == model.Unknown {
			h.fail("idempotency", "it is not known whether %s was stored, though all is well and the key was repeated", d.Submissions[0].Token)
		}
	}
}

// suspend makes time stand still for an instance, as SIGSTOP does.
func (h *history) suspend(a Action) {
	n := h.nodes[a.Instance]
	s := h.at(n)
	if s == nil || s.line.Gate().Closed() {
		return
	}
	h.log.Add("service", "is suspended", "", n.number)
	begun := time.Now()
	s.line.Stop(true)
	select {
	case <-s.ctx.Done(): // it crashed
	case <-time.After(a.For):
	}
	s.line.Stop(false)
	h.log.Add("service", "goes on", "", n.number)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Absences = append(h.told.Absences, model.Absence{Span: model.Span{From: begun, To: time.Now()}, Instance: n.number, Suspended: true})
}

// cutOff lets an instance not reach the database, or only its heartbeats.
func (h *history) cutOff(a Action) {
	s := h.at(h.nodes[a.Instance])
	if s == nil {
		return
	}
	h.log.Add("store", string(a.Kind), "", a.Instance)
	begun, set := time.Now(), s.link.Cut
	if a.Kind == LoseBeats {
		set = s.link.LoseBeats
	}
	set(true)
	time.Sleep(a.For)
	set(false)
	h.log.Add("store", string(a.Kind)+" ends", "", a.Instance)
	h.trouble(a.Instance, begun)
}

// hang lets the database answer nobody.
func (h *history) hang(a Action) {
	if !h.lock("database") {
		return
	}
	defer h.unlock("database")
	h.log.Add("store", "hangs", "", 0)
	begun := time.Now()
	h.weather.Hang(true)
	time.Sleep(a.For)
	h.weather.Hang(false)
	h.log.Add("store", "answers", "", 0)
	h.trouble(model.AllInstances, begun)
}

// trouble notes that an instance could not do its work since then.
func (h *history) trouble(instance int, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Absences = append(h.told.Absences, model.Absence{Span: model.Span{From: since, To: time.Now()}, Instance: instance})
}
