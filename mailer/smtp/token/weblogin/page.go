package weblogin

import (
	"fmt"
	"html"
	"net/http"
	"strconv"
)

// Page is what the browser shows at the end.
type Page struct {
	Title, Text string // plain text
}

// notCompleted is shown when the program ends before the login does.
var notCompleted = Page{"The login was not completed", "The program in the terminal has ended. To log in, start it again there."}

const pageForm = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%[1]s</title>
<style>
body { font: 1.1em/1.5 system-ui, sans-serif; max-width: 34em; margin: 4em auto; padding: 0 1em; color-scheme: light dark; }
</style>
</head>
<body>
<h1>%[1]s</h1>
<p>%[2]s</p>
<p>This window can be closed.</p>
</body>
</html>
`

// write answers with the page. Nothing of it is kept, and no other site learns the
// address, which holds the code.
func (p Page) write(w http.ResponseWriter, status int) {
	body := fmt.Sprintf(pageForm, html.EscapeString(p.Title), html.EscapeString(p.Text))
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	fmt.Fprint(w, body)
	_ = http.NewResponseController(w).Flush() // the connection may be closed at once
}
