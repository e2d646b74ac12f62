package handler

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const invitation = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nSUMMARY:Fitting\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

// TestCalendar: an invitation is an alternative of the text, from each form of a request.
func TestCalendar(t *testing.T) {
	quoted, err := json.Marshal(invitation)
	if err != nil {
		t.Fatal(err)
	}
	object := func(calendar string) string {
		return `{"from":"a@example.com","to":"b@example.org","subject":"x","text":"x","calendar":` + calendar + `}`
	}
	form := func(parts string) *http.Request {
		fields := "--x\r\nContent-Disposition: form-data; name=from\r\n\r\na@example.com\r\n--x\r\nContent-Disposition: form-data; name=to\r\n\r\nb@example.org\r\n" +
			"--x\r\nContent-Disposition: form-data; name=text\r\n\r\nx\r\n"
		return formRequest("/v1/messages", "multipart/form-data; boundary=x", fields+parts+"--x--\r\n")
	}
	part := func(head, content string) string {
		return "--x\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + content + "\r\n"
	}
	sendgrid := func(kind string) *http.Request {
		return apis["sendgrid"].request("sendgrid", strings.NewReader(`{"personalizations":[{"to":[{"email":"b@example.org"}]}],"from":{"email":"a@example.com"},"subject":"x",
			"content":[{"type":"text/plain","value":"x"},{"type":"`+kind+`","value":`+string(quoted)+`}]}`))
	}
	for name, tt := range map[string]struct {
		r       *http.Request
		status  int
		problem string
	}{
		"JSON":                {newRequest("POST", "/v1/messages", object(`{"content":`+string(quoted)+`}`)), 202, ""},
		"JSON with method":    {newRequest("POST", "/v1/messages", object(`{"content":`+string(quoted)+`,"method":"REQUEST"}`)), 202, ""},
		"JSON, other method":  {newRequest("POST", "/v1/messages", object(`{"content":`+string(quoted)+`,"method":"CANCEL"}`)), 422, "calendar.method"},
		"JSON, no calendar":   {newRequest("POST", "/v1/messages", object(`{"content":"hello"}`)), 422, "calendar.content"},
		"JSON, no content":    {newRequest("POST", "/v1/messages", object(`{"method":"REQUEST"}`)), 422, "calendar.content"},
		"JSON, unknown":       {newRequest("POST", "/v1/messages", object(`{"text":"x"}`)), 400, "calendar.text"},
		"batch":               {newRequest("POST", "/v1/messages/batch", `{"messages":[`+object(`{"content":`+string(quoted)+`}`)+`]}`), 202, ""},
		"form":                {form(part("name=calendar", invitation)), 202, ""},
		"form with a file":    {form(part(`name=calendar; filename="invite.ics"`, invitation) + part("name=\"calendar[method]\"", "request")), 202, ""},
		"form, members":       {form(part("name=\"calendar[content]\"", invitation) + part("name=\"calendar[method]\"", "REQUEST")), 202, ""},
		"form, other method":  {form(part("name=calendar", invitation) + part("name=\"calendar[method]\"", "REPLY")), 422, "calendar.method"},
		"form, twice":         {form(part("name=calendar", invitation) + part("name=\"calendar[content]\"", invitation)), 400, "calendar.content"},
		"SendGrid":            {sendgrid("text/calendar"), 202, ""},
		"SendGrid and method": {sendgrid("text/calendar; method=REQUEST"), 202, ""},
		"SendGrid, other":     {sendgrid("text/calendar; method=CANCEL"), 400, "content.1.type"},
	} {
		q := &fakeQueue{durable: true}
		a := serve(newTestServer(t, q, nil), tt.r)
		if a.status != tt.status || !strings.Contains(text(a), tt.problem) {
			t.Errorf("%s: %d %s, want %d and %s", name, a.status, text(a), tt.status, tt.problem)
			continue
		}
		if tt.problem != "" {
			continue
		}
		data := string(q.submissions()[0].Content.Data)
		if !strings.Contains(data, "multipart/alternative") || !strings.Contains(data, "\r\nContent-Type: text/calendar; method=REQUEST; charset=UTF-8\r\n") || !strings.Contains(data, invitation[:len(invitation)-2]) {
			t.Errorf("%s: message = %q, want the calendar as an alternative", name, data)
		}
	}
}
