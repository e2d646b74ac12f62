package ui

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

// sunday is 29 November 2026 at 15:04:05.
var sunday = time.Date(2026, 11, 29, 15, 4, 5, 0, time.UTC)

func TestParseSearch(t *testing.T) {
	for text, want := range map[string]struct {
		filter api.Filter
		chips  string // NAME=VALUE, parted by |
	}{
		"":                            {},
		"  \t ":                       {},
		"ana@example.org":             {api.Filter{Recipient: "ana@example.org"}, "to=ana@example.org"},
		"to:ana@example.org":          {api.Filter{Recipient: "ana@example.org"}, "to=ana@example.org"},
		`"o'neil"@example.org`:        {api.Filter{Subject: "o'neil@example.org"}, "subject=o'neil@example.org"},
		`to:"\"o neil\"@example.org"`: {api.Filter{Recipient: `"o neil"@example.org`}, `to="o neil"@example.org`},
		"FROM:shop@example.com":       {api.Filter{Sender: "shop@example.com"}, "from=shop@example.com"},
		"sender:shop@example.com":     {api.Filter{Sender: "shop@example.com"}, "from=shop@example.com"},
		"example.org":                 {api.Filter{Domain: "example.org"}, "domain=example.org"},
		"@example.org":                {api.Filter{Domain: "example.org"}, "domain=example.org"},
		"to:example.org":              {api.Filter{Domain: "example.org"}, "to=example.org"},
		"to:@example":                 {api.Filter{Domain: "example"}, "to=example"},
		"domain:intern":               {api.Filter{Domain: "intern"}, "domain=intern"},
		"exämple.org":                 {api.Filter{Domain: "exämple.org"}, "domain=exämple.org"},
		"пример.рф":                   {api.Filter{Domain: "пример.рф"}, "domain=пример.рф"},
		"xn--e1afmkfd.xn--p1ai":       {api.Filter{Domain: "xn--e1afmkfd.xn--p1ai"}, "domain=xn--e1afmkfd.xn--p1ai"},
		"example.org.":                {api.Filter{Subject: "example.org."}, "subject=example.org."},
		"invoice":                     {api.Filter{Subject: "invoice"}, "subject=invoice"},
		"invoice 1042":                {api.Filter{Subject: "invoice 1042"}, "subject=invoice|subject=1042"},
		`"your order" invoice`:        {api.Filter{Subject: "your order invoice"}, "subject=your order|subject=invoice"},
		`subject:"status:failed"`:     {api.Filter{Subject: "status:failed"}, "subject=status:failed"},
		"subject:Re:":                 {api.Filter{Subject: "Re:"}, "subject=Re:"},
		"Re: invoice":                 {api.Filter{Subject: "Re: invoice"}, "subject=Re:|subject=invoice"},
		"v1.2.3":                      {api.Filter{Subject: "v1.2.3"}, "subject=v1.2.3"},
		"3.50":                        {api.Filter{Subject: "3.50"}, "subject=3.50"},
		"0198a2":                      {api.Filter{ID: "0198a2"}, "id=0198a2"},
		"0198A2F3-7d1e":               {api.Filter{ID: "0198a2f3-7d1e"}, "id=0198A2F3-7d1e"},
		"019c":                        {api.Filter{Subject: "019c"}, "subject=019c"},
		"id:019c":                     {api.Filter{ID: "019c"}, "id=019c"},
		"20261042":                    {api.Filter{Subject: "20261042"}, "subject=20261042"},
		"<42@example.com>":            {api.Filter{MessageID: "<42@example.com>"}, "message-id=<42@example.com>"},
		"message-id:42@example.com":   {api.Filter{MessageID: "<42@example.com>"}, "message-id=<42@example.com>"},
		"mid:<42@example.com>":        {api.Filter{MessageID: "<42@example.com>"}, "message-id=<42@example.com>"},
		"tag:order":                   {api.Filter{Tag: "order"}, "tag=order"},
		"tag:order=1042":              {api.Filter{Tag: "order:1042"}, "tag=order=1042"},
		"tag:order:10=42":             {api.Filter{Tag: "order:10=42"}, "tag=order=10=42"},
		`tag:order="a b"`:             {}, // below
		"status:failed":               {api.Filter{Status: "failed"}, "status=failed"},
		"is:Waiting":                  {api.Filter{Status: "waiting"}, "status=waiting"},
		"status:sent":                 {api.Filter{Status: "delivered"}, "status=sent"},
		"status:cancelled":            {api.Filter{Status: "canceled"}, "status=cancelled"},
		"status:bounced":              {api.Filter{Status: "bounced"}, "status=bounced"},
		"state:expired":               {api.Filter{RecipientState: "expired"}, "state=expired"},
		"code:550":                    {api.Filter{ReplyCode: 550}, "code=550"},
		"550":                         {api.Filter{Subject: "550"}, "subject=550"},
		"code:550 code:5.1.1":         {api.Filter{ReplyCode: 550, EnhancedCode: "5.1.1"}, "code=550|code=5.1.1"},
		"5.1.1":                       {api.Filter{EnhancedCode: "5.1.1"}, "code=5.1.1"},
		`text:"user unknown"`:         {api.Filter{Text: "user unknown"}, "text=user unknown"},
		`reason:"=<*>: \"x\\y\" z"`:   {api.Filter{Text: `=<*>: "x\y" z`}, `text==<*>: "x\y" z`},
		"text:=":                      {api.Filter{Text: "="}, "text=="},
		"relay:smtp.example.com key:shop": {
			api.Filter{Relay: "smtp.example.com", Key: "shop"},
			"relay=smtp.example.com|key=shop",
		},
		"after:2026-11-01":               {api.Filter{Since: "2026-11-01T00:00:00Z"}, "after=Sun 1 Nov 2026 00:00 UTC"},
		"since:yesterday":                {api.Filter{Since: "2026-11-28T00:00:00Z"}, "after=Sat 28 Nov 2026 00:00 UTC"},
		"before:2026-11-01":              {api.Filter{Until: "2026-11-01T00:00:00Z"}, "before=Sun 1 Nov 2026 00:00 UTC"},
		"until:2026-11-01":               {api.Filter{Until: "2026-11-02T00:00:00Z"}, "until=Mon 2 Nov 2026 00:00 UTC"},
		"after:29 Nov invoice":           {api.Filter{Since: "2026-11-29T00:00:00Z", Subject: "invoice"}, "after=Sun 29 Nov 2026 00:00 UTC|subject=invoice"},
		"after: 2 hours ago example.org": {api.Filter{Since: "2026-11-29T13:04:05Z", Domain: "example.org"}, "after=Sun 29 Nov 2026 13:04 UTC|domain=example.org"},
		"after:29 Nov 2026 14:30 x":      {api.Filter{Since: "2026-11-29T14:30:00Z", Subject: "x"}, "after=Sun 29 Nov 2026 14:30 UTC|subject=x"},
		`before:"29 Nov" 14:30`:          {}, // below
		"after:monday before:tuesday":    {api.Filter{Since: "2026-11-23T00:00:00Z", Until: "2026-11-24T00:00:00Z"}, "after=Mon 23 Nov 2026 00:00 UTC|before=Tue 24 Nov 2026 00:00 UTC"},
		"on:yesterday":                   {api.Filter{Since: "2026-11-28T00:00:00Z", Until: "2026-11-29T00:00:00Z"}, "on=Sat 28 Nov 2026"},
		"on:28 nov 2026":                 {api.Filter{Since: "2026-11-28T00:00:00Z", Until: "2026-11-29T00:00:00Z"}, "on=Sat 28 Nov 2026"},
		"ana@example.org status:failed from:shop@example.com tag:a=b 0198a2 code:550": {
			api.Filter{Recipient: "ana@example.org", Status: "failed", Sender: "shop@example.com", Tag: "a:b", ID: "0198a2", ReplyCode: 550},
			"to=ana@example.org|status=failed|from=shop@example.com|tag=a=b|id=0198a2|code=550",
		},
	} {
		switch text {
		case `tag:order="a b"`:
			want.filter, want.chips = api.Filter{Tag: `order:"a`, Subject: `b"`}, `tag=order="a|subject=b"`
		case `before:"29 Nov" 14:30`:
			want.filter, want.chips = api.Filter{Until: "2026-11-29T00:00:00Z", Subject: "14:30"}, "before=Sun 29 Nov 2026 00:00 UTC|subject=14:30"
		}
		got := parseSearch(text, sunday)
		var chips []string
		for _, c := range got.Chips {
			chips = append(chips, c.Name+"="+c.Value)
		}
		if got.Filter != want.filter || strings.Join(chips, "|") != want.chips || len(got.Faults) > 0 {
			t.Errorf("parseSearch(%q) = %+v, chips %q, faults %q, want %+v, chips %q", text, got.Filter, chips, got.Faults, want.filter, want.chips)
		}
	}
}

