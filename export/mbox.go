package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"mailsidecar/api"
)

// WriteMbox writes a message in the form mboxrd: lines that begin with From, or with that
// behind >s, get one more >.
func WriteMbox(w io.Writer, m api.Message, content io.Reader) error {
	from := m.Envelope.ReversePath
	if from == "" || strings.ContainsAny(from, " \t\r\n\"") {
		from = "MAILER-DAEMON"
	}
	if _, err := fmt.Fprintf(w, "From %s %s\n", from, m.CreatedAt.UTC().Format(time.ANSIC)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(content, 64<<10)
	begins := true // a line begins here
	for {
		line, err := r.ReadSlice('\n') // a part of it, where it is longer than the buffer
		part, last := errors.Is(err, bufio.ErrBufferFull), errors.Is(err, io.EOF)
		switch n := len(line) - 1; {
		case err != nil && !part && !last:
			return err
		case n < 0 && begins: // behind the last line
			_, err := io.WriteString(w, "\n")
			return err
		case !part:
			line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		case line[n] == '\r': // a line feed may follow
			line = line[:n]
			_ = r.UnreadByte() // never fails after a read
		}
		before, after := "", "\n"
		if begins && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
			before = ">"
		}
		if part {
			after = ""
		}
		if _, err := fmt.Fprintf(w, "%s%s%s", before, line, after); err != nil {
			return err
		}
		begins = !part
	}
}
