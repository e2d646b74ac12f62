package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestQueueURL: the URL of a database, which has a password, comes from the environment or from a file, and
// prints without user and password wherever it does.
func TestQueueURL(t *testing.T) {
	const value = "postgresql://shop:hunter2@h1:5432,h2:5432/mail?sslmode=verify-full&schema=my+mail&target_session_attrs=read-write"
	const url = "postgresql://shop:hunter2@h1:5432,h2:5432/mail?sslmode=verify-full&target_session_attrs=read-write"
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []env{{"MAILSIDECAR_QUEUE=" + value}, {"MAILSIDECAR_QUEUE_FILE=" + file}} {
		setenv(t, e)
		r := newReader(os.Getenv, os.Environ())
		s := r.service()
		if err := r.err(); err != nil {
			t.Fatal(err)
		}
		if byFile := strings.Contains(e[0], "_FILE"); byFile != (s.Queue.File == file) {
			t.Errorf("%s: the file is %q", e, s.Queue.File)
		}
		if !s.Queue.Shared() || s.Queue.Schema != "my mail" || s.Queue.URL.Reveal() != url {
			t.Errorf("queue = %q, schema %q", s.Queue.URL.Reveal(), s.Queue.Schema)
		}
		c := Config{Service: s, sources: r.sources}
		for _, printed := range []string{fmt.Sprint(s.Queue), fmt.Sprintf("%+v %#v", s.Queue, s.Queue), fmt.Sprintf("%+v", s), fmt.Sprint(c.Effective()), c.LogValue().String()} {
			if strings.Contains(printed, "hunter2") || strings.Contains(printed, "shop:") {
				t.Errorf("printed: %s", printed)
			}
		}
		want := Setting{Name: "MAILSIDECAR_QUEUE", Value: "postgres://h1:5432,h2:5432/mail?schema=my+mail", Source: r.sources["MAILSIDECAR_QUEUE"]}
		if !slices.ContainsFunc(c.Effective(), func(s Setting) bool {
			return s.Name == want.Name && s.Value == want.Value && s.Source == want.Source
		}) {
			t.Errorf("Effective() = %v, want %v in it", c.Effective(), want)
		}
	}
}

// TestQueuePlace: what a queue prints as has the schema, unless it is the usual one.
func TestQueuePlace(t *testing.T) {
	for value, want := range map[string]string{
		"postgres://shop:hunter2@h/mail":                                 "postgres://h/mail",
		"postgres://shop:hunter2@h/mail?schema=mailsidecar":              "postgres://h/mail",
		"postgres://shop:hunter2@h:1/mail?schema=my+mail&sslmode=prefer": "postgres://h:1/mail?schema=my+mail",
	} {
		var q Queue
		if err := q.Decode(value); err != nil || q.String() != want {
			t.Errorf("%s prints as %s, %v, want %s", value, q, err, want)
		}
	}
}

// TestQueueFaults: all that is wrong with a URL is said at once, with what helps, and without the password.
func TestQueueFaults(t *testing.T) {
	const url = "postgres://shop:hunter2@h1/?sslmode=full&sslrootcert=/none/ca.pem&search_path=x&connect_timeout=0&pool_max_conns=1&sslcert=/none/c.pem&target_session_attrs=standby"
	setenv(t, env{"MAILSIDECAR_QUEUE=" + url, "MAILSIDECAR_LEASE=9s"})
	r := newReader(os.Getenv, os.Environ())
	r.service()
	err := fmt.Sprint(r.err())
	for _, want := range []string{
		"MAILSIDECAR_LEASE is 9s, which is too low; set 10s or more",
		"QUEUE has the parameter connect_timeout, which is no number that it may have; set one from 1 to 30",
		"QUEUE has the parameter pool_max_conns, which is no number that it may have; set one from 2 to 1000",
		`QUEUE has the unknown parameter "search_path"; use these alone: application_name,`,
		"QUEUE has the parameter sslcert, whose file cannot be read: ",
		"QUEUE has the parameter sslmode, which is none of its values; set one of disable, ",
		"QUEUE has the parameter sslrootcert, whose file cannot be read: no such file or directory; name a file",
		"QUEUE has the parameter target_session_attrs, which is none of its values; set one of any, primary, read-write",
		"QUEUE has one of the parameters sslcert and sslkey alone; set both, or none",
		"QUEUE names no database; write postgres://",
	} {
		if !strings.Contains(err, want) {
			t.Errorf("the problems lack %q", want)
		}
	}
	if strings.Contains(err, "hunter2") {
		t.Error("the problems have the password")
	}
	if t.Failed() {
		t.Log(err)
	}
	for _, good := range []string{"sslmode=verify-full&sslrootcert=system&connect_timeout=5&pool_max_conns=8&channel_binding=require", "sslcert=/etc/hostname&sslkey=/etc/hostname"} {
		setenv(t, env{"MAILSIDECAR_QUEUE=postgres://h/d?" + good})
		r := newReader(os.Getenv, os.Environ())
		if r.service(); r.err() != nil {
			t.Errorf("%s: %v", good, r.err())
		}
	}
}

