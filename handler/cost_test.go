//go:build !race

// The race detector changes what is allocated: sync.Pool gives back less then.

package handler

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
)

// What a request may allocate until it is answered, all garbage included: costPerOctet
// octets for each octet of its body, unpacked, and costOfAny beside it. An answer that
// is an error has at most maxErrorAnswer octets.
const (
	costPerOctet   = 48
	costOfAny      = 8 << 20
	maxErrorAnswer = 64 << 10
	// repeated is how often a hostile request repeats something.
	repeated = 30_000
)

// hostile is a request and where it is hostile.
type hostile struct {
	name    string
	octets  int // of the body, unpacked
	request func() *http.Request
}

// checkCost serves the request and compares what that allocates with the limits.
func checkCost(t *testing.T, s http.Handler, h hostile) {
	t.Helper()
	r, w := h.request(), httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if limit := uint64(costPerOctet*h.octets + costOfAny); allocated > limit {
		t.Errorf("%s: %d octets of body allocate %d kB, want at most %d kB; answer %d", h.name, h.octets, allocated>>10, limit>>10, w.Code)
	}
	if n := w.Body.Len(); w.Code >= 400 && n > maxErrorAnswer {
		t.Errorf("%s: the answer %d has %d octets, want at most %d", h.name, w.Code, n, maxErrorAnswer)
	}
	if w.Code >= 500 {
		t.Errorf("%s: answer = %d %.200s", h.name, w.Code, w.Body)
	}
}

// values are the lists and objects that a hostile request has, by what they repeat.
func values(n int) map[string]string {
	all := map[string]string{
		"[[[": strings.Repeat("[", n) + strings.Repeat("]", n),
		"{{{": strings.Repeat(`{"a":`, n) + "0" + strings.Repeat("}", n),
	}
	for _, item := range []string{
		`{}`, `null`, `""`, `0`, `[]`, `[0]`, `true`, `"a"`, `"a@b.cc"`, `"a,a"`, `{"email":"a@b.cc"}`, `{"email":""}`, `{"to":[{}]}`, `{"content":""}`,
	} {
		all["["+item] = "[" + strings.Repeat(item+",", n-1) + item + "]"
	}
	for _, value := range []string{`0`, `""`, `{}`, `[]`} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":%s`, i, value)
		}
		all["{"+value] = "{" + b.String()[1:] + "}"
	}
	return all
}

// places are the members of a request's type at any depth. Each is a member of the
// request, in which %s stands for the value.
func places(t reflect.Type) []string {
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := `"` + f.Tag.Get("json") + `":`
		all = append(all, name+"%s")
		within, format := f.Type, name+"{%s}"
		if within.Kind() == reflect.Slice {
			within, format = within.Elem(), name+"[{%s}]"
		}
		readsItself := reflect.PointerTo(f.Type).Implements(reflect.TypeFor[json.UnmarshalerFrom]())
		if within.Kind() != reflect.Struct || readsItself {
			continue
		}
		for _, inner := range places(within) {
			all = append(all, fmt.Sprintf(format, inner))
		}
	}
	return all
}

// replaced puts a member into an object in place of its own of that name.
func replaced(object, member string) string {
	var own map[string]jsontext.Value
	if err := json.Unmarshal([]byte(object), &own); err != nil {
		panic(err)
	}
	name, _, _ := strings.Cut(member[1:], `"`)
	delete(own, name)
	for name, value := range own {
		member += `,"` + name + `":` + string(value)
	}
	return "{" + member + "}"
}

// door is a route for JSON with a good request for it.
type door struct {
	name, path, good string
	fields           reflect.Type
	batch            string // where %s stands for the items; empty for one message
	zips             bool
}

func doors() []door {
	all := []door{
		{name: "native", path: "/v1/messages", good: goodMessage, fields: reflect.TypeFor[messageRequest]()},
		{name: "native batch", path: "/v1/messages/batch", good: goodMessage, batch: `{"messages":[%s]}`},
		{name: "postmark batch", path: "/email/batch", good: apis["postmark"].body, batch: "[%s]", zips: true},
		{name: "resend batch", path: "/emails/batch", good: apis["resend"].body, batch: "[%s]", zips: true},
		{name: "mailersend bulk", path: "/v1/bulk-email", good: apis["mailersend"].body, batch: "[%s]", zips: true},
	}
	for _, a := range compatAPIs() {
		if route, ok := apis[a.Name]; ok && a.Name != "mailgun" {
			all = append(all, door{name: a.Name, path: route.path, good: route.body, fields: reflect.TypeOf(a.Requests[0].Fields), zips: a.Name != "ses"})
		}
	}
	return all
}

