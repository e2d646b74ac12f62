package service

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

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

// maxGarbage is how much garbage, in octets, may be in the heap before it is worth
// collecting.
const maxGarbage = 12 << 20

// tuneCollector makes the heap grow by maxGarbage from one collection to the
// next. Go by itself doubles it, from 4 MiB on: while small messages come and go
// about 1 MiB lives, so it would collect forty times a second, for a tenth of
// the CPU; and with a backlog, which is text that costs nothing to mark, the
// heap would be twice what it need be. GOGC overrides it.
func tuneCollector() {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent(0))
		adjustCollector(gcPercent(0))
	}
}

// gcPercent is GOGC for a live heap of this size, in octets. Go's minimum is
// 4 MiB for each 100.
func gcPercent(live uint64) int {
	const least, most = 50, 100 * maxGarbage / (4 << 20)
	return int(min(max(100*maxGarbage/max(live, 1), least), most))
}

// adjustCollector sets the percentage anew after each collection.
func adjustCollector(current int) {
	type collected struct{ _ *int }
	runtime.AddCleanup(&collected{}, func(current int) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		wanted := gcPercent(live[0].Value.Uint64())
		if wanted < current*4/5 || wanted > current*5/4 { // for setting it stops the world
			debug.SetGCPercent(wanted)
			current = wanted
		}
		adjustCollector(current)
	}, current)
}
