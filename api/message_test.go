package api

import (
	"encoding/json"
	"testing"
)

// TestFilterQuery: the parameters have the names of the members in JSON.
func TestFilterQuery(t *testing.T) {
	f := Filter{Status: "failed", Recipient: "a@b", Sender: "c@d", MessageID: "<1@b>", Tag: "n:v", Since: "s", Until: "u"}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	query := f.Query()
	for name, value := range members {
		if query.Get(name) != value {
			t.Errorf("parameter %s = %q, want %q", name, query.Get(name), value)
		}
	}
	if len(query) != len(members) {
		t.Errorf("%d parameters, want %d", len(query), len(members))
	}
	if got := (Filter{}).Query(); len(got) != 0 {
		t.Errorf("the parameters of no filter are %v", got)
	}
}

// TestOutcomeString: the relay's codes stand before its words.
func TestOutcomeString(t *testing.T) {
	for want, o := range map[string]Outcome{
		"550 5.1.1 no such user": {ReplyCode: 550, EnhancedCode: "5.1.1", Text: "no such user"},
		"451 try later":          {ReplyCode: 451, Text: "try  later"},
		"no answer":              {Text: "no answer"},
		"":                       {},
	} {
		if got := o.String(); got != want {
			t.Errorf("%+v.String() = %q, want %q", o, got, want)
		}
	}
}