// request makes a request to the door.
func (d door) request(body string, zipped bool) *http.Request {
	r := httptest.NewRequest(http.MethodPost, d.path, strings.NewReader(body))
	if zipped {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		_, _ = w.Write([]byte(body))
		_ = w.Close()
		r = httptest.NewRequest(http.MethodPost, d.path, &b)
		r.Header.Set("Content-Encoding", "gzip")
	}
	r.Header.Set("Content-Type", intake.TypeJSON)
	name, _, _ := strings.Cut(d.name, " ")
	authorize(r, name, testKey)
	return r
}

// TestJSONCost: whatever a request in JSON repeats, and wherever, what it allocates is
// limited by its octets, and so is the answer.
func TestJSONCost(t *testing.T) {
	repeats := values(repeated)
	for _, d := range doors() {
		t.Run(d.name, func(t *testing.T) {
			s := newTestServer(t, &fakeQueue{durable: true}, nil)
			for i, what := range slices.Sorted(maps.Keys(repeats)) {
				for j, body := range d.bodies(repeats[what]) {
					zipped := d.zips && (i+j)%4 == 0
					checkCost(t, s, hostile{what + " at " + body.place, len(body.text), func() *http.Request { return d.request(body.text, zipped) }})
				}
			}
		})
	}
}

type placed struct{ place, text string }

// bodies are the requests that have the value in each of their places.
func (d door) bodies(value string) []placed {
	if d.batch != "" {
		items := value
		if value[0] == '[' {
			items = value[1 : len(value)-1]
		}
		member := replaced(d.good, `"to":`+value)
		return []placed{{"items", fmt.Sprintf(d.batch, items)}, {"the body", value}, {"to", fmt.Sprintf(d.batch, member)}}
	}
	all := []placed{{"the body", value}}
	for _, place := range places(d.fields) {
		all = append(all, placed{place, replaced(d.good, fmt.Sprintf(place, value))})
	}
	return all
}

// TestFormCost is [TestJSONCost] for forms.
func TestFormCost(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	part := func(field, content string) string {
		return "--x\r\nContent-Disposition: form-data; " + field + "\r\n\r\n" + content + "\r\n"
	}
	parts := map[string]string{}
	for name, one := range map[string]string{
		"to": part("name=to", "a"), "addresses": part("name=to", strings.Repeat("a@b.cc,", 100)), "files": part("name=attachments; filename=a", ""),
		"attachment": part("name=attachment; filename=a", ""), "headers": part(`name="h:X-A"`, "1"),
	} {
		parts[name] = strings.Repeat(one, repeated/20) + "--x--\r\n"
		parts["some "+name] = strings.Repeat(one, 1400) + "--x--\r\n"
	}
	for what, value := range values(repeated) {
		for _, name := range []string{"headers", "tags", "recipient-variables"} {
			parts[what+" in "+name] = part("name=to", "a@b.cc") + part("name="+name, value) + "--x--\r\n"
		}
	}
	parts["fields of a part"] = strings.Replace(part("name=to", "a"), "\r\n\r\n", "\r\n"+strings.Repeat("a: b\r\n", 9000)+"\r\n", 1) + "--x--\r\n"
	for name, body := range parts {
		for _, path := range []string{"/v1/messages", apis["mailgun"].path} {
			checkCost(t, s, hostile{path + " " + name, len(body), func() *http.Request { return formRequest(path, "multipart/form-data; boundary=x", body) }})
		}
	}
	for name, pairs := range map[string]string{
		"to": strings.Repeat("to=a&", repeated), "addresses": "to=" + strings.Repeat("a@b.cc,", repeated), "lists": strings.Repeat("to="+strings.Repeat("a@b.cc,", 9000)+"&", 50),
		"unknown": strings.Repeat("x=1&", 2500), "separators": strings.Repeat("&", repeated),
	} {
		body := formBody + "&" + pairs
		path := apis["mailgun"].path
		checkCost(t, s, hostile{"query " + name, len(body), func() *http.Request { return formRequest(path, apis["mailgun"].contentType, body) }})
	}
}

