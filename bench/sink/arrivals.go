package main

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
)

// arrivals counts messages by the run and number in their X-Bench field.
type arrivals struct {
	mu   sync.Mutex
	runs map[int]*runCount
}

type runCount struct {
	different int
	times     []byte // by the message's number; stays at 255
}

var idField = []byte("X-Bench: ")

// add counts the message whose header section begins with head. A message
// without the field is not counted.
func (a *arrivals) add(head []byte) {
	run, number, ok := parseID(head)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.runs == nil {
		a.runs = map[int]*runCount{}
	}
	r := a.runs[run]
	if r == nil {
		r = &runCount{}
		a.runs[run] = r
	}
	if missing := number + 1 - len(r.times); missing > 0 {
		r.times = append(r.times, make([]byte, missing)...)
	}
	if r.times[number] == 0 {
		r.different++
	}
	if r.times[number] < 255 {
		r.times[number]++
	}
}

func (a *arrivals) count(run int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.runs[run]; r != nil {
		return r.different
	}
	return 0
}

func (a *arrivals) times(run int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.runs[run]; r != nil {
		return slices.Clone(r.times)
	}
	return nil
}

// maxNumber keeps a broken field from taking the memory.
const maxNumber = 10_000_000

// parseID finds "X-Bench: RUN-NUMBER".
func parseID(head []byte) (run, number int, ok bool) {
	at := bytes.Index(head, idField)
	if at < 0 || at > 0 && head[at-1] != '\n' {
		return 0, 0, false
	}
	value := head[at+len(idField):]
	if end := bytes.IndexByte(value, '\r'); end >= 0 {
		value = value[:end]
	}
	first, second, found := bytes.Cut(value, []byte("-"))
	if !found {
		return 0, 0, false
	}
	run, err := strconv.Atoi(string(first))
	if err != nil {
		return 0, 0, false
	}
	number, err = strconv.Atoi(string(second))
	return run, number, err == nil && number >= 0 && number < maxNumber
}
