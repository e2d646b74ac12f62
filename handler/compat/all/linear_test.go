//go:build linux && !race

package all

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsidecar/handler/compat"
	"mailsidecar/handler/compat/compattest"
)

// listed joins count items that item makes.
func listed(count int, item func(i int) string) string {
	items := make([]string, count)
	for i := range items {
		items[i] = item(i)
	}
	return strings.Join(items, ",")
}

// fill makes items until they have n octets, or are nearly as many as are allowed.
func fill(n int, item func(i int) string) string {
	return listed(min(n/(len(item(1000))+1), 990), item)
}

// files makes items until they have n octets, or are nearly as many as files are
// allowed.
func files(n int, item func(i int) string) string {
	return listed(min(n/(len(item(1000))+1), 490), item)
}

func to(i int) string        { return fmt.Sprintf(`{"to":[{"email":"a%d@b.example"}]}`, i) }
func person(i int) string    { return fmt.Sprintf(`{"email":"a%d@b.example"}`, i) }
func member(i int) string    { return fmt.Sprintf(`"X-%d":"a"`, i) }
func nested(i int) string    { return fmt.Sprintf(`"%s":"a"`, strings.Repeat("a", i%900+1)) }
func address(i int) string   { return fmt.Sprintf("a%d@b.example", i) }
func brevoFile(i int) string { return fmt.Sprintf(`{"name":"ü %d","content":"YQ=="}`, i) }

// products are requests of n octets that a few members multiply, by what they do.
var products = map[string]struct {
	api, path, mediaType string
	body                 func(n int) string
}{
	"Brevo: versions and files and HTML": {"brevo", "/v3/smtp/email", "application/json", func(n int) string {
		return `{"sender":{"email":"s@b.example"},"subject":"x","htmlContent":"` + strings.Repeat("cid:", n/12) +
			`","messageVersions":[` + fill(n/3, to) + `],"attachment":[` + files(n/3, brevoFile) + `]}`
	}},
	"Brevo: versions and headers": {"brevo", "/v3/smtp/email", "application/json", func(n int) string {
		return `{"sender":{"email":"s@b.example"},"subject":"x","textContent":"x","messageVersions":[` + fill(n/2, to) + `],"headers":{` + fill(n/2, member) + `}}`
	}},
	"Brevo: versions and variables": {"brevo", "/v3/smtp/email", "application/json", func(n int) string {
		return `{"sender":{"email":"s@b.example"},"subject":"x","textContent":"` + strings.Repeat("{{params.X-1}}", n/3/14) +
			`","messageVersions":[` + fill(n/3, to) + `],"params":{` + fill(n/3, member) + `}}`
	}},
	"Brevo: versions and tags": {"brevo", "/v3/smtp/email", "application/json", func(n int) string {
		return `{"sender":{"email":"s@b.example"},"subject":"x","textContent":"x","messageVersions":[` + fill(n/2, to) + `],"tags":["` + strings.Repeat("a", n/4) + `",` + fill(n/4, func(int) string { return `"a"` }) + `]}`
	}},
	"SendGrid: personalizations and headers": {"sendgrid", "/v3/mail/send", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","content":[{"type":"text/plain","value":"x"}],"personalizations":[` + fill(n/3, to) +
			`],"headers":{` + fill(n/3, member) + `},"custom_args":{` + fill(n/3, member) + `}}`
	}},
	"SendGrid: headers of both": {"sendgrid", "/v3/mail/send", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","content":[{"type":"text/plain","value":"x"}],"headers":{` + fill(n/4, member) + `},"personalizations":[` +
			listed(2, func(i int) string {
				return `{"to":[` + person(i) + `],"headers":{` + fill(n/4, func(j int) string { return member(1000 + j) }) + `}}`
			}) + `]}`
	}},
	"SendGrid: personalizations and files": {"sendgrid", "/v3/mail/send", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","content":[{"type":"text/html","value":"x"}],"personalizations":[` + fill(n/2, to) + `],"attachments":[` +
			files(n/2, func(i int) string { return fmt.Sprintf(`{"filename":"a%d","content":"YQ=="}`, i) }) + `]}`
	}},
	"SendGrid: nested names": {"sendgrid", "/v3/mail/send", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","content":[{"type":"text/plain","value":"` + strings.Repeat("a", n/2) +
			`"}],"personalizations":[{"to":[` + person(1) + `],"substitutions":{"` + strings.Repeat("a", n/4) + `b":"x",` + listed(min(n/512, 100), nested) + `}}]}`
	}},
	"MailerSend: files and HTML": {"mailersend", "/v1/email", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","to":[` + person(1) + `],"html":"` + strings.Repeat("cid:", n/8) + `","attachments":[` +
			files(n/2, func(i int) string { return fmt.Sprintf(`{"id":"ü %d","filename":"a","content":"YQ=="}`, i) }) + `]}`
	}},
	"MailerSend: recipients and variables": {"mailersend", "/v1/email", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","text":"{{X-1}}","to":[` + listed(min(50, n/60), func(int) string { return person(1) }) +
			`],"personalization":[` + fill(n/2, func(int) string { return `{"email":"a1@b.example","data":{"x":"y"}}` }) + `]}`
	}},
	"MailerSend: headers": {"mailersend", "/v1/email", "application/json", func(n int) string {
		return `{"from":{"email":"s@b.example"},"subject":"x","text":"x","to":[` + person(1) + `],"headers":[` +
			fill(n, func(i int) string { return fmt.Sprintf(`{"name":"X-%d","value":"a"}`, i) }) + `]}`
	}},
	"Mailgun: recipients and variables": {"mailgun", "/v3/b.example/messages", "application/x-www-form-urlencoded", func(n int) string {
		return "from=s@b.example&subject=x&text=x&to=" + fill(n/2, func(int) string { return "a@b.example" }) +
			"&recipient-variables=" + url.QueryEscape(`{"a@b.example":{`+fill(n/6, member)+`}}`)
	}},
	"Mailgun: recipients and headers": {"mailgun", "/v3/b.example/messages", "application/x-www-form-urlencoded", func(n int) string {
		return "from=s@b.example&subject=x&text=x&to=" + fill(n/2, address) + "&recipient-variables={}&" +
			strings.ReplaceAll(fill(n/2, func(i int) string { return fmt.Sprintf("h:X-%d=a", i) }), ",", "&")
	}},
	"Postmark: files and HTML": {"postmark", "/email", "application/json", func(n int) string {
		return `{"From":"s@b.example","To":"a@b.example","Subject":"x","HtmlBody":"` + strings.Repeat("cid:", n/8) + `","Attachments":[` +
			files(n/2, func(i int) string { return fmt.Sprintf(`{"ContentID":"ü %d","Name":"a","Content":"YQ=="}`, i) }) + `]}`
	}},
}

