package intake

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

func TestWeight(t *testing.T) {
	const element, text, member, octet = weightElement, weightText, weightMember, weightOctet
	for in, want := range map[string]int64{
		``: 0, `null`: 0, `"a"`: 0, `[]`: 0, `{}`: 0,
		`[{},[],null,""]`:                                              4 * element,
		` [ "a" , 1 , -2.5e3, true,false ] `:                           5 * text,
		`{"a":1,"b":"","c":{},"d":[]}`:                                 4 * member,
		`[{"a":[{"b":"c"}]}]`:                                          2*element + 2*member,
		`["a\"b","\\","\\\"",",","[","\\\\"]`:                          6 * text,
		`{"a\"":"[{","b":"x"}`:                                         2 * member,
		`{"attachments":[{"content":[1,2,255]}]}`:                      element + 2*member + 3*octet,
		`{"Attachments":[{"Content":{"type":"Buffer","data":[1,2]}}]}`: element + 4*member + 2*octet,
		`[{"attachment":[{"content":[1]}]}]`:                           2*element + 2*member + octet,
		`{"attachments":[{"content":[[1,1]]}]}`:                        2*element + 2*member + 2*text,
		`{"data":{"attachments":[{"content":[1]}]}}`:                   element + 3*member + text,
		`{"content":{"raw":{"data":[1]}}}`:                             3*member + octet,
		strings.Repeat(`[`, maxDepth) + strings.Repeat(`]`, maxDepth):  (maxDepth - 1) * element,
		`["ab`: text, `[1`: text, `[nul`: element, `]]]}[1,"a"]`: 2 * text, `{"a":`: member, `["\\`: text,
	} {
		s := scale{data: []byte(in), limit: 1 << 40}
		if err := s.weigh(); err != nil || s.weight != want {
			t.Errorf("weigh(%.80s) = %d, %v, want %d", in, s.weight, err, want)
		}
	}
}

// TestWeightLimits: a body may weigh 2 MiB and sixteen times its octets, and no more than
// 2 MiB and the largest body; what it weighs is reserved.
func TestWeightLimits(t *testing.T) {
	const most = 8 << 20
	list := func(n, padding int) string {
		return "[" + strings.Repeat("{},", n-1) + "{}" + strings.Repeat(" ", padding) + "]"
	}
	for _, tc := range []struct {
		body string
		want api.Code
	}{
		{list(maxWeight/weightElement, 0), ""},
		{list(maxWeight/weightElement*12/10, 0), api.CodeBodyTooLarge},
		{list(maxWeight/weightElement*12/10, 32_000), ""},
		{list((maxWeight+most)/weightElement, 3<<20), ""},
		{list((maxWeight+most)/weightElement+1, 3<<20), api.CodeBodyTooLarge},
		{strings.Repeat("[", maxDepth+1), api.CodeMalformedJSON},
		{`{"` + strings.Repeat("a", maxName-2) + `":1}`, ""},
		{`{"` + strings.Repeat("a", maxName-1) + `":1}`, api.CodeMalformedJSON},
		{`[{"a":{"` + strings.Repeat(`\u0061`, maxName/6+1) + `":1}}]`, api.CodeMalformedJSON},
		{`{"a":"` + strings.Repeat("a", 2*maxName) + `"}`, ""},
		{strings.Repeat(`{"a":`, maxDepth+1), api.CodeMalformedJSON},
	} {
		share := NewBudget(64<<20, 8<<20, 1000).Share()
		b, err := Open(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tc.body)), most, share, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.JSON()
		var got api.Code
		if p, ok := errors.AsType[*problem.Error](err); ok {
			got = p.Code
		}
		if got != tc.want {
			t.Errorf("JSON() of %d octets = %v, want code %q", len(tc.body), err, tc.want)
		}
		made := share.made
		if small := share.claim.held / 2; made == 0 && share.claim.held == firstReservation {
			made = small
		}
		if want := min(int64(len(tc.body))+b.Weight(), share.budget.mostMade); err == nil && made < want {
			t.Errorf("JSON() of %d octets reserves %d octets for what is made of it, want %d", len(tc.body), made, want)
		}
	}
}

// TestWeightTurn: what is made of a body waits for its turn, until the client is gone.
func TestWeightTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(4<<20, 1<<20, 1000)
		quick := budget.Share()
		defer quick.Close()
		other := budget.Share()
		if err := other.Begin(t.Context(), budget.mostMade-1000); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 2)
		begin := func() {
			share := budget.Share()
			share.Prove("shop")
			defer share.Close()
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("["+strings.Repeat("{},", 3000)+"{}]"))
			b, err := Open(httptest.NewRecorder(), r, 1<<20, share, 0)
			if err == nil {
				_, err = b.JSON()
			}
			answers <- err
		}
		go begin()
		synctest.Wait()
		if len(answers) > 0 {
			t.Fatalf("JSON() beside another request = %v, want it to wait", <-answers)
		}
		if err := quick.Begin(t.Context(), budget.maxSmall); err != nil || quick.made == 0 {
			t.Errorf("something small beside them = %v, want its turn at once", err)
		}
		cancel()
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Errorf("JSON() of a client that is gone = %v, want %v", err, context.Canceled)
		}
		ctx = t.Context()
		go begin()
		synctest.Wait()
		other.End()
		if err := <-answers; err != nil {
			t.Errorf("JSON() in its turn = %v", err)
		}
	})
}
