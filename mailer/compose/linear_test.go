//go:build linux && !race

package compose

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// hardTokens are what makes parsers look ahead, fail and begin again. Each is repeated
// up to the size of its field.
var hardTokens = map[string]string{
	"atoms":              "a ",
	"one word":           "a",
	"atoms far apart":    "a  ",
	"JSON":               `{"a":  "b",  `,
	"quotes":             `"`,
	"escaped quotes":     `\"`,
	"quoted text":        `"a" `,
	"open quoted text":   `"a `,
	"quote in brackets":  `<"`,
	"quoted addresses":   `"a"@b,`,
	"backslashes":        `\`,
	"opened comments":    "(",
	"closed comments":    ")",
	"comments":           "(a) ",
	"foreign comments":   "(é)",
	"escaped comments":   `(\(`,
	"opened brackets":    "<",
	"closed brackets":    ">",
	"brackets":           "<a@b.example> ",
	"literals":           "[",
	"commas":             ",",
	"commas and blanks":  ", ",
	"addresses":          "a@b.example,",
	"foreign addresses":  "é@b.example,",
	"foreign domains":    "a@é.example,",
	"named addresses":    "é <a@b.example>,",
	"bad addresses":      "a,",
	"semicolons":         ";",
	"groups":             "g:;",
	"groups of foreign":  "é:é@b;",
	"colons":             ":",
	"at signs":           "@",
	"dots":               ".",
	"encoded-words":      "=?utf-8?q?a?= ",
	"long encoded-words": "=?utf-8?b?",
	"open encoded-words": "=?a?q?b c ",
	"openings":           "=?",
	"percent signs":      "%",
	"equals signs":       "=",
	"params":             "; a=b",
	"empty params":       ";=",
	"foreign params":     "; a=é",
	"quoted params":      `; a="é"`,
	"continuations":      "; a*0*=utf-8''%C3%A9",
	"folds":              "a\r\n ",
	"blanks":             " ",
	"tabs":               "\t",
	"letters":            "é",
	"characters":         "\U0001F600",
	"octets":             "\xe4",
	"octets and colons":  "\xe4:",
}

// hardFields begin the fields that are read or written in a way of their own.
var hardFields = []string{
	"Subject: ", "From: a@b.example, ", "Reply-To: é", "To: ", "Sender: ", "Resent-To: é", "References: ", "List-Unsubscribe: é", "Date: ", "Message-ID: ",
	"Precedence: ", "DKIM-Signature: h=", "Received: é", "X-Order: ", "X-Order: é", "Content-Type: ", "Content-Type: text/plain; name=é", "Content-Disposition: attachment; filename=é",
	`Content-Disposition: attachment; filename="é`, "Content-Transfer-Encoding: ", "Content-ID: é",
}

// filled returns prefix with copies of token behind it, n octets in all.
func filled(prefix, token string, n int) string {
	return prefix + strings.Repeat(token, max(0, n-len(prefix))/len(token))
}

// placed are the places where a field can stand in a message.
var placed = map[string]func(field string) string{
	"message": func(f string) string { return "From: s@b.example\r\nTo: r@b.example\r\n" + f + "\r\n\r\né\r\n" },
	"part":    func(f string) string { return multipartWith(f + "\r\n\r\né\r\n") },
	"attached": func(f string) string {
		return multipartWith("Content-Type: message/rfc822\r\n\r\n" + f + "\r\n\r\né\r\n")
	},
}

func multipartWith(part string) string {
	return "From: s@b.example\r\nTo: r@b.example\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" + part + "\r\n--x--\r\n"
}

// hardMessages are finished messages by name, each of a given size.
func hardMessages() map[string]func(n int) string {
	all := map[string]func(n int) string{
		"long name of a parameter": func(n int) string {
			return placed["message"]("Content-Disposition: attachment;" + strings.Repeat("a", n/2) + `="` + strings.Repeat("é", n/4) + `"`)
		},
		"long line of a part's parameter": func(n int) string {
			return placed["part"]("Content-Disposition: attachment; " + strings.Repeat("a", 900) + `="` + strings.Repeat("é", n/2) + `"`)
		},
		"folded parameter of a part": func(n int) string {
			return placed["part"]("Content-Disposition: attachment; " + strings.Repeat("a", 900) + "=\"\r\n " + strings.Repeat("é\r\n ", n/5) + `"`)
		},
		"folded parameter of an attached message": func(n int) string {
			return placed["attached"]("Content-Disposition: attachment; " + strings.Repeat("a", 900) + "=\"\r\n " + strings.Repeat("é\r\n ", n/5) + `"`)
		},
		"long name of a field": func(n int) string { return placed["message"](strings.Repeat("a", n) + ": é") },
		"fields":               func(n int) string { return placed["message"](strings.Repeat("X-A: é\r\n", n/9) + "X-B: c") },
		"fields in GBK": func(n int) string {
			return placed["message"]("Content-Type: text/plain; charset=gbk\r\nReply-To: " + strings.Repeat("\x81\x5c", n/4) + "\r\nSubject: " + strings.Repeat("\x81\x5c =?a?q?b?=", n/30))
		},
		"fields in a cut UTF-8": func(n int) string {
			return placed["message"]("Content-Type: text/plain; charset=utf-8\r\nSubject: " + strings.Repeat("é\xc3", n/3))
		},
		"recipient fields": func(n int) string { return placed["message"](strings.Repeat("Cc: a\r\n", n/7) + "X-B: c") },
		"signatures": func(n int) string {
			return placed["message"](strings.Repeat("DKIM-Signature: h=a:b\r\n", n/23) + "X-B: c")
		},
		"parts":                   func(n int) string { return multipartWith(strings.Repeat("\r\né\r\n--x\r\n", n/11)) },
		"delimiters":              func(n int) string { return multipartWith(strings.Repeat("--x\r\n", n/5)) },
		"blanks after delimiters": func(n int) string { return multipartWith(strings.Repeat("--x  y\r\n", n/8)) },
	}
	for body, token := range map[string]string{
		"octets": "\xe4", "NULs": "\x00", "LFs": "\n", "CRs": "\r", "CR CR LFs": "\r\r\n", "blanks": " ", "tabs and LFs": "\t\n", "letters and CRs": "é\r", "equals signs": "=",
	} {
		for _, encoding := range []string{"8bit", "quoted-printable", "base64"} {
			for _, mediaType := range []string{"text/plain", "application/x"} {
				all[body+" in "+mediaType+" as "+encoding] = func(n int) string {
					return "From: s@b.example\r\nTo: r@b.example\r\nContent-Type: " + mediaType + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + filled("é", token, n)
				}
			}
		}
	}
	for name, token := range hardTokens {
		for _, field := range hardFields {
			for place, put := range placed {
				if place == "message" || strings.HasPrefix(field, "Content-") {
					all[fmt.Sprintf("%s in %q of a %s", name, field, place)] = func(n int) string { return put(filled(field, token, n)) }
				}
			}
		}
	}
	return all
}

// work is what a step costs.
type work struct {
	cpu       time.Duration
	allocated uint64 // octets
}

// workOf returns the work of one call of step.
func workOf(step func()) work {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := threadTime()
	step()
	cpu := threadTime() - begin
	runtime.ReadMemStats(&after)
	return work{cpu, after.TotalAlloc - before.TotalAlloc}
}

// threadTime returns the CPU time of the calling thread.
func threadTime() time.Duration {
	const rusageThread = 1
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Sizes of the two inputs that are compared, in octets, and how much more work the
// large one may take: three times as much as its size says.
const (
	smallInput = 512
	largeInput = 64 * smallInput
	maxRatio   = 200
	// Less work than this cannot be told from noise.
	leastTime      = 250 * time.Microsecond
	leastAllocated = 16 << 10
)

// checkLinear checks that the work of step grows with the size alone. Time is measured
// again where it was too long: other threads disturb it.
func checkLinear(t *testing.T, name string, step func(n int)) {
	t.Helper()
	small := workOf(func() { step(smallInput) })
	var large work
	for range 3 {
		large = workOf(func() { step(largeInput) })
		small.cpu = max(small.cpu, workOf(func() { step(smallInput) }).cpu)
		if large.cpu <= maxRatio*max(small.cpu, leastTime) {
			break
		}
	}
	if large.cpu > maxRatio*max(small.cpu, leastTime) || large.allocated > maxRatio*max(small.allocated, leastAllocated) {
		t.Errorf("%s: %v and %d octets of memory for %d octets, %v and %d for %d", name,
			large.cpu, large.allocated, largeInput, small.cpu, small.allocated, smallInput)
	}
}

// TestLinearFinish: whatever stands in a finished message, it takes time and memory
// that grow with its size alone, and so does what it becomes, for every relay.
func TestLinearFinish(t *testing.T) {
	for name, message := range hardMessages() {
		checkLinear(t, name, func(n int) {
			raw := []byte(message(n))
			c, err := Finish(t.Context(), raw, FinishOptions{To: []mailer.Address{{Email: "x@example.org"}}})
			if checkSize(t, name, raw, c.Content, err); err != nil {
				return
			}
			seven, err := SevenBit(t.Context(), c.Content, nil)
			checkSize(t, name+", 7 bit", c.Content.Data, seven, err)
			ascii, err := ASCIIHeader(t.Context(), c.Content, nil)
			checkSize(t, name+", ASCII", c.Content.Data, ascii, err)
		})
	}
}

func checkSize(t *testing.T, name string, raw []byte, c mailer.Content, err error) {
	t.Helper()
	if limit := maxGrowth*len(raw) + growthRoom; len(c.Data) > limit {
		t.Errorf("%s: %d octets became %d, want %d at most", name, len(raw), len(c.Data), limit)
	}
	var invalid *mailer.InvalidError
	var failure *mailer.Failure
	if err != nil && !errors.As(err, &invalid) && !errors.As(err, &failure) {
		t.Errorf("%s: %v", name, err)
	}
}

// TestLinearAddresses: the same of addresses and lists of them.
func TestLinearAddresses(t *testing.T) {
	for name, token := range hardTokens {
		for _, prefix := range []string{"", "é ", "a@b.example, ", `"`, "a@", "g:"} {
			checkLinear(t, name+" after "+prefix, func(n int) { parseAddresses(filled(prefix, token, n)) })
		}
	}
	checkLinear(t, "a domain of many letters", func(n int) {
		domain := []rune("a@")
		for i := range n / 3 {
			domain = append(domain, rune(0x4e00+i%20_000))
		}
		parseAddresses(string(domain))
	})
}

func parseAddresses(s string) {
	list, _ := mailer.ParseAddressList(s)
	var emails []string
	for _, a := range list {
		emails = append(emails, a.Email)
	}
	mailer.UniqueEmails(emails)
	_, _ = mailer.ParseAddressField(s)
}

// TestLinearCompose: the same of a message in parts.
func TestLinearCompose(t *testing.T) {
	for name, token := range hardTokens {
		for field, set := range map[string]func(m *mailer.Message, value string){
			"name":       func(m *mailer.Message, v string) { m.From.Name = v },
			"subject":    func(m *mailer.Message, v string) { m.Subject = v },
			"field":      func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: "X-Order", Value: v}} },
			"field name": func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: v, Value: "x"}} },
			"references": func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: "References", Value: v}} },
			"date":       func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: "Date", Value: v}} },
			"message id": func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: "Message-ID", Value: v}} },
			"list id":    func(m *mailer.Message, v string) { m.Header = []mailer.Field{{Name: "List-Id", Value: v}} },
			"text":       func(m *mailer.Message, v string) { m.Text = v },
			"calendar":   func(m *mailer.Message, v string) { m.Calendar.Content = "BEGIN:VCALENDAR\r\n" + v },
			"recipients": func(m *mailer.Message, v string) { m.To = recipientsNamed(v) },
			"file name":  func(m *mailer.Message, v string) { m.Attachments = []mailer.Attachment{{Filename: v}} },
			"files":      func(m *mailer.Message, v string) { m.Attachments = filesNamed(v) },
			"content type": func(m *mailer.Message, v string) {
				m.Attachments = []mailer.Attachment{{Filename: "a", ContentType: v}}
			},
			"content id": func(m *mailer.Message, v string) { m.Attachments = []mailer.Attachment{{ContentID: v}} },
		} {
			checkLinear(t, name+" as "+field, func(n int) {
				m := mailer.Message{From: mailer.Address{Email: "s@b.example"}, To: []mailer.Address{{Email: "r@b.example"}}, Text: "x"}
				set(&m, filled("", token, n))
				if c, err := composeAny(m); err == nil && len(c.Content.Data) > 32*n+growthRoom {
					t.Errorf("%s as %s: %d octets became %d", name, field, n, len(c.Content.Data))
				}
			})
		}
	}
}

// recipientsNamed makes a recipient of each 8 octets of text.
func recipientsNamed(text string) []mailer.Address {
	var list []mailer.Address
	for piece := range chunks(text, 8) {
		list = append(list, mailer.Address{Name: piece, Email: "r@b.example"})
	}
	return list
}

// filesNamed makes a file of each 32 octets of text.
func filesNamed(text string) []mailer.Attachment {
	var list []mailer.Attachment
	for piece := range chunks(text, 32) {
		list = append(list, mailer.Attachment{Filename: piece})
	}
	return list
}

func chunks(text string, size int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i+size <= len(text); i += size {
			if !yield(strings.ToValidUTF8(text[i:i+size], "")) {
				return
			}
		}
	}
}
