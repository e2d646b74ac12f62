package ui

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/units"
)

// Limits of a search.
const (
	maxSearch      = 2000 // octets
	maxSearchWords = 40
	maxWhenWords   = 5 // of a date: 29 Nov 2026 14:30, and one to spare
)

// search is what the text of the search field means.
type search struct {
	Text   string // as it was typed, without blanks around it
	Filter api.Filter
	Chips  []chip
	// Faults are what was not understood. With any of them nothing is searched: a
	// search that leaves out a misspelt word would show, and let retry, other messages
	// than those that were meant.
	Faults []string
}

// chip shows one part of a search as it was understood.
type chip struct {
	Name    string // such as "to"
	Value   string
	Without string // text of the search without this part
}

// searchName is a name that may stand before a colon.
type searchName struct {
	names []string // the first is the one that chips show
	read  func(r *searchReader, value string) (shown string, err error)
}

// searchNames are all names. They are a function, for a variable would refer to itself.
func searchNames() []searchName {
	return []searchName{
		{names: []string{"to", "recipient"}, read: (*searchReader).to},
		{names: []string{"domain"}, read: (*searchReader).domain},
		{names: []string{"from", "sender"}, read: (*searchReader).from},
		{names: []string{"subject"}, read: (*searchReader).subject},
		{names: []string{"id"}, read: (*searchReader).id},
		{names: []string{"message-id", "messageid", "mid"}, read: (*searchReader).messageID},
		{names: []string{"tag"}, read: (*searchReader).tag},
		{names: []string{"status", "is"}, read: (*searchReader).status},
		{names: []string{"state"}, read: (*searchReader).state},
		{names: []string{"code"}, read: (*searchReader).code},
		{names: []string{"text", "reason"}, read: set(func(f *api.Filter) *string { return &f.Text })},
		{names: []string{"relay"}, read: set(func(f *api.Filter) *string { return &f.Relay })},
		{names: []string{"key"}, read: set(func(f *api.Filter) *string { return &f.Key })},
		{names: []string{"after", "since"}, read: (*searchReader).after},
		{names: []string{"before"}, read: (*searchReader).before},
		{names: []string{"until"}, read: (*searchReader).until},
		{names: []string{"on"}, read: (*searchReader).on},
	}
}

// isWhen says that a name has a date behind it, which may have blanks.
func isWhen(name string) bool {
	return slices.Contains([]string{"after", "since", "before", "until", "on"}, name)
}

// parseSearch reads what a person types into the search field, in the time zone of now.
func parseSearch(text string, now time.Time) search {
	s := search{Text: strings.TrimSpace(text)}
	switch {
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		s.Text = ""
		s.Faults = []string{"The search has characters that are no text."}
		return s
	case len(s.Text) > maxSearch:
		s.Text = ""
		s.Faults = []string{fmt.Sprintf("The search is too long: it may have %d octets.", maxSearch)}
		return s
	}
	words, err := searchWords(s.Text)
	if err != "" {
		s.Faults = []string{err}
		return s
	}
	if len(words) > maxSearchWords {
		s.Faults = []string{fmt.Sprintf("The search has %d words: %d are the most.", len(words), maxSearchWords)}
		return s
	}
	r := searchReader{search: &s, text: s.Text, now: now, used: map[*string]bool{}}
	r.read(words)
	return s
}

// searchWord is a word of the search: NAME:VALUE, or the value alone.
type searchWord struct {
	name       string // in lower case; empty where there is none
	value      string // without its quotes
	quoted     bool
	begin, end int // in the text
}

