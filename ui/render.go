package ui

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailsidecar/ui/markup"
)

//go:embed templates/*.html static/*
var files embed.FS

// pages are the templates, and the version of the files beside them.
type pages struct {
	templates *markup.Set
	version   string // of the style and the script
	err       error
}

func (u *UI) newPages() *pages {
	p := &pages{}
	sum := sha256.New()
	_ = fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			data, _ := files.ReadFile(name)
			sum.Write(data)
		}
		return nil
	})
	p.version = hex.EncodeToString(sum.Sum(nil)[:6])
	p.templates, p.err = markup.Parse(files, "templates/*.html", u.funcs(p.version))
	return p
}

// page is what every template gets. Data is what the page itself has.
type page struct {
	Title string
	Nav   string // name of the page's entry in the navigation; empty for none
	Data  any

	// The rest is filled in by show.
	SignedIn          bool
	Keyless           bool
	Key               string
	Send, Read, Admin bool
	CSRF              string
	Version           string
	Sentence          *sentence // nil where it is not known whose mail is meant
	Notice            string    // what the last form did
	Here              markup.URL
}

// show renders a page.
func (v *visit) show(status int, template string, p page) {
	p.SignedIn, p.Keyless, p.Key, p.CSRF = v.signedIn, v.ui.door.Keyless(), v.key, v.csrf
	p.Send, p.Read, p.Admin = v.maySend, v.mayRead, v.isAdmin
	p.Notice = notices[v.r.URL.Query().Get("done")]
	p.Here = markup.URL(v.ui.prefix + v.r.URL.RequestURI())
	if v.signedIn {
		p.Version = v.ui.version
		if p.Sentence == nil {
			p.Sentence = v.sentence()
		}
	}
	made := v.ui.pages()
	err := made.err
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if err == nil {
		var text strings.Builder
		if err = made.templates.Execute(&text, template, p); err == nil {
			v.endTurn() // a slow browser keeps nobody out
			v.w.WriteHeader(status)
			_, _ = v.w.Write([]byte(text.String()))
			return
		}
	}
	v.ui.log.Error("page failed", "path", v.r.URL.Path, "error", err)
	v.w.WriteHeader(http.StatusInternalServerError)
	_, _ = fmt.Fprint(v.w, "<!doctype html><title>mailsidecar</title><p>The server could not make this page. Its log has the cause.")
}

// showError shows a page with one sentence.
func (v *visit) showError(status int, text string) {
	v.show(status, "error.html", page{Title: http.StatusText(status), Data: text})
}

// notices are what pages say after a form did its work, by the value of done in the address.
var notices = map[string]string{
	"paused":    "The relay is paused: no attempt begins there until it is resumed.",
	"resumed":   "The relay is resumed: mail for it is tried again now.",
	"drained":   "New mail is refused from now on, and what is here is delivered.",
	"undrained": "The drain has ended: new mail is taken again.",
	"sent":      "The relay has taken the message.",
	"stored":    "The message is stored, and the relay has not taken it yet. A key with the role read can see what becomes of it.",
}

// serveStatic serves the style and the script. Their addresses have a version, so browsers
// keep them.
func (u *UI) serveStatic(w http.ResponseWriter, r *http.Request) {
	u.door.Stranger(r)
	data, err := files.ReadFile("static/" + path.Base(r.PathValue("name")))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	switch path.Ext(r.PathValue("name")) {
	case ".css":
		h.Set("Content-Type", "text/css; charset=utf-8")
	case ".js":
		h.Set("Content-Type", "text/javascript; charset=utf-8")
	case ".svg":
		h.Set("Content-Type", "image/svg+xml")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}

// to is the address of a page: its path below /ui/, each part escaped.
func (u *UI) to(parts ...string) markup.URL {
	address := u.prefix + "/ui/"
	for i, p := range parts {
		if i > 0 {
			address += "/"
		}
		address += url.PathEscape(p)
	}
	return markup.URL(address)
}

// search is the address of the list of messages that match.
func (u *UI) search(query string) markup.URL {
	if query == "" {
		return u.to("messages")
	}
	return u.to("messages") + markup.URL("?q="+url.QueryEscape(query))
}

// funcs are what templates may call.
func (u *UI) funcs(version string) markup.Funcs {
	return markup.Funcs{
		"to":      u.to,
		"search":  u.search,
		"static":  func(name string) markup.URL { return u.to("static", name) + markup.URL("?v="+version) },
		"stamp":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"exact":   func(t time.Time) string { return t.UTC().Format("Mon 2 Jan 2006 15:04:05 UTC") },
		"ago":     func(t time.Time) string { return ago(t, time.Now()) },
		"clock":   clock,
		"number":  number[int64],
		"plural":  plural,
		"period":  period,
		"mode":    func(mode string) string { return modeNames[mode] },
		"size":    size,
		"cut":     cut,
		"capital": capital,
	}
}

// ago says how far a time is from now, such as "4 min ago" or "in 2 h".
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d.Abs() < 5*time.Second:
		return "just now"
	case d < 0:
		return "in " + inWords(-d)
	default:
		return inWords(d) + " ago"
	}
}

// inWords is a duration in its largest unit, or two of them where the first is small.
func inWords(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return strconv.Itoa(max(int(d/time.Second), 1)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 10*time.Hour && d%time.Hour >= time.Minute:
		return fmt.Sprintf("%d h %d min", int(d/time.Hour), int(d%time.Hour/time.Minute))
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
}

// number is n with a comma between thousands.
func number[N int | int64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// size is a number of octets as people read it.
func size(octets int64) string {
	switch {
	case octets < 1000:
		return strconv.FormatInt(octets, 10) + " B"
	case octets < 999_500:
		return strconv.FormatFloat(float64(octets)/1e3, 'f', 0, 64) + " KB"
	default:
		return strconv.FormatFloat(float64(octets)/1e6, 'f', 1, 64) + " MB"
	}
}

// capital begins a sentence.
func capital(text string) string {
	first, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[n:]
}

// cut is the beginning of a text, of n characters at most.
func cut(text string, n int) string {
	runes := 0
	for i := range text {
		if runes++; runes > n {
			return text[:i] + "…"
		}
	}
	return text
}
