package handler

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// memberNames are the names of a type's members in JSON, those of embedded types
// included.
func memberNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			names = append(names, memberNames(inner)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestRequestMembers: what clients can write is what the server reads.
func TestRequestMembers(t *testing.T) {
	for _, tc := range []struct{ written, read reflect.Type }{
		{reflect.TypeFor[api.Request](), reflect.TypeFor[messageRequest]()},
		{reflect.TypeFor[api.Attachment](), reflect.TypeFor[attachment]()},
	} {
		if written, read := memberNames(tc.written), memberNames(tc.read); !slices.Equal(written, read) {
			t.Errorf("%v has %v, and %v reads %v", tc.written, written, tc.read, read)
		}
	}
}

// TestAnswerMembers: the members of each answer are those that openapi.yaml has.
func TestAnswerMembers(t *testing.T) {
	for schema, answer := range map[string]reflect.Type{
		"Message": reflect.TypeFor[api.Receipt](), "Recipient": reflect.TypeFor[api.Recipient](), "Problem": reflect.TypeFor[api.Problem](),
		"Attempt": reflect.TypeFor[api.Attempt](), "Relay": reflect.TypeFor[api.Relay](), "Story": reflect.TypeFor[api.Message](),
		"Pause": reflect.TypeFor[api.Pause](), "Drain": reflect.TypeFor[api.Drain](),
	} {
		described := contract.resolve(map[string]any{"$ref": "#/components/schemas/" + schema})
		var names []string
		for name := range described["properties"].(map[string]any) {
			names = append(names, name)
		}
		slices.Sort(names)
		if got := memberNames(answer); !slices.Equal(got, names) {
			t.Errorf("%v has %v, openapi.yaml's %s %v", answer, got, schema, names)
		}
	}
}

// TestAPIWords: the words that clients look for are the queue's.
func TestAPIWords(t *testing.T) {
	for _, tc := range []struct{ word, want string }{
		{api.StateQueued, string(queue.Queued)},
		{api.StateBounced, string(queue.Bounced)},
		{api.StatusQueued, string(queue.StatusQueued)},
		{api.StatusDeferred, string(queue.StatusDeferred)},
		{api.StatusHeld, string(queue.StatusHeld)},
		{api.OutcomeUncertain, mailer.ClassUncertain.String()},
	} {
		if tc.word != tc.want {
			t.Errorf("api has %q, and the server %q", tc.word, tc.want)
		}
	}
}