// searchWords parts the text at blanks that are not in quotes. In quotes a backslash lets a
// quote, or another backslash, be one of the value.
func searchWords(text string) (words []searchWord, fault string) {
	for i := 0; i < len(text); {
		if r, n := utf8.DecodeRuneInString(text[i:]); unicode.IsSpace(r) {
			i += n
			continue
		}
		w := searchWord{begin: i}
		if name := searchNameAt.FindString(text[i:]); name != "" {
			w.name = strings.ToLower(strings.TrimSuffix(name, ":"))
			i += len(name)
		}
		if i < len(text) && text[i] == '"' {
			value, n, ok := unquoteSearch(text[i:])
			if !ok {
				return nil, `A quote (") is not closed: write it twice around the words, as in "your order".`
			}
			w.value, w.quoted = value, true
			i += n
		}
		rest := i
		for i < len(text) {
			r, n := utf8.DecodeRuneInString(text[i:])
			if unicode.IsSpace(r) {
				break
			}
			i += n
		}
		w.value += text[rest:i]
		w.end = i
		words = append(words, w)
	}
	return words, ""
}

var searchNameAt = regexp.MustCompile(`^[A-Za-z][A-Za-z-]{0,19}:`)

// unquoteSearch reads a text in quotes, and returns how long it is with them.
func unquoteSearch(text string) (value string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), i + 1, true
		case text[i] == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
		}
		b.WriteByte(text[i])
	}
	return "", 0, false
}

// quoteSearch writes a value so that it is one value of the search.
func quoteSearch(value string) string {
	plain := value != "" && !strings.ContainsAny(value, `"\`) && strings.IndexFunc(value, unicode.IsSpace) < 0
	if plain {
		return value
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

// searchReader reads words into a search.
type searchReader struct {
	*search
	text    string
	now     time.Time
	used    map[*string]bool // members of the filter that are set
	codeSet bool
}

func (r *searchReader) read(words []searchWord) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if isWhen(w.name) && !w.quoted {
			if n := r.whenWords(words[i:]); n > 1 {
				w.value = strings.Join(strings.Fields(r.text[w.begin+len(w.name)+1:words[i+n-1].end]), " ")
				w.end = words[i+n-1].end
				i += n - 1
			}
		}
		r.word(w)
	}
	if since, until := r.Filter.Since, r.Filter.Until; since != "" && until != "" {
		from, _ := time.Parse(time.RFC3339Nano, since)
		to, _ := time.Parse(time.RFC3339Nano, until)
		if !from.Before(to) {
			r.fault("No message can be accepted after %s and before %s: the dates are the wrong way round.", r.shownTime(from), r.shownTime(to))
		}
	}
}

// whenWords returns how many words, from the first on, are the longest date that can be read.
func (r *searchReader) whenWords(words []searchWord) int {
	name := len(words[0].name) + 1
	for n := min(len(words), maxWhenWords); n > 1; n-- {
		plain := !slices.ContainsFunc(words[1:n], func(w searchWord) bool { return w.name != "" || w.quoted })
		if _, err := units.ParseWhen(r.text[words[0].begin+name:words[n-1].end], r.now, false); plain && err == nil {
			return n
		}
	}
	return 1
}

func (r *searchReader) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// word reads one word.
func (r *searchReader) word(w searchWord) {
	name, value := w.name, w.value
	if name == "" {
		name, value = r.bare(w)
	}
	var known searchName
	for _, k := range searchNames() {
		if slices.Contains(k.names, name) {
			known = k
		}
	}
	switch {
	case known.read == nil && value == "": // Re: of a subject
		known, value = subjectName(), r.text[w.begin:w.end]
	case known.read == nil:
		r.fault(`"%s:" is no name that the search knows; it knows %s. In quotes it is looked for in the subject: %s`,
			name, allSearchNames(), quoteAlways(r.text[w.begin:w.end]))
		return
	case strings.TrimSpace(value) == "":
		r.fault("Behind %s: something is missing, as in %s.", name, searchExamples[known.names[0]])
		return
	}
	shown, err := known.read(r, value)
	if err != nil {
		r.fault("%s", err.Error())
		return
	}
	r.Chips = append(r.Chips, chip{Name: known.names[0], Value: shown, Without: joinWords(r.text[:w.begin], r.text[w.end:])})
}

func subjectName() searchName {
	return searchName{names: []string{"subject"}, read: (*searchReader).subject}
}

func joinWords(before, after string) string {
	return strings.TrimSpace(strings.TrimSpace(before) + " " + strings.TrimSpace(after))
}

func quoteAlways(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }

// searchExamples has one for each name.
var searchExamples = map[string]string{
	"to": "to:ana@example.org", "domain": "domain:example.org", "from": "from:shop@example.com", "subject": "subject:invoice",
	"id": "id:0198a2", "message-id": "message-id:<42@example.com>", "tag": "tag:order=1042", "status": "status:failed",
	"state": "state:bounced", "code": "code:550", "text": `text:"user unknown"`, "relay": "relay:smtp.example.com", "key": "key:shop",
	"after": "after:yesterday", "before": "before:2026-11-29", "until": "until:2026-11-29", "on": "on:monday",
}

func allSearchNames() string {
	var all []string
	for _, n := range searchNames() {
		all = append(all, n.names[0]+":")
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

var (
	bareID       = regexp.MustCompile(`^01[0-9a-fA-F]{4,30}$`)
	bareLongID   = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F-]{0,27}$`)
	bareEnhanced = regexp.MustCompile(`^[45]\.[0-9]{1,3}\.[0-9]{1,3}$`)
)

