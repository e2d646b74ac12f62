package service

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"mailsidecar/config"
	"mailsidecar/queue"
)

const (
	// agreeInterval is how often an instance says what it is set to, and looks what others say.
	agreeInterval = time.Minute
	// agreeLife is how long that holds, and agreeLooks how often in a row a difference is found before it is
	// logged: by then what an instance said that was replaced, or killed, holds no more.
	agreeLife  = agreeInterval * 3 / 2
	agreeLooks = 3
	// agreeTime limits one look.
	agreeTime = 10 * time.Second
	// agreeKind is the kind of the notes.
	agreeKind = "settings"
	// mostAgreeing limits the differences that are remembered.
	mostAgreeing = 1000
)

// common are the settings that all instances at one queue must have alike: a difference changes what the
// others do, or whose limit holds is chance.
var common = regexp.MustCompile(`^(SMTP[0-9]*_(RATE|HOST|PROVIDER|SENDERS)|MAILSIDECAR_(LEASE|RETENTION|KEEP_BODIES|EXPIRES_IN|UNCERTAIN|QUEUE_MAX_MESSAGES|QUEUE_MAX_SIZE|KEY_RATES|KEY_RELAYS))$`)

// agreement finds out whether the instances at one queue are set alike.
type agreement struct {
	log   *slog.Logger
	store queue.SharedStore
	who   string // this instance
	mine  map[string]string

	differs map[difference]int // how often in a row it was found
}

// difference is a setting that another instance has otherwise. Without a value it has none.
type difference struct{ instance, setting, here, there string }

// agreeing is what an instance says, and until when.
type agreeing struct {
	Instance string            `json:"instance"`
	Until    time.Time         `json:"until"`
	Settings map[string]string `json:"settings"`
}

func newAgreement(store queue.SharedStore, c config.Config, log *slog.Logger) *agreement {
	mine := map[string]string{}
	for _, s := range c.Effective() {
		if common.MatchString(s.Name) {
			mine[s.Name] = s.Value
		}
	}
	return &agreement{log: log, store: store, who: rand.Text(), mine: mine}
}

// look says what this instance is set to, and logs what others have otherwise, once.
func (a *agreement) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agreeTime)
	defer cancel()
	err := a.store.ChangeNote(ctx, agreeKind, a.who, func(_ []byte, now time.Time) []byte {
		value, _ := json.Marshal(agreeing{Instance(), now.Add(agreeLife), a.mine}) // it is texts alone
		return value
	})
	if err != nil {
		return err
	}
	notes, now, err := a.store.Notes(ctx, agreeKind)
	if err != nil {
		return err
	}
	found := map[difference]int{}
	for who, value := range notes {
		var other agreeing
		if who == a.who {
			continue
		}
		if json.Unmarshal(value, &other) != nil || other.Until.Before(now) { // it is gone
			if err := a.store.ChangeNote(ctx, agreeKind, who, func(before []byte, now time.Time) []byte {
				if json.Unmarshal(before, &other) == nil && !other.Until.Before(now) {
					return before
				}
				return nil
			}); err != nil {
				return err
			}
			continue
		}
		for _, d := range differences(other.Instance, a.mine, other.Settings) {
			if len(found) < mostAgreeing {
				found[d] = a.differs[d] + 1
			}
		}
	}
	for d, looks := range found {
		if looks == agreeLooks {
			a.log.Warn("another instance at the same queue is set otherwise: set all alike", "setting", d.setting, "here", d.here, "there", d.there, "instance", d.instance)
		}
	}
	a.differs = found
	return nil
}

func differences(instance string, mine, theirs map[string]string) (all []difference) {
	names := slices.Concat(slices.Collect(maps.Keys(mine)), slices.Collect(maps.Keys(theirs)))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if mine[name] != theirs[name] {
			all = append(all, difference{instance, name, mine[name], theirs[name]})
		}
	}
	return all
}

// run looks until ctx ends.
func (a *agreement) run(ctx context.Context) {
	tick := time.NewTicker(agreeInterval)
	defer tick.Stop()
	for {
		if err := a.look(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("look whether other instances are set alike", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// agreements is a running agreement; the zero value is none.
type agreements struct {
	cancel context.CancelFunc
	task   sync.WaitGroup
}

// begin begins where other instances may share the queue.
func (a *agreements) begin(ctx context.Context, q *runningQueue, c config.Config, log *slog.Logger) {
	if q == nil {
		return
	}
	if store, ok := q.store.(queue.SharedStore); ok {
		ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
		a.task.Go(func() { newAgreement(store, c, log).run(ctx) })
	}
}

func (a *agreements) end() {
	if a.cancel != nil {
		a.cancel()
		a.task.Wait()
	}
}
