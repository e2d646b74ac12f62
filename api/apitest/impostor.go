// Package apitest has servers for tests of clients: such as are not mailsidecar, and
// such as are and break down.
package apitest

import (
	"io"
	"net/http"

	"mailsidecar/api"
)

// Impostors are servers whose answers prove nothing to a client that sends a message:
// each answers every request in the same way. The key says what they do.
func Impostors() map[string]http.Handler {
	const page = "<!DOCTYPE html><title>My site</title><p>Welcome"
	return map[string]http.Handler{
		"200 with a page":          answer(200, "text/html", page),
		"202 with a page":          answer(202, "text/html", page),
		"200 with ok":              answer(200, "text/plain", "ok"),
		"200 with {}":              answer(200, "application/json", "{}"),
		"202 with {}":              answer(202, "application/json", "{}"),
		"200 with a list":          answer(200, "application/json", "[]"),
		"200 with an id alone":     answer(200, "application/json", `{"id":"1"}`),
		"202 with an empty id":     answer(202, "application/json", `{"id":"","status":"queued","recipients":[]}`),
		"200 with another's JSON":  answer(200, "application/json", `{"success":true,"data":{"id":7}}`),
		"200 with an error's JSON": answer(200, "application/json", `{"error":"not found"}`),
		"204":                      answer(204, "", ""),
		"302":                      redirect(302, "/login"),
		"307":                      redirect(307, "https://other.example/"),
		"401 with a page":          answer(401, "text/html", page),
		"404 with a page":          answer(404, "text/html", page),
		"422 with a page":          answer(422, "text/html", page),
		"500 with a page":          answer(500, "text/html", page),
		"502 with a page":          answer(502, "text/html", page),
		"503 that asks to repeat":  repeatLater(answer(503, "text/html", page)),
		"nothing":                  http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"our own, cut":             own(cut(202, `{"id":"01J","status":"queued","recipients":[{"email":"a@example.org"`)),
		"our own, without an id":   own(answer(202, "application/json", `{"status":"queued"}`)),
		"our own, no JSON":         own(answer(202, "application/json", `{"id":`)),
	}
}

func answer(status int, kind, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if kind != "" {
			w.Header().Set("Content-Type", kind)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func redirect(status int, to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) })
}

// cut breaks the connection before the body that was announced is complete.
func cut(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "4096")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func own(next http.Handler) http.Handler         { return withHeader(next, api.HeaderOwn, "1") }
func repeatLater(next http.Handler) http.Handler { return withHeader(next, "Retry-After", "0") }

func withHeader(next http.Handler, name, value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		next.ServeHTTP(w, r)
	})
}