// isBareDomain says that a word looks like a domain: it ends in a label of letters alone, which
// keeps prices and versions apart.
func isBareDomain(word string) bool {
	labels := strings.Split(word, ".")
	for _, l := range labels {
		odd := func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && r != '-' && r != '_'
		}
		if l == "" || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") || strings.ContainsFunc(l, odd) {
			return false
		}
	}
	last := labels[len(labels)-1]
	noLetter := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }
	return len(labels) > 1 && utf8.RuneCountInString(last) > 1 && (!strings.ContainsFunc(last, noLetter) || strings.HasPrefix(last, "xn--"))
}

// bare guesses what a word without a name is. A chip shows it, and what is in quotes is always
// of the subject.
func (r *searchReader) bare(w searchWord) (name, value string) {
	v := w.value
	switch {
	case w.quoted:
		return "subject", v
	case strings.HasPrefix(v, "<") && strings.HasSuffix(v, ">") && strings.Contains(v, "@"):
		return "message-id", v
	case strings.HasPrefix(v, "@"):
		return "domain", v[1:]
	case strings.Contains(v, "@"):
		return "to", v
	case bareID.MatchString(v) || bareLongID.MatchString(v):
		return "id", v
	case bareEnhanced.MatchString(v):
		return "code", v
	case isBareDomain(v):
		return "domain", v
	default:
		return "subject", v
	}
}

// put sets a member of the filter, which may be set once.
func (r *searchReader) put(to *string, name, value string) error {
	if r.used[to] && *to != value {
		return fmt.Errorf("%s: stands there twice, and a message can have only one of them: search for one after the other", name)
	}
	r.used[to] = true
	*to = value
	return nil
}

// set returns a reader of a value that is taken as it is.
func set(member func(*api.Filter) *string) func(*searchReader, string) (string, error) {
	return func(r *searchReader, value string) (string, error) {
		to := member(&r.Filter)
		if r.used[to] {
			return "", fmt.Errorf("%q is too much: there is another value of that name already, and a search can have only one", value)
		}
		r.used[to] = true
		*to = value
		return value, nil
	}
}

func (r *searchReader) to(value string) (string, error) {
	switch {
	case strings.HasPrefix(value, "@"):
		return r.domain(value[1:])
	case !strings.Contains(value, "@"):
		return r.domain(value)
	}
	return value, r.put(&r.Filter.Recipient, "to", value)
}