// TestSearchFaults: what is not understood is told, with what to write.
func TestSearchFaults(t *testing.T) {
	for text, want := range map[string]string{
		"colour:red":                           `"colour:" is no name`,
		"status:lost":                          "write waiting, queued",
		"status:":                              "as in status:failed",
		`to:""`:                                "as in to:ana@example.org",
		"state:lost":                           "is no state of a recipient",
		"code:250":                             "from 400 to 599",
		"code:0550":                            "from 400 to 599",
		"code:9.1.1":                           "code:5.1.1",
		"code:550 code:551":                    "stands there twice",
		"from:example.com":                     "takes a whole address",
		"domain:a@b":                           "is no domain",
		"id:xyz":                               "is not how an id begins",
		"id:01":                                "at least four",
		"after:03/04/2026":                     "which is which",
		"after:soon":                           "is no time",
		`on:"monday 14:00"`:                    "takes a day",
		"after:today before:yesterday":         "the wrong way round",
		"ana@example.org bob@example.org":      "stands there twice",
		"relay:a relay:b":                      "only one",
		`"your order`:                          "is not closed",
		"\xff":                                 "no text",
		strings.Repeat("a", maxSearch+1):       "too long",
		strings.Repeat("a ", maxSearchWords+1): "41 words",
		"after:2026-11-01 after:2026-11-02":    "stands there twice",
		"subject: x status:":                   "Behind status:",
		"https://example.org/?a=b":             "In quotes it is looked for in the subject",
		"on:yesterday after:2026-11-01 ":       "stands there twice",
		"tag:":                                 "as in tag:order=1042",
		"status:failed status:held":            "stands there twice",
		"message-id:":                          "as in message-id:<42@example.com>",
		"before:2026-11-31":                    "is no time",
	} {
		if got := parseSearch(text, sunday); !strings.Contains(strings.Join(got.Faults, "\n"), want) {
			t.Errorf("parseSearch(%q) has the faults %q, want one with %q", text, got.Faults, want)
		}
	}
	if got := parseSearch("status:failed status:failed", sunday); len(got.Faults) > 0 {
		t.Errorf("the same twice = %q, want no fault", got.Faults)
	}
}

