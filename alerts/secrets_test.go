package alerts

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// shownPiece is the length from which a piece of a secret must not be shown, in octets.
const shownPiece = 6

// piecesOf are all pieces of the secrets that must not be shown.
func piecesOf(secrets ...string) map[string]bool {
	pieces := map[string]bool{}
	for _, s := range secrets {
		for i := range len(s) - shownPiece + 1 {
			pieces[s[i:i+shownPiece]] = true
		}
	}
	return pieces
}

// unescapedPaths are all of the texts, and what they are unescaped.
func unescapedPaths(all []string) []string {
	for _, s := range all {
		if plain, err := url.PathUnescape(s); err == nil {
			all = append(all, plain)
		}
	}
	return all
}

// echoes are what servers may repeat of a request that they refuse.
var echoes = []func(*http.Request) []string{
	func(r *http.Request) []string { return []string{r.RequestURI} },
	func(r *http.Request) []string { return []string{r.URL.Path} },
	func(r *http.Request) []string { return unescapedPaths(strings.Split(r.URL.EscapedPath(), "/")) },
	func(r *http.Request) []string { return strings.Split(r.URL.Path, "/") },
	func(r *http.Request) []string {
		var all []string
		for _, pair := range strings.FieldsFunc(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
			_, value, _ := strings.Cut(pair, "=")
			all = append(all, pair, value)
		}
		return unescapedPaths(all)
	},
	func(r *http.Request) []string {
		var all []string
		for name, values := range r.URL.Query() {
			all = append(append(all, name), values...)
		}
		return all
	},
	func(r *http.Request) []string {
		user, password, _ := r.BasicAuth()
		return []string{user, password, r.Header.Get("Authorization")}
	},
}

// writings are how a server may write what it repeats.
var writings = []func(string) string{
	func(s string) string { return s },
	url.QueryEscape,
	url.PathEscape,
	func(s string) string { return lowerEscapes(url.PathEscape(s)) },
	func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
	func(s string) string { data, _ := json.Marshal(s); return string(data) },
}

// TestNothingSecretIsShown: wherever in a URL a secret stands, and however a server repeats it,
// no piece of it is in what we print.
func TestNothingSecretIsShown(t *testing.T) {
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, r.RequestURI+" is wrong")
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	c := NewClient(ClientOptions{AllowPrivate: true, Proxy: noProxy})
	random := rand.New(rand.NewPCG(1, 2))
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, form := range []string{
		"/ping?token=%s&status=up", "/ping?status=up&token=%s", "/ping?token=%s", "/ping?%s", "/ping?%s&a=b&c=d", "/ping?a=1;t=%s&b=2", "/ping?a=b%%zz&t=%s",
		"/%s", "/%s/", "/key/%s/slug?create=1", "/%s/%s?t=%s", "//%s",
	} {
		for _, login := range []string{"", "%s:%s@", ":%s@"} {
			for _, letters := range []string{plain, plain + " /+&=%?#@;\"\\<>é"} {
				var secrets []string
				next := func(encode func(string) string) string {
					all := make([]rune, shownPiece+random.IntN(30))
					for i := range all {
						all[i] = []rune(letters)[random.IntN(len([]rune(letters)))]
					}
					secrets = append(secrets, string(all), encode(string(all)))
					return encode(string(all))
				}
				fill := func(form string, encode func(string) string) string {
					parts := strings.Split(strings.ReplaceAll(form, "%%", "%"), "%s")
					for i := range parts[1:] {
						parts[i] += next(encode)
					}
					return strings.Join(parts, "")
				}
				encode := url.PathEscape
				if strings.Contains(form, "?") && strings.Count(form, "%s") == 1 && random.IntN(2) == 0 {
					encode = url.QueryEscape
				}
				text := "http://" + fill(login, func(s string) string { return url.User(s).String() }) + host + fill(form, encode)
				var log bytes.Buffer
				logger := slog.New(slog.NewJSONHandler(&log, nil))
				check := func(err error, secrets []string) {
					fmt.Fprintln(&log, err)
					for _, echo := range echoes {
						for _, word := range echo(got) {
							for _, write := range writings {
								said := "wrong: " + write(word)
								fmt.Fprintln(&log, judge(&http.Response{StatusCode: http.StatusUnauthorized}, []byte(said), secrets))
								fmt.Fprintln(&log, explain(errors.New(said), got.URL, secrets))
							}
						}
					}
				}
				if u, err := url.Parse(text); err == nil && u.User != nil {
					password, _ := u.User.Password()
					secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
				}
				target, err := Parse("json+" + text)
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				logger.Info("target", "target", target, "text", fmt.Sprintf("%v %+v %#v", target, target, target))
				check(c.Send(t.Context(), target, Message{State: Test}), target.secrets)
				if login == "" {
					h, err := ParseHeartbeat(text)
					if err != nil {
						t.Fatalf("%s: %v", text, err)
					}
					logger.Info("heartbeat", "target", h, "text", fmt.Sprintf("%v %+v %#v", h, h, h))
					check(c.Beat(t.Context(), h, ""), h.secrets)
					check(c.Beat(t.Context(), h, "Mail waits."), h.secrets)
				}
				for piece := range piecesOf(secrets...) {
					if at := strings.Index(log.String(), piece); at >= 0 {
						t.Errorf("%s: %q is shown: …%s…", text, piece, log.String()[max(0, at-60):min(log.Len(), at+60)])
						break
					}
				}
			}
		}
	}
}