func (r *searchReader) domain(value string) (string, error) {
	value = strings.TrimPrefix(value, "@")
	if strings.ContainsAny(value, "@ ") || value == "" {
		return "", fmt.Errorf("%q is no domain: write one such as domain:example.org", value)
	}
	return value, r.put(&r.Filter.Domain, "domain", value)
}

func (r *searchReader) from(value string) (string, error) {
	if !strings.Contains(strings.TrimPrefix(value, "@"), "@") {
		return "", fmt.Errorf("from: takes a whole address, as in from:shop@example.com; %q is only a part of one", value)
	}
	return value, r.put(&r.Filter.Sender, "from", value)
}

// subject adds words up.
func (r *searchReader) subject(value string) (string, error) {
	r.Filter.Subject = strings.TrimSpace(r.Filter.Subject + " " + value)
	return value, nil
}

func (r *searchReader) id(value string) (string, error) {
	digits := strings.ReplaceAll(value, "-", "")
	isHex := strings.Trim(digits, "0123456789abcdefABCDEF") == ""
	if !isHex || len(digits) < 4 || len(digits) > 32 {
		return "", fmt.Errorf("%q is not how an id begins: write at least four of its digits, as in id:0198a2", value)
	}
	return value, r.put(&r.Filter.ID, "id", strings.ToLower(value))
}

func (r *searchReader) messageID(value string) (string, error) {
	value = "<" + strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">") + ">"
	return value, r.put(&r.Filter.MessageID, "message-id", value)
}

// tag takes name, name=value and name:value. A name has neither of these characters.
func (r *searchReader) tag(value string) (string, error) {
	if i := strings.IndexAny(value, "=:"); i >= 0 {
		value = value[:i] + ":" + value[i+1:]
	}
	shown := strings.Replace(value, ":", "=", 1)
	return shown, r.put(&r.Filter.Tag, "tag", value)
}

// statusWords are the words for a status, those of pages and those of the interface.
var statusWords = map[string]string{
	"waiting": api.StatusWaiting, "sent": api.StatusDelivered, "partly": api.StatusPartial, "cancelled": api.StatusCanceled,
	api.StatusQueued: api.StatusQueued, api.StatusDeferred: api.StatusDeferred, api.StatusHeld: api.StatusHeld,
	api.StatusDelivered: api.StatusDelivered, api.StatusPartial: api.StatusPartial, api.StatusFailed: api.StatusFailed,
	api.StatusCanceled: api.StatusCanceled, api.StateBounced: api.StateBounced, api.StateExpired: api.StateExpired,
}

func (r *searchReader) status(value string) (string, error) {
	status := statusWords[strings.ToLower(value)]
	if status == "" {
		return "", fmt.Errorf("%q is no status: write waiting, queued, deferred, held, failed, sent, partial, canceled, bounced or expired", value)
	}
	return strings.ToLower(value), r.put(&r.Filter.Status, "status", status)
}

// stateWords are the states of a recipient.
var stateWords = []string{
	api.StateQueued, api.StateDeferred, api.StateHeld, api.StateDelivered, api.StateBounced, api.StateExpired, api.StateCanceled,
}

func (r *searchReader) state(value string) (string, error) {
	value = strings.ToLower(value)
	if !slices.Contains(stateWords, value) {
		return "", fmt.Errorf("%q is no state of a recipient: write %s", value, strings.Join(stateWords, ", "))
	}
	return value, r.put(&r.Filter.RecipientState, "state", value)
}

