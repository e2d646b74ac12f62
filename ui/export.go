package ui

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailsidecar/api"
	"mailsidecar/export"
)

const (
	// maxExport is how many messages one file has. The page says what to do for more.
	maxExport = 10_000
	// exportPage is how many messages an export holds at a time.
	exportPage = 20
	// exportTime limits one export, and exportPause how long the browser may read nothing of it.
	exportTime  = 30 * time.Minute
	exportPause = time.Minute
	// maxExports is how many are made at once, each for another key.
	maxExports = 2
)

// exports are those that are being made: a browser may read one for as long as exportTime, and
// must not keep another key's out.
type exports struct {
	mu     sync.Mutex
	number int
	ofKey  map[string]bool
}

// enter begins an export of the key with that name, or says why it must wait. On a server without keys the
// name is empty.
func (e *exports) enter(key string) (leave func(), refusal *refusalError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.ofKey[key]:
		return nil, &refusalError{http.StatusServiceUnavailable, "An export of this key is being made just now. Try again when it is complete."}
	case e.number == maxExports:
		return nil, &refusalError{http.StatusServiceUnavailable, "Exports of other keys are being made just now. Try again when one of them is complete."}
	}
	if e.ofKey == nil {
		e.ofKey = map[string]bool{}
	}
	e.number++
	e.ofKey[key] = key != ""
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.number--
		delete(e.ofKey, key)
	}, nil
}

// format is a form of an export.
type format struct{ Name, Title, Says string }

var formats = []format{
	{"zip", "Messages (.eml in a .zip)", "a file for each message"},
	{"mbox", "Mailbox (.mbox)", "one file that mail programs import"},
	{"csv", "Table (.csv)", "a line for each recipient, for spreadsheets"},
}

// postExport serves POST /ui/messages/export. It changes nothing; it is a POST because the ids of ticked
// messages may be many.
func (v *visit) postExport() error {
	form := v.r.PostForm
	f := format{}
	for _, known := range formats {
		if known.Name == form.Get("format") {
			f = known
		}
	}
	query, err := url.ParseQuery(form.Get("filter"))
	if f.Name == "" || err != nil {
		return &refusalError{http.StatusBadRequest, "The form did not arrive as a whole. Go back, and send it again."}
	}
	v.endTurn()
	leave, refusal := v.ui.exports.enter(v.key)
	if refusal != nil {
		return refusal
	}
	defer leave()
	ctx, cancel := context.WithTimeout(v.r.Context(), exportTime)
	defer cancel()
	v.ctx = ctx
	e := exporter{visit: v, format: f.Name}
	if form.Get("scope") == "ticked" {
		err = e.ticked(tickedIDs(form))
	} else {
		err = e.matching(filterOf(query))
	}
	if err == nil {
		err = e.end()
	}
	if err != nil && !e.begun {
		return err
	}
	if err != nil {
		v.cutOff(err)
	}
	return nil
}

// cutOff ends the connection: a file that ended as if it was whole would be taken for that.
func (v *visit) cutOff(err error) {
	v.ui.log.Info("download broke off", "path", v.r.URL.Path, "error", err)
	rc := http.NewResponseController(v.w)
	_ = rc.SetWriteDeadline(time.Unix(1, 0))
	_, _ = v.w.Write([]byte("\n"))
	_ = rc.Flush()
}

// exporter writes messages to the visitor's browser.
type exporter struct {
	*visit
	format string
	begun  bool
	n      int
	gone   []string // ids of messages whose content is gone

	archive *zip.Writer
	table   *export.Table
}

// begin sends the header. It comes as late as it may: until then a page can say what is wrong.
func (e *exporter) begin() {
	if e.begun {
		return
	}
	e.begun = true
	kind := map[string]string{"zip": "application/zip", "mbox": "application/mbox", "csv": "text/csv; charset=utf-8"}[e.format]
	e.download("messages-"+time.Now().UTC().Format("2006-01-02-1504")+"."+e.format, kind)
	e.w.WriteHeader(http.StatusOK)
	switch e.format {
	case "zip":
		e.archive = zip.NewWriter(e.w)
	case "csv":
		e.table = export.NewTable(e.w)
	}
}

