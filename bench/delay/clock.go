package main

import (
	"container/heap"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clock runs functions at their time. It sleeps on a thread of its own, because
// the runtime's timers are up to a millisecond late on an idle Linux, and a
// round trip is two of them.
type clock struct {
	mu     sync.Mutex
	events events
	serial uint64
	wake   int // eventfd
}

func newClock() *clock {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		panic(err)
	}
	c := &clock{wake: fd}
	go c.run()
	return c
}

// at runs f at t. f must not block for long: all other functions wait for it.
func (c *clock) at(t time.Time, f func()) {
	c.mu.Lock()
	c.serial++
	e := event{t, c.serial, f}
	heap.Push(&c.events, e)
	first := c.events[0].serial == e.serial
	c.mu.Unlock()
	if first {
		one := [8]byte{1}
		_, _ = unix.Write(c.wake, one[:])
	}
}

func (c *clock) run() {
	runtime.LockOSThread()
	// Without this the kernel adds up to 50 µs.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for {
		f, wait := c.next()
		if f != nil {
			f()
			continue
		}
		c.sleep(wait)
	}
}

// next returns the function that is due, or else the time until one is; a negative
// time means that no function waits.
func (c *clock) next() (func(), time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) == 0 {
		return nil, -1
	}
	if wait := time.Until(c.events[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&c.events).(event).run, 0
}

// sleep ends early when an earlier event came.
func (c *clock) sleep(wait time.Duration) {
	poll := []unix.PollFd{{Fd: int32(c.wake), Events: unix.POLLIN}}
	var timeout *unix.Timespec
	if wait >= 0 {
		ts := unix.NsecToTimespec(int64(wait))
		timeout = &ts
	}
	if n, _ := unix.Ppoll(poll, timeout, nil); n > 0 {
		var drop [8]byte
		_, _ = unix.Read(c.wake, drop[:])
	}
}

type event struct {
	at     time.Time
	serial uint64 // in the order of coming, where the time is the same
	run    func()
}

// events is a heap: with a round trip time that changes, and connections that
// open late, the next to come need not be the last to run.
type events []event

func (e events) Len() int { return len(e) }

func (e events) Less(i, j int) bool {
	if e[i].at.Equal(e[j].at) {
		return e[i].serial < e[j].serial
	}
	return e[i].at.Before(e[j].at)
}

func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}
