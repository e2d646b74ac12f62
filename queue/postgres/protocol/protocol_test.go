package protocol

import (
	"cmp"
	"flag"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
)

// found is what a search has come to.
type found struct {
	states    int
	violation string
	trace     []string
}

// visit says how a state was reached first.
type visit struct {
	from int32
	step string
}

// search visits every state, and returns the shortest way to one that breaks a promise.
// From every state there must be a way to one in which all that was accepted is delivered:
// a state without one has lost a message. A state that was visited is known by its hash, of
// 64 bits.
func search(fault Fault, messages int, trouble int8) found {
	e := &Explorer{Fault: fault}
	seed := maphash.MakeSeed()
	known := map[uint64]int32{}
	var visits []visit
	var next []State     // that are to be visited, after those that were
	var edges [][2]int32 // from one state to another
	var done []int32     // states in which nothing is left to be done
	add := func(s State, from int32, step string) {
		h := maphash.Comparable(seed, s)
		i, ok := known[h]
		if !ok {
			i = int32(len(visits))
			known[h] = i
			visits = append(visits, visit{from, step})
			next = append(next, s)
			if s.Done() {
				done = append(done, i)
			}
		}
		edges = append(edges, [2]int32{from, i})
	}
	way := func(i int32) (steps []string) {
		for ; i > 0; i = visits[i].from {
			steps = append(steps, visits[i].step)
		}
		slices.Reverse(steps)
		return steps
	}
	add(Start(messages, trouble), 0, "")
	var broken found
	for i := int32(0); len(next) > 0; i++ {
		s := next[0]
		next = next[1:]
		e.Steps(s, func(name string, s State) {
			if v := s.Violation(); v != "" {
				broken = found{len(visits), v, append(way(i), name)}
			}
			add(s.Normal(), i, name)
		})
		if broken.violation != "" {
			return broken
		}
	}
	if i := stuck(len(visits), edges, done); i >= 0 {
		return found{len(visits), "a message that was accepted never goes out", way(i)}
	}
	return found{states: len(visits)}
}

// stuck returns the first state from which no way leads to one that is done; -1 where there
// is none.
func stuck(states int, edges [][2]int32, done []int32) int32 {
	slices.SortFunc(edges, func(a, b [2]int32) int { return cmp.Compare(a[1], b[1]) })
	first := make([]int32, states+1) // edge to each state
	for i := len(edges) - 1; i >= 0; i-- {
		first[edges[i][1]] = int32(i)
	}
	ends := make([]bool, states)
	for _, i := range done {
		ends[i] = true
	}
	for len(done) > 0 {
		to := done[len(done)-1]
		done = done[:len(done)-1]
		for i := first[to]; int(i) < len(edges) && edges[i][1] == to; i++ {
			if from := edges[i][0]; !ends[from] {
				ends[from] = true
				done = append(done, from)
			}
		}
	}
	return int32(slices.Index(ends, false))
}

var more = flag.Int("trouble", 0, "how much more may go wrong: 1 takes 5 million states")

// TestExhaustive: no state that two instances can reach breaks a promise, whatever goes wrong,
// up to so many times: a crash at any step, a suspended instance, beats that come late,
// commits without an answer, a failover, lost replies of the relay.
func TestExhaustive(t *testing.T) {
	for _, c := range []struct {
		messages int
		trouble  int8
	}{{2, 1}, {1, 3}} {
		if c.messages == 2 {
			c.trouble += int8(*more)
		}
		f := search(Sound, c.messages, c.trouble)
		if f.violation != "" {
			t.Errorf("%s:\n%s", f.violation, strings.Join(f.trace, "\n"))
		}
		t.Logf("%d messages, %d times trouble: %d states", c.messages, c.trouble, f.states)
	}
}

// TestFaults: the search finds each rule that is left out, with one message.
func TestFaults(t *testing.T) {
	for fault := Sound + 1; fault < Faults; fault++ {
		var f found
		for trouble := int8(1); trouble <= 2 && f.violation == ""; trouble++ {
			f = search(fault, 1, trouble)
		}
		if f.violation == "" {
			t.Errorf("fault %d is not found in %d states", fault, f.states)
			continue
		}
		t.Logf("fault %d: %s (%s)", fault, f.violation, strings.Join(f.trace, "; "))
	}
}