// TestFinishedCost is [TestJSONCost] for finished messages and their envelopes.
func TestFinishedCost(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	lists := map[string]string{
		"a": strings.Repeat("a,", repeated), "addresses": strings.Repeat("a@b.cc,", repeated), "commas": strings.Repeat(",", repeated),
		"few bad": strings.Repeat("a,", 9000), "angles": strings.Repeat("<>,", repeated), "groups": strings.Repeat("a:;", repeated),
		"foreign": strings.Repeat("\xe4 <a@b.cc>,", repeated/4),
	}
	for name, list := range lists {
		for field, count := range map[string]int{"To": 1, "Cc": 50, "Reply-To": 1, "Sender": 1} {
			raw := "From: a@b.cc\r\n" + strings.Repeat(field+": "+list+"\r\n", max(1, min(count, 2_000_000/len(list)))) + "\r\nHi\r\n"
			checkCost(t, s, hostile{name + " in " + field, len(raw), func() *http.Request {
				return newRequest("POST", "/v1/messages", raw, "Content-Type: message/rfc822")
			}})
			body := `{"Content":{"Raw":{"Data":"` + base64.StdEncoding.EncodeToString([]byte(raw)) + `"}}}`
			checkCost(t, s, hostile{"ses: " + name + " in " + field, len(body), func() *http.Request {
				return door{name: "ses", path: apis["ses"].path}.request(body, false)
			}})
		}
		for _, header := range []string{"Envelope-To", "Envelope-From"} {
			checkCost(t, s, hostile{name + " in " + header, len(list), func() *http.Request {
				return newRequest("POST", "/v1/messages", "From: a@b.cc\r\n\r\n", "Content-Type: message/rfc822", header+": "+list)
			}})
		}
	}
}

