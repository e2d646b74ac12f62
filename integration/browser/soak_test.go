package browser_test

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

var soak = flag.Duration("soak", 0, "how long TestSoak goes on; zero leaves it out")

// sample is what a server uses at one moment.
type sample struct{ memory, goroutines, files float64 }

// TestSoak leaves the dashboard open, which refreshes itself, while mail is sent, some is refused,
// pages are looked at and the metrics are scraped each second: what the server uses must not
// grow.
//
//	make soak
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("it takes half an hour: make soak")
	}
	s := serve(t, newRelay(t, nil).withKeys())
	_, failed, _ := s.mixedMail(t)
	overview, list := open(t, s, everyday), open(t, s, everyday)
	overview.signIn(adminSecret)
	list.signIn(adminSecret)
	shop := s.client(t, shopSecret)

	var all []sample
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for begun, n := time.Now(), 0; time.Since(begun) < *soak; n++ {
		<-second.C
		to := fmt.Sprintf("customer%d@example.org", n)
		if n%10 == 0 {
			to = "gone@example.net"
		}
		s.send(t, shop, api.Request{To: []string{to}, Subject: "Your order " + strconv.Itoa(n)})
		all = append(all, s.sample(t))
		if n%15 == 0 {
			paths := []string{"/ui/messages", "/ui/messages/" + failed, "/ui/relays", "/ui/keys", "/ui/settings", "/ui/messages?q=order"}
			list.visit(paths[n/15%len(paths)])
			list.quiet("soak")
		}
		if n%60 == 59 {
			t.Logf("%v: %+v", time.Since(begun).Round(time.Second), median(all[len(all)-60:]))
		}
	}
	overview.says("Mail flows")
	overview.check("soak")
	third := len(all) / 3
	before, after := median(all[third:2*third]), median(all[2*third:])
	t.Logf("the second third %+v, the last %+v", before, after)
	if after.memory > 1.1*before.memory || after.goroutines > 1.1*before.goroutines+5 || after.files > 1.1*before.files+5 {
		t.Errorf("what the server uses grows: %+v, and later %+v", before, after)
	}
}

// median is that of each number by itself.
func median(all []sample) sample {
	of := func(number func(sample) float64) float64 {
		var values []float64
		for _, s := range all {
			values = append(values, number(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return sample{
		of(func(s sample) float64 { return s.memory }), of(func(s sample) float64 { return s.goroutines }), of(func(s sample) float64 { return s.files }),
	}
}

// sample scrapes the metrics.
func (s *server) sample(t *testing.T) (now sample) {
	t.Helper()
	a, err := s.admin.Do(t.Context(), http.MethodGet, "/metrics", nil, nil)
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("GET /metrics = %d, %v", a.Status, err)
	}
	numbers := map[string]*float64{"process_resident_memory_bytes": &now.memory, "go_goroutines": &now.goroutines, "process_open_fds": &now.files}
	lines := bufio.NewScanner(strings.NewReader(string(a.Body)))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number := numbers[name]; number != nil {
			if *number, err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	if now.memory == 0 || now.goroutines == 0 || now.files == 0 {
		t.Fatalf("the metrics lack some of %v", now)
	}
	return now
}
