// Package export writes messages in forms that other programs read: mail programs take mbox,
// spreadsheets a table.
package export

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
)

// Table writes messages as CSV, with a line for each recipient.
type Table struct {
	w      *csv.Writer
	headed bool
}

// NewTable returns a table that is written to w.
func NewTable(w io.Writer) *Table { return &Table{w: csv.NewWriter(w)} }

// Write writes the lines of a message, and before the first one those of the column names.
// Without messages, End writes these.
func (t *Table) Write(m api.Message) error {
	if err := t.head(); err != nil {
		return err
	}
	for _, r := range m.Recipients {
		if err := t.w.Write(row(m, r)); err != nil {
			return err
		}
	}
	t.w.Flush()
	return t.w.Error()
}

// End ends the table.
func (t *Table) End() error {
	if err := t.head(); err != nil {
		return err
	}
	t.w.Flush()
	return t.w.Error()
}

func (t *Table) head() error {
	if t.headed {
		return nil
	}
	t.headed = true
	return t.w.Write(columns)
}

// columns are those of a table.
var columns = []string{
	"id", "accepted", "status", "key", "priority", "sender", "reverse_path", "message_id", "subject", "size", "tags",
	"recipient", "state", "outcome", "reply_code", "enhanced_code", "text", "relay", "next_attempt",
}

func row(m api.Message, r api.Recipient) []string {
	var tags []string
	for name, value := range m.Tags {
		tags = append(tags, name+"="+value)
	}
	slices.Sort(tags)
	code, next := "", ""
	if r.ReplyCode != 0 {
		code = strconv.Itoa(r.ReplyCode)
	}
	if !r.NextAttemptAt.IsZero() {
		next = r.NextAttemptAt.UTC().Format(time.RFC3339)
	}
	cells := []string{
		m.ID, m.CreatedAt.UTC().Format(time.RFC3339), m.Status, m.Key, m.Priority, m.Sender, m.Envelope.ReversePath, m.MessageID, m.Subject, strconv.FormatInt(m.Size, 10),
		strings.Join(tags, " "), r.Email, r.State, r.Kind, code, r.EnhancedCode, r.Text, r.Relay, next,
	}
	for i, cell := range cells {
		cells[i] = noFormula(cell)
	}
	return cells
}

// noFormula puts an apostrophe before what a spreadsheet would take for a formula: subjects
// and replies are what others have written. Some spreadsheets begin a new cell behind a semicolon, a tab
// or a line's end, also inside of quotes, which they then drop.
func noFormula(cell string) string {
	var b strings.Builder
	for i := range len(cell) {
		if i == 0 && strings.ContainsRune("\t\r\n", rune(cell[0])) || (i == 0 || strings.IndexByte(";\t\r\n", cell[i-1]) >= 0) && isFormula(cell[i:], i > 0) {
			b.WriteByte('\'')
		}
		b.WriteByte(cell[i])
	}
	return b.String()
}

// isFormula says that a cell of this text may be a formula. Inside of another one a smiley is none.
func isFormula(text string, inside bool) bool {
	if inside {
		if text = strings.TrimLeft(text, "\""); strings.HasPrefix(text, "-)") {
			return false
		}
	}
	return text != "" && strings.IndexByte("=+-@", text[0]) >= 0
}