// TestSharedWarnings: settings that mean nothing with a database are warned about where they are set.
func TestSharedWarnings(t *testing.T) {
	for free, want := range map[string]int{"": 0, "1GiB": 1} {
		setenv(t, env{"MAILSIDECAR_QUEUE=postgres://h/d", "MAILSIDECAR_MIN_FREE_DISK=" + free})
		r := newReader(os.Getenv, os.Environ())
		if r.service(); len(r.warnings) != want || r.err() != nil {
			t.Errorf("MIN_FREE_DISK=%s: %q, %v, want %d warnings", free, r.warnings, r.err(), want)
		}
	}
}

// TestPasswordInNoError: wherever special characters stand in a password, no error has a part of it. Where
// the URL is taken, the place does not have one either.
func TestPasswordInNoError(t *testing.T) {
	const word = "quokkazeb"
	specials := []string{"", "/", "?", "#", "@", ":", "&", "=", "%", ";", "+", " ", "[", "]", "12/", "p@/", "p@x?", "p@x/", "p@x#", "=1@", "p@h?a=", "?a=b&"}
	parts := func(text string) string {
		for i := range len(word) - 3 {
			if strings.Contains(text, word[i:i+4]) {
				return word[i : i+4]
			}
		}
		return ""
	}
	look := func(value string) {
		var q Queue
		var text string
		if err := q.Decode(value); err != nil {
			text = err.Error()
		} else {
			text = q.String()
			for _, fault := range q.faults() {
				text += fault.Error()
			}
		}
		var l QueueListen
		if err := l.Decode(value); err != nil {
			text += err.Error()
		}
		if part := parts(text); part != "" {
			t.Errorf("%s: %q of the password is in: %s", value, part, text)
		}
	}
	for _, a := range specials {
		for _, b := range specials {
			for _, c := range specials {
				password := a + word[:5] + b + word[5:] + c
				look("postgres://app:" + password + "@127.0.0.1:5432/q")
				look("postgres://app:" + a + word + b + c + "@127.0.0.1/q?sslmode=disable")
				look("postgres://app:" + a + b + word + c + "@127.0.0.1/q?schema=x")
			}
			if !strings.Contains(a+b, "?") && !strings.Contains(a+b, "#") { // a URL with two of these is not meant
				look("postgres://127.0.0.1/q?user=app&password=" + a + word[:5] + b + word[5:] + "&sslmode=disable")
			}
		}
	}
}

// TestQueueParameterNames: the name of an unknown parameter is shown where it was meant as one.
func TestQueueParameterNames(t *testing.T) {
	for query, want := range map[string]string{
		"search_path=x":                `has the unknown parameter "search_path"`,
		"w0rd=x":                       "has an unknown parameter (not shown",
		"word":                         "has an unknown parameter (not shown",
		"password=a&word=x":            "has an unknown parameter (not shown",
		"application_name=a@b":         "has parameters that cannot be read",
		"application_name=a%40b":       "",
		"host=a,b&port=1,2":            "",
		"host=%2Fvar%2Frun":            "",
		"password=p%40ss&user=a":       "",
		"password=p@ss&user=a":         "and %40 for an @ of a parameter",
		"sslmode=full&w0rd@h=x":        "has parameters that cannot be read",
		strings.Repeat("a", 31) + "=x": "not shown",
	} {
		var q Queue
		text := ""
		if !strings.HasPrefix(query, "host=") {
			query += "&host=h"
		}
		if err := q.Decode("postgres:///mail?" + query); err != nil {
			text = err.Error()
		}
		for _, fault := range q.faults() {
			text += fault.Error()
		}
		if want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%s: %q, want %q", query, text, want)
		}
	}
	for _, value := range []string{"postgres://a:b@[::1]:1,127.0.0.1:2/d", "postgres://a:b@%2Ftmp%2Fdir/d"} {
		var q Queue
		if err := q.Decode(value); err == nil || !strings.Contains(err.Error(), "?host=A,B&port=1,2 or ?host=/DIR") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// TestFileWarnings: settings that mean nothing with a queue in a file are warned about.
func TestFileWarnings(t *testing.T) {
	for _, e := range []env{{}, {"MAILSIDECAR_QUEUE_LISTEN=none"}, {"MAILSIDECAR_QUEUE_LISTEN=postgres://u:hunter2@h/d", "MAILSIDECAR_LEASE=30s"}} {
		setenv(t, append(e, "MAILSIDECAR_QUEUE=sqlite:/q.db"))
		r := newReader(os.Getenv, os.Environ())
		if r.service(); len(r.warnings) != len(e) || r.err() != nil || strings.Contains(fmt.Sprint(r.warnings), "hunter2") {
			t.Errorf("%d settings: %q, %v", len(e), r.warnings, r.err())
		}
	}
}