// TestChipsWithout: the link of a chip is the search without that part.
func TestChipsWithout(t *testing.T) {
	s := parseSearch(`invoice  to:ana@example.org after:29 Nov "your order"`, sunday)
	want := []string{
		`to:ana@example.org after:29 Nov "your order"`, `invoice after:29 Nov "your order"`, `invoice  to:ana@example.org "your order"`, "invoice  to:ana@example.org after:29 Nov",
	}
	var got []string
	for _, c := range s.Chips {
		got = append(got, c.Without)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("chips without = %q, want %q", got, want)
	}
}

// TestSearchText: a filter, such as that of a reason for which mail failed, becomes a search that means it.
func TestSearchText(t *testing.T) {
	for _, f := range []api.Filter{
		{},
		{Relay: "smtp.example.com", ReplyCode: 550, EnhancedCode: "5.1.1", Text: `=<*>: Recipient "address" rejected: a\b`},
		{Text: "="},
		{Status: "waiting", Since: "2026-11-29T13:04:05.000000001Z", Until: "2026-11-29T14:04:05Z", Key: "shop", Subject: "your order"},
		{ID: "0198a2", Sender: "a@example.org", MessageID: "<a@b>", Recipient: `"a b"@example.org`, Domain: "example.org", RecipientState: "bounced", Tag: "a:b c"},
	} {
		text := searchText(f)
		got := parseSearch(text, sunday)
		if got.Filter != f || len(got.Faults) > 0 {
			t.Errorf("parseSearch(searchText(%+v)) = parseSearch(%q) = %+v, %q", f, text, got.Filter, got.Faults)
		}
		query, err := url.ParseQuery(f.Query().Encode())
		if err != nil || filterOf(query) != f {
			t.Errorf("filterOf(%v.Query()) = %+v, %v", f, filterOf(query), err)
		}
	}
}

// TestFilterMembers: a member that is added to the filter is known here.
func TestFilterMembers(t *testing.T) {
	var f api.Filter
	v := reflect.ValueOf(&f).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Int {
			v.Field(i).SetInt(550)
		} else {
			v.Field(i).SetString("x")
		}
	}
	query, _ := url.ParseQuery(f.Query().Encode())
	if got := filterOf(query); got != f {
		t.Errorf("filterOf(Query()) = %+v, want %+v", got, f)
	}
	text := searchText(f)
	for i := range v.NumField() {
		g := f
		reflect.ValueOf(&g).Elem().Field(i).SetZero()
		if searchText(g) == text {
			t.Errorf("searchText leaves out %s", v.Type().Field(i).Name)
		}
	}
}

// FuzzParseSearch: nothing crashes it. What is understood is told by a chip, or else by a fault; and a search without
// faults is the same search when its filter is written as text.
func FuzzParseSearch(f *testing.F) {
	for _, text := range []string{
		"ana@example.org status:failed", `subject:"your order" after:29 Nov 14:30`, "tag:a=b code:550 5.1.1 <a@b> 0198a2f3-7d1e", `"\"\\" text:="`, "on:yesterday Re: x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := parseSearch(text, sunday)
		if (s.Filter != api.Filter{}) != (len(s.Chips) > 0) && len(s.Faults) == 0 {
			t.Errorf("parseSearch(%q) = %+v with the chips %v", text, s.Filter, s.Chips)
		}
		if strings.TrimSpace(text) != "" && len(s.Chips) == 0 && len(s.Faults) == 0 {
			t.Errorf("parseSearch(%q) has neither chips nor faults", text)
		}
		if len(s.Faults) > 0 {
			return
		}
		for _, c := range s.Chips {
			if len(c.Without) >= len(s.Text) {
				t.Errorf("parseSearch(%q): without %s it is %q", text, c.Name, c.Without)
			}
		}
		if again := searchText(s.Filter); len(again) <= maxSearch {
			if got := parseSearch(again, sunday); got.Filter != s.Filter {
				t.Errorf("parseSearch(%q) = %+v, as text %q, which is %+v, %q", text, s.Filter, again, got.Filter, got.Faults)
			}
		}
	})
}
