package service

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"mailsidecar/config"
)

// TuneMemory sets the process's memory limit and garbage collector to what the
// service needs. GOMEMLIMIT and GOGC override it.
func TuneMemory(c config.Service) {
	limitMemory(c)
	tuneCollector()
}

// limitMemory makes the garbage collector work harder, rather than let the heap
// double, where many large requests come at once. GOMEMLIMIT overrides it.
func limitMemory(c config.Service) {
	if unset := debug.SetMemoryLimit(-1) == math.MaxInt64; unset {
		debug.SetMemoryLimit(memoryLimit(c))
	}
}

// memoryLimit is what the collector keeps Go's memory within, in octets: what the service
// may take without its connections (docs/operating.md, Sizing), but for 32 MiB for the
// program and for SQLite, whose memory Go does not count. Requests hold MaxInFlight and
// make half as much again; the rest is for messages in delivery and for garbage.
func memoryLimit(c config.Service) int64 {
	const base, notCounted = 96 << 20, 32 << 20
	return base - notCounted + 2*max(int64(c.MaxInFlight), 2*int64(c.MaxMessageSize))
}

// How much garbage, in octets, may be in the heap before it is worth collecting: little while
// little is done, and more while collections follow one another quickly.
const (
	littleGarbage = 12 << 20
	muchGarbage   = 8 * littleGarbage
	quickly       = 100 * time.Millisecond
	slowly        = 5 * quickly
)

// tuneCollector makes the heap grow by littleGarbage from one collection to the
// next. Go by itself doubles it, from 4 MiB on: while small messages come and go
// about 1 MiB lives, so it would collect forty times a second, for a tenth of
// the CPU; and with a backlog, which is text that costs nothing to mark, the
// heap would be twice what it need be. Where large requests come one after the other, even
// that is thirty times a second. Each collection stops all requests for some milliseconds where
// the processors are busy, and takes a quarter of them while it lasts. Then the heap grows by up
// to muchGarbage, as far as the memory limit lets it. GOGC overrides it.
func tuneCollector() {
	if _, set := os.LookupEnv("GOGC"); !set {
		t := collectorTuning{garbage: littleGarbage, last: time.Now()}
		t.percent = gcPercent(0, t.garbage)
		debug.SetGCPercent(t.percent)
		t.await()
	}
}

// collectorTuning is what was set at the last collection.
type collectorTuning struct {
	garbage uint64
	percent int
	last    time.Time
}

// next is what to set after a collection at a time that left so much alive, in octets.
func (t collectorTuning) next(now time.Time, live uint64) collectorTuning {
	switch since := now.Sub(t.last); {
	case since < quickly:
		t.garbage = min(2*t.garbage, muchGarbage)
	case since > slowly:
		t.garbage = max(t.garbage/2, littleGarbage)
	}
	t.last = now
	wanted := gcPercent(live, t.garbage)
	if wanted < t.percent*4/5 || wanted > t.percent*5/4 { // for setting it stops the world
		t.percent = wanted
	}
	return t
}

// gcPercent is GOGC for a live heap of this size and so much garbage, in octets. Go's minimum is
// 4 MiB for each 100.
func gcPercent(live, garbage uint64) int {
	const least = 50
	return int(min(max(100*garbage/max(live, 1), least), 100*garbage/(4<<20)))
}

// await sets the percentage anew after each collection.
func (t collectorTuning) await() {
	type collected struct{ _ *int }
	runtime.AddCleanup(&collected{}, func(t collectorTuning) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		next := t.next(time.Now(), live[0].Value.Uint64())
		if next.percent != t.percent {
			debug.SetGCPercent(next.percent)
		}
		next.await()
	}, t)
}