// download says that the answer is a file to be saved, whatever it looks like.
func (v *visit) download(name, kind string) {
	h := v.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", filePolicy)
	disposition := mime.FormatMediaType("attachment", map[string]string{"filename": name})
	if disposition == "" {
		disposition = "attachment"
	}
	h.Set("Content-Disposition", disposition)
}

// filePolicy is for what others have written and is no page of ours.
const filePolicy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"

// matching writes what the filter selects, the newest first.
func (e *exporter) matching(f api.Filter) error {
	q := f.Query()
	q.Set("limit", strconv.Itoa(exportPage))
	for {
		var page api.Page
		var messages []api.Message
		e.calls = 0
		if err := e.readPage("/v1/messages?"+q.Encode(), &page, func(m api.Message) { messages = append(messages, m) }); err != nil {
			return err
		}
		for _, m := range messages {
			if e.n == maxExport {
				return nil
			}
			if err := e.one(m); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Set("cursor", page.Next)
	}
}

func (e *exporter) ticked(ids []string) error {
	for _, id := range ids {
		e.calls = 0
		var m api.Message
		err := e.readMessage(id, &m)
		if isCode(err, api.CodeMessageNotFound) {
			e.gone = append(e.gone, id)
			continue
		}
		if err != nil {
			return err
		}
		if err := e.one(m); err != nil {
			return err
		}
	}
	return nil
}

// one writes one message.
func (e *exporter) one(m api.Message) error {
	e.n++
	rc := http.NewResponseController(e.w)
	_ = rc.SetWriteDeadline(time.Now().Add(exportPause)) // where it cannot be set, the server's own is for the whole
	if e.format == "csv" {
		e.begin()
		return e.table.Write(m)
	}
	e.calls = 0
	return e.read("/v1/messages/"+url.PathEscape(m.ID)+"/content", func(status int, _ http.Header, body io.Reader) error {
		if status >= http.StatusBadRequest {
			err := problemOf(status, body)
			if isCode(err, api.CodeContentGone, api.CodeMessageNotFound) {
				e.gone = append(e.gone, m.ID)
				return nil
			}
			return err
		}
		e.begin()
		to := progressWriter{e.w, rc}
		if e.format == "mbox" {
			return export.WriteMbox(to, m, body)
		}
		w, err := e.archive.CreateHeader(&zip.FileHeader{Name: fileName(m.ID) + ".eml", Method: zip.Deflate, Modified: m.CreatedAt})
		if err != nil {
			return err
		}
		_, err = io.Copy(w, body)
		return err
	})
}

// progressWriter gives each write time of its own.
type progressWriter struct {
	io.Writer
	rc *http.ResponseController
}

func (w progressWriter) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(exportPause))
	return w.Writer.Write(p)
}

// end ends the file. It says which messages are not in it.
func (e *exporter) end() error {
	if !e.begun && len(e.gone) > 0 && e.format != "csv" {
		return &refusalError{http.StatusGone, "There is nothing to export: the content of these messages is gone. It is removed when a message is delivered or canceled, unless MAILSIDECAR_KEEP_BODIES keeps it. A table can still be exported."}
	}
	e.begin()
	switch e.format {
	case "csv":
		return e.table.End()
	case "zip":
		if len(e.gone) > 0 {
			w, err := e.archive.Create("LEFT-OUT.txt")
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "The content of these %s is gone. It is removed when a message is delivered or\ncanceled, unless MAILSIDECAR_KEEP_BODIES keeps it.\n\n%s\n", countWords(len(e.gone)), strings.Join(e.gone, "\n")); err != nil {
				return err
			}
		}
		return e.archive.Close()
	default:
		return nil
	}
}
