package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"mailsidecar/api"
)

const (
	idDigits       = 32 // of a whole id, without its hyphens
	leastIDDigits  = 4
	mostCandidates = 10 // of an ambiguous id that are listed
)

// idHelp is for the commands that take ids.
const idHelp = `
An id may be cut to its first 4 or more digits where only one message begins so. They
are the time of acceptance: messages of the same minute share the first 8.
`

// whole returns the ids that the arguments stand for, each of which is an id or how one begins. Where one begins as
// several do, or as none, the error says so and nothing has been done.
func (c *client) whole(ctx context.Context, args []string) ([]string, error) {
	ids := make([]string, len(args))
	for i, arg := range args {
		var err error
		if ids[i], err = c.wholeID(ctx, arg); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func (c *client) wholeID(ctx context.Context, arg string) (string, error) {
	digits := strings.ReplaceAll(arg, "-", "")
	isCut := len(digits) < idDigits && strings.Trim(strings.ToLower(digits), "0123456789abcdef") == ""
	switch {
	case !isCut:
		return arg, nil
	case len(digits) < leastIDDigits:
		return "", exit(exitUsage, "%q is too short for a message: write its id, or the first %d or more digits, such as 01a2f3", arg, leastIDDigits)
	}
	query := url.Values{"id": {arg}, "limit": {fmt.Sprint(mostCandidates + 1)}}
	var page api.Page
	for { // a page of a busy server may be empty though others follow
		var more api.Page
		if err := c.ask(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, &more); err != nil {
			return "", err
		}
		page.Messages, page.Next = append(page.Messages, more.Messages...), more.Next
		if len(page.Messages) > 1 || page.Next == "" {
			break
		}
		query.Set("cursor", page.Next)
	}
	switch len(page.Messages) {
	case 0:
		return "", exit(exitRefused, "no message has an id that begins with %s: \"mailsidecar queue list\" shows them", arg)
	case 1:
		return page.Messages[0].ID, nil
	}
	return "", exit(exitUsage, "several messages have an id that begins with %s, and nothing was done. Write more of it, or select all of them with --id where the command takes that:%s", arg, candidates(page))
}

// candidates lists the messages of an ambiguous id.
func candidates(page api.Page) string {
	var b strings.Builder
	for _, m := range page.Messages[:min(len(page.Messages), mostCandidates)] {
		fmt.Fprintf(&b, "\n  %s  %s  %s  %s  %s", m.ID, localTime(m.CreatedAt), m.Status, names(m.Recipients), shorten(m.Subject, 40))
	}
	if len(page.Messages) > mostCandidates || page.Next != "" {
		b.WriteString("\n  and more")
	}
	return b.String()
}
