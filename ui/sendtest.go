package ui

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailsidecar/api"
)

// sendPage is the form of a message to try.
type sendPage struct {
	To, From, Subject, Text string
	HTML                    bool
	Once                    string // so that a form which is sent twice sends one message
	Error                   string
	Fields                  map[string]string // what is wrong, by field
}

const (
	testSubject = "A test from mailsidecar"
	testText    = "This message shows that mail gets from this server to you."
	// sendWait is how long the page waits for the relay's verdict.
	sendWait = 20 * time.Second
)

// getSend serves GET /ui/send.
func (v *visit) getSend() error {
	v.showSend(http.StatusOK, sendPage{To: v.r.URL.Query().Get("to"), Subject: testSubject, Text: testText})
	return nil
}

func (v *visit) showSend(status int, p sendPage) {
	p.Once = rand.Text()
	v.show(status, "send.html", page{Title: "Send a test", Nav: "send", Data: p})
}

// postSend serves POST /ui/send: it waits for the verdict, and shows the message.
func (v *visit) postSend() error {
	form := v.r.PostForm
	p := sendPage{To: form.Get("to"), From: strings.TrimSpace(form.Get("from")), Subject: form.Get("subject"), Text: form.Get("text"), HTML: form.Get("as") == "html"}
	m := api.Request{From: p.From, To: []string{strings.TrimSpace(p.To)}, Subject: p.Subject, Text: p.Text, Priority: "high", Tags: map[string]string{"test": "dashboard"}}
	if p.HTML {
		m.Text, m.HTML = "", p.Text
	}
	header := http.Header{"Prefer": {"wait=20"}}
	if once := form.Get("once"); once != "" && len(once) <= 64 {
		header.Set("Idempotency-Key", "dashboard "+once)
	}
	var receipt api.Receipt
	v.pause(sendWait + 30*time.Second)
	err := v.call(v.ctx, http.MethodPost, "/v1/messages", header, m, &receipt)
	if isCode(err, api.CodeQueueRequired) { // without a queue nothing is recognised again
		header.Del("Idempotency-Key")
		err = v.call(v.ctx, http.MethodPost, "/v1/messages", header, m, &receipt)
	}
	if !v.begin() {
		return errBusy
	}
	e, refused := errors.AsType[*answerError](err)
	switch {
	case err == nil && v.stored(receipt.ID), refused && e.ID != "" && v.stored(e.ID):
		id := receipt.ID
		if refused {
			id = e.ID
		}
		v.redirect("/ui/messages/" + url.PathEscape(id))
	case err == nil && (receipt.Status == api.StatusDelivered || receipt.Status == api.StatusPartial):
		v.redirect("/ui/send?done=sent")
	case err == nil:
		v.redirect("/ui/send?done=stored")
	case refused && e.Status < http.StatusInternalServerError:
		p.Error, p.Fields = e.Error(), map[string]string{}
		if len(e.Errors) > 0 {
			p.Error = "Nothing was sent. Below is what to mend."
		}
		for _, f := range e.Errors {
			name, _, _ := strings.Cut(f.Field, "[")
			if name == "html" {
				name = "text"
			}
			p.Fields[name] = capital(full(f.Message))
		}
		v.showSend(http.StatusUnprocessableEntity, p)
	default:
		return err
	}
	return nil
}

// stored says that there is a page of the message.
func (v *visit) stored(id string) bool {
	return v.mayRead && id != "" && v.get("/v1/messages/"+url.PathEscape(id), nil, nil) == nil
}

// fieldErrors are what the API says of single fields, else what it says of all.
func fieldErrors(err error) string {
	e, ok := errors.AsType[*answerError](err)
	if !ok {
		return err.Error()
	}
	if len(e.Errors) == 0 {
		return e.Error()
	}
	said := make([]string, len(e.Errors))
	for i, f := range e.Errors {
		said[i] = f.Field + " " + f.Message + "."
	}
	return strings.Join(said, " ")
}
