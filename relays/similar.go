package relays

import (
	"iter"
	"strings"
)

// maxMistakes is how many letters of a misspelt name may be wrong.
const maxMistakes = 2

// SimilarHost returns the host of a preset that was probably meant by a name which
// does not exist, such as smtp.gmail.com for smtp.gmial.com or for smtp.gmail.de. It
// is false where no host is similar.
func SimilarHost(host string) (string, bool) {
	host = normalHost(host)
	best, fewest := "", maxMistakes+1
	for _, p := range knowledge() {
		for candidate := range p.hostsLike(host) {
			if n := mistakes(host, candidate); n > 0 && n < fewest {
				best, fewest = candidate, n
			}
		}
	}
	if best == "" {
		if p, ok := PresetFor(host); ok && p.Host != host {
			best = p.Host // another name in the domain of a relay; empty for one with regions
		}
	}
	return best, best != ""
}

// hostsLike yields the relay's hosts; of one with a pattern, also that in the region
// which host names.
func (p Preset) hostsLike(host string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for known := range p.hosts() {
			if !yield(known) {
				return
			}
		}
		if labels := strings.Split(host, "."); p.Regional() && len(labels) > 2 {
			yield(p.InRegion(labels[strings.Count(p.Pattern[:strings.Index(p.Pattern, "REGION")], ".")]).Host)
		}
	}
}

// mistakes counts the letters that are wrong in a name. Any other top-level domain is
// one mistake.
func mistakes(got, want string) int {
	gotName, gotTop := cutTop(got)
	wantName, wantTop := cutTop(want)
	return distance(gotName, wantName) + min(1, distance(gotTop, wantTop))
}

// cutTop parts a name from its last label.
func cutTop(host string) (name, top string) {
	i := strings.LastIndexByte(host, '.')
	return host[:max(i, 0)], host[i+1:]
}

// distance returns the number of letters that have to be added, removed, replaced or
// exchanged with their neighbour to make b of a.
func distance(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, last, now := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			now[j] = min(replaced, last[j]+1, now[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