// TestLargeRequests: the limits leave room for the largest requests that make sense.
func TestLargeRequests(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	many := newTestServer(t, &fakeQueue{durable: true}, func(o *Options) { o.MaxRecipients = 100_000 })
	list := func(n int, format string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(format, "%d", fmt.Sprint(i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	const email, person = `"ana%d@example.org"`, `{"email":"ana%d@example.org"}`
	octets := strings.TrimRight(strings.Repeat("37,", 1<<20), ",")
	for name, tc := range map[string]struct {
		door int
		body string
		want int
	}{
		"recipients":                {0, replaced(goodMessage, `"to":`+list(1000, email)), 202},
		"recipients taken apart":    {0, replaced(goodMessage, `"to":`+list(1000, `{"email":"ana%d@example.org","name":"A"}`)), 202},
		"the most recipients":       {0, replaced(goodMessage, `"to":`+list(100_000, `{"email":"ana%d@example.org","name":"A"}`)), 202},
		"files":                     {0, replaced(goodMessage, `"attachments":`+list(1000, `{"filename":"%d.txt","content":"YQ=="}`)), 202},
		"too many files":            {0, replaced(goodMessage, `"attachments":`+list(1001, `{"filename":"%d.txt","content":"YQ=="}`)), 422},
		"too many reply_to":         {0, replaced(goodMessage, `"reply_to":`+list(1001, email)), 422},
		"too many recipients":       {0, replaced(goodMessage, `"to":`+list(5000, email)), 422},
		"batch of texts":            {1, fmt.Sprintf(`{"messages":%s}`, list(500, replaced(goodMessage, `"to":`+list(1000, `"ana@example.org"`)))), 202},
		"batch of objects":          {1, fmt.Sprintf(`{"messages":%s}`, list(500, replaced(goodMessage, `"to":`+list(100, `{"email":"ana@example.org"}`)))), 202},
		"mailersend bulk":           {4, list(500, replaced(apis["mailersend"].body, `"to":`+list(50, person))), 202},
		"postmark batch":            {2, list(500, apis["postmark"].body), 200},
		"sendgrid personalizations": {-1, replaced(apis["sendgrid"].body, `"personalizations":`+list(1000, `{"to":[{"email":"ana%d@example.org"}],"substitutions":{"-a-":"1","-b-":"2","-c-":"3"},"custom_args":{"id":"%d"}}`)), 202},
		"sendgrid octets":           {-1, replaced(apis["sendgrid"].body, `"attachments":[{"filename":"a","content":{"type":"Buffer","data":[`+octets+`]}}]`), 202},
		"brevo versions":            {-2, replaced(replaced(apis["brevo"].body, `"messageVersions":`+list(1000, `{"to":[{"email":"ana%d@example.org"},{"email":"bob%d@example.org"}],"params":{"a":"1","b":2}}`)), `"to":[]`), 201},
	} {
		all := doors()
		d := all[max(tc.door, 0)]
		for _, other := range all {
			if tc.door == -1 && other.name == "sendgrid" || tc.door == -2 && other.name == "brevo" {
				d = other
			}
		}
		w, server := httptest.NewRecorder(), s
		if name == "the most recipients" {
			server = many
		}
		if server.ServeHTTP(w, d.request(tc.body, false)); w.Code != tc.want {
			t.Errorf("%s = %d %.300s, want %d", name, w.Code, w.Body, tc.want)
		}
	}
}

// TestManyFindings: an answer names fifty findings, and says that there are more.
func TestManyFindings(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	files := func(n int) string { return "[" + strings.Repeat("{},", n-1) + "{}]" }
	for name, body := range map[string]string{
		"native":     replaced(goodMessage, `"attachments":`+files(400)),
		"sendgrid":   replaced(apis["sendgrid"].body, `"attachments":`+files(400)),
		"mailersend": replaced(apis["mailersend"].body, `"attachments":`+files(400)),
	} {
		i := slices.IndexFunc(doors(), func(d door) bool { return d.name == name })
		a := serve(s, doors()[i].request(body, false))
		if more := strings.Count(string(a.body), problem.More.Message); more != 1 {
			t.Errorf("%s: the answer says %d times that there are more findings, want once: %.300s", name, more, a.body)
		}
		if n := strings.Count(string(a.body), "attachments"); n < problem.MaxFields-1 || n > 2*problem.MaxFields+3 {
			t.Errorf("%s: the answer names %d files, want %d findings", name, n, problem.MaxFields)
		}
	}
	named := strings.ReplaceAll(files(20), "{}", `{"filename":"a name of some length"}`)
	batch := `{"messages":[` + strings.Repeat(replaced(goodMessage, `"attachments":`+named)+",", 499) + goodMessage + `]}`
	a := serve(s, newRequest("POST", "/v1/messages/batch", batch))
	if limit := maxErrorAnswer + 500*1024; a.status != 202 || len(a.body) > limit {
		t.Errorf("batch: answer = %d with %d octets, want 202 with at most %d", a.status, len(a.body), limit)
	}
}

// TestTestTokenBody: without a key of the server's own a request has at most 64 KiB,
// however small it was made for its way.
func TestTestTokenBody(t *testing.T) {
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for octets, want := range map[int]int{64 << 10: 200, 64<<10 + 1: 413} {
		for _, zipped := range []bool{false, true} {
			body := apis["postmark"].body
			d := door{name: "postmark", path: "/email"}
			r := d.request(body+strings.Repeat(" ", octets-len(body)), zipped)
			r.Header.Set("X-Postmark-Server-Token", "POSTMARK_API_TEST")
			a := serve(s, r)
			if a.status != want || !strings.Contains(string(a.body), "ErrorCode") {
				t.Errorf("%d octets, zipped %t = %d %s, want %d in Postmark's form", octets, zipped, a.status, text(a), want)
			}
		}
	}
}

// TestArchiveOfNothing: an archive that unpacks to nothing has a limit, too: that of the
// body.
func TestArchiveOfNothing(t *testing.T) {
	var member bytes.Buffer
	if err := gzip.NewWriter(&member).Close(); err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, &fakeQueue{durable: true}, nil)
	for _, d := range doors() {
		if !d.zips {
			continue
		}
		most := 50 << 20
		r := d.request(apis[d.name].body, true)
		if d.name == "postmark" {
			r.Header.Set("X-Postmark-Server-Token", "POSTMARK_API_TEST")
			most = 64 << 10
		}
		archive := &repeating{unit: strings.Repeat(member.String(), 1000), units: 3 * most / 2000 / member.Len()}
		sent := &counted{Reader: archive}
		r.Body, r.ContentLength = io.NopCloser(sent), -1
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s = %d %s, want 413", d.name, w.Code, w.Body)
		}
		if sent.octets > most+8<<10 {
			t.Errorf("%s: %d octets were read, want at most %d", d.name, sent.octets, most)
		}
	}
}

// counted counts the octets that are read.
type counted struct {
	io.Reader
	octets int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.octets += n
	return n, err
}

// FuzzBodyCost: no body, of which a part is repeated, costs more than the limits of
// [TestJSONCost].
func FuzzBodyCost(f *testing.F) {
	all := doors()
	for i, d := range all {
		for _, unit := range []string{`{},`, `null,`, `[`, `"a,a",`, `{"email":"a@b.cc"},`} {
			before, after := `{"to":[`, `0]}`
			if d.batch != "" {
				before, after = `[`, `0]`
			}
			f.Add(uint8(i), true, []byte(before), []byte(unit), []byte(after), uint16(10_000))
		}
	}
	s := newTestServer(f, &fakeQueue{durable: true}, nil)
	f.Fuzz(func(t *testing.T, n uint8, zipped bool, before, unit, after []byte, times uint16) {
		d := all[int(n)%len(all)]
		body := string(before) + strings.Repeat(string(unit), min(int(times), (1<<20)/max(len(unit), 1))) + string(after)
		checkCost(t, s, hostile{d.name, len(body), func() *http.Request { return d.request(body, zipped && d.zips) }})
	})
}