// TestLinear: however its members multiply, 64 times as large a request takes 200 times
// the CPU time at most.
func TestLinear(t *testing.T) {
	named := map[string]*compat.API{}
	for _, a := range apis {
		named[a.Name] = a
	}
	for name, p := range products {
		serve := func(n int) (time.Duration, *httptest.ResponseRecorder) {
			r := httptest.NewRequest(http.MethodPost, p.path, strings.NewReader(p.body(n)))
			r.Header.Set("Content-Type", p.mediaType)
			r.Header.Set("Authorization", "Bearer "+compattest.ShopSecret)
			r.Header.Set("Api-Key", compattest.ShopSecret)
			r.Header.Set("X-Postmark-Server-Token", compattest.ShopSecret)
			if p.api == "mailgun" {
				r.SetBasicAuth("api", compattest.ShopSecret)
			}
			begin := processTime()
			w := new(compattest.Desk).Serve(t, named[p.api], r)
			return processTime() - begin, w
		}
		const n, large, leastTime = 4 << 10, 64 * 4 << 10, 2 * time.Millisecond
		var long, short time.Duration
		var answer *httptest.ResponseRecorder
		for range 3 { // other tests disturb it
			var first *httptest.ResponseRecorder
			if short, first = serve(n); first.Code >= 300 {
				t.Errorf("%s: %d octets: %d %.200s", name, n, first.Code, first.Body)
			}
			if long, answer = serve(large); long <= 200*max(short, leastTime) {
				break
			}
		}
		t.Logf("%s: %v and %v, then %d %.150s", name, short, long, answer.Code, answer.Body)
		if long > 200*max(short, leastTime) || answer.Code >= 500 {
			t.Errorf("%s: %v for %d octets, %v for %d, %d %.200s", name, short, n, long, large, answer.Code, answer.Body)
		}
	}
}

// processTime returns the CPU time of the process.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