// code takes a reply code, or an enhanced status code.
func (r *searchReader) code(value string) (string, error) {
	if strings.Contains(value, ".") {
		if !bareEnhanced.MatchString(value) {
			return "", fmt.Errorf("%q is no code of a failure: write one such as code:550 or code:5.1.1", value)
		}
		return value, r.put(&r.Filter.EnhancedCode, "code", value)
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 400 || n > 599 || len(value) != 3 {
		return "", fmt.Errorf("%q is no code of a failure: write one from 400 to 599, as in code:550, or an enhanced one, as in code:5.1.1", value)
	}
	if r.codeSet && r.Filter.ReplyCode != n {
		return "", fmt.Errorf("code: stands there twice, and a reply has only one: search for one after the other")
	}
	r.codeSet, r.Filter.ReplyCode = true, n
	return value, nil
}

func (r *searchReader) after(value string) (string, error) {
	return r.when(&r.Filter.Since, "after", value, false)
}

// before is where the day begins, and until where it ends.
func (r *searchReader) before(value string) (string, error) {
	return r.when(&r.Filter.Until, "before", value, false)
}

func (r *searchReader) until(value string) (string, error) {
	return r.when(&r.Filter.Until, "before", value, true)
}

func (r *searchReader) on(value string) (string, error) {
	begin, err := units.ParseWhen(value, r.now, false)
	if err != nil {
		return "", notWhen("on", value, err)
	}
	end, err := units.ParseWhen(value, r.now, true)
	if err != nil {
		return "", notWhen("on", value, err)
	}
	if !begin.Before(end) {
		return "", fmt.Errorf("on: takes a day, without a time; %q has one: write after: and before: in its place", value)
	}
	if err := r.put(&r.Filter.Since, "after", begin.UTC().Format(time.RFC3339Nano)); err != nil {
		return "", err
	}
	return begin.In(r.now.Location()).Format("Mon 2 Jan 2006"), r.put(&r.Filter.Until, "before", end.UTC().Format(time.RFC3339Nano))
}

func (r *searchReader) when(to *string, name, value string, end bool) (string, error) {
	at, err := units.ParseWhen(value, r.now, end)
	if err != nil {
		return "", notWhen(name, value, err)
	}
	return r.shownTime(at), r.put(to, name, at.UTC().Format(time.RFC3339Nano))
}

func notWhen(name, value string, err error) error {
	if e, ok := err.(*units.Error); ok { //nolint:errorlint // it is not wrapped
		return fmt.Errorf("%s: %q is no time; %s", name, value, e.Remedy())
	}
	return fmt.Errorf("%s: %q is no time", name, value)
}

func (r *searchReader) shownTime(at time.Time) string {
	return at.In(r.now.Location()).Format("Mon 2 Jan 2006 15:04 MST")
}

// searchText is a search that means the filter: what [parseSearch] makes of it is the filter again.
func searchText(f api.Filter) string {
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+":"+quoteSearch(value))
		}
	}
	add("status", f.Status)
	add("id", f.ID)
	add("from", f.Sender)
	add("message-id", f.MessageID)
	add("to", f.Recipient)
	add("domain", f.Domain)
	add("state", f.RecipientState)
	add("relay", f.Relay)
	if f.ReplyCode != 0 {
		add("code", strconv.Itoa(f.ReplyCode))
	}
	add("code", f.EnhancedCode)
	add("text", f.Text)
	add("tag", f.Tag)
	add("after", f.Since)
	add("before", f.Until)
	add("key", f.Key)
	add("subject", f.Subject)
	return strings.Join(words, " ")
}

// filterOf reads what [api.Filter.Query] has written.
func filterOf(query url.Values) api.Filter {
	code, _ := strconv.Atoi(query.Get("reply_code")) // the API judges the filter
	return api.Filter{
		Status: query.Get("status"), ID: query.Get("id"), Sender: query.Get("sender"), MessageID: query.Get("message_id"),
		Recipient: query.Get("recipient"), Domain: query.Get("domain"), RecipientState: query.Get("recipient_state"),
		Relay: query.Get("relay"), ReplyCode: code, EnhancedCode: query.Get("enhanced_code"), Text: query.Get("text"),
		Tag: query.Get("tag"), Since: query.Get("since"), Until: query.Get("until"), Key: query.Get("key"), Subject: query.Get("subject"),
	}
}
