package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// composedField returns a custom field as Compose writes it, with its folds.
func composedField(t *testing.T, name, value string) (string, error) {
	t.Helper()
	m := mailer.Message{From: mailer.Address{Email: "a@x.test"}, To: []mailer.Address{{Email: "b@x.test"}}, Text: "x", Header: []mailer.Field{{Name: name, Value: value}}}
	c, err := Compose(t.Context(), m, Options{})
	if err != nil {
		return "", err
	}
	checkContent(t, c.Content)
	return rawFieldOf(t, c.Content.Data, name), nil
}

// finishedField returns it as Finish does.
func finishedField(t *testing.T, name, value string) (string, error) {
	t.Helper()
	c, err := Finish(t.Context(), []byte("From: a@x.test\nTo: b@x.test\n"+name+": "+value+"\n\nx\n"), FinishOptions{})
	if err != nil {
		return "", err
	}
	checkContent(t, c.Content)
	return rawFieldOf(t, c.Content.Data, name), nil
}

// rawFieldOf returns the value of a field with its folds.
func rawFieldOf(t *testing.T, data []byte, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(string(data), "\r\n"+name+":")
	if !found {
		t.Fatalf("no field %s", name)
	}
	end := 0
	for {
		i := strings.Index(rest[end:], "\r\n")
		if end += i + 2; !isBlank(rest[end]) {
			return strings.TrimSuffix(rest[:end], "\r\n")
		}
	}
}

// TestASCIIFields: a field that programs may read is never encoded where it is ASCII, and
// unfolds to what it was.
func TestASCIIFields(t *testing.T) {
	names := []string{
		"X-SMTPAPI", "X-Mailgun-Variables", "X-MC-Metadata", "X-Order", "List-Unsubscribe", "List-Id", "References", "In-Reply-To", "Feedback-ID", "Message-Type", "x-ses-configuration-set",
	}
	for _, name := range names {
		for _, n := range []int{1, 60, 899, 900, 901, 950, 998 - len(name) - len(": "), 996, 997} {
			for _, value := range []string{
				"<" + strings.Repeat("x", max(n-5, 1)) + "@y>", strings.Repeat("word ", n/5) + "end",
				strings.Repeat("two  blanks ", n/12) + "end", "tab\there", `{"a": "b  c"}`, strings.Repeat("x", n),
			} {
				for door, write := range map[string]func(*testing.T, string, string) (string, error){"Compose": composedField, "Finish": finishedField} {
					got, err := write(t, name, value)
					if err != nil {
						t.Errorf("%s: %s of %d octets: %v", door, name, len(value), err)
						continue
					}
					if unfolded := strings.TrimPrefix(strings.ReplaceAll(got, "\r\n", ""), " "); unfolded != value && !isStructured(strings.ToLower(name)) {
						t.Errorf("%s: %s: %q is written as %q", door, name, value, got)
					}
					if strings.Contains(got, "=?") {
						t.Errorf("%s: %s: %q is encoded: %q", door, name, value, got)
					}
				}
			}
		}
	}
}

// TestJSONFields: longer JSON is folded where a blank more changes nothing.
func TestJSONFields(t *testing.T) {
	numbers, texts := make([]int, 3000), map[string]string{}
	for i := range numbers {
		numbers[i] = i
		texts[fmt.Sprint("key,", i)] = `a, "quoted\\" [text], {with} ` + strings.Repeat(", x", i%200)
	}
	for _, value := range []any{
		map[string]any{"category": "orders", "to": numbers}, texts, numbers, map[string]any{"unique_args": map[string]any{"order": "1", "text": strings.Repeat("long text, ", 79)}, "sub": map[string]any{"-name-": []string{strings.Repeat("n", 300)}}, "category": []string{"a", "b"}},
	} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) <= maxLine-len("X-SMTPAPI: ") {
			t.Fatalf("%d octets are no long JSON", len(text))
		}
		for door, write := range map[string]func(*testing.T, string, string) (string, error){"Compose": composedField, "Finish": finishedField} {
			got, err := write(t, "X-SMTPAPI", string(text))
			if err != nil {
				t.Errorf("%s of %d octets: %v", door, len(text), err)
				continue
			}
			var want, read any
			if err := json.Unmarshal([]byte(strings.ReplaceAll(got, "\r\n", "")), &read); err != nil || json.Unmarshal(text, &want) != nil || !reflect.DeepEqual(read, want) {
				t.Errorf("%s: %.80q… is written as %.2000q, %v", door, text, got, err)
			}
			for line := range strings.SplitSeq(strings.TrimRight(got, "\r\n"), "\r\n ") {
				if quotes := strings.Count(strings.ReplaceAll(strings.ReplaceAll(line, `\\`, ""), `\"`, ""), `"`); quotes%2 != 0 {
					t.Errorf("%s: folded in a string: %q", door, line)
				}
			}
		}
	}
}

// TestUnfoldableFields: what cannot be folded is refused by its name, except text for
// people, which is encoded.
func TestUnfoldableFields(t *testing.T) {
	long := strings.Repeat("x", 998)
	for _, value := range []string{long, `{"a":"` + long + `"}`, "[" + long + ",1]", "a " + long} {
		for door, write := range map[string]func(*testing.T, string, string) (string, error){"Compose": composedField, "Finish": finishedField} {
			_, err := write(t, "X-SMTPAPI", value)
			var invalid *mailer.InvalidError
			if !errors.As(err, &invalid) || invalid.Malformed || invalid.Fields[0].Position.String() != "headers.X-SMTPAPI" {
				t.Errorf("%s: %.20q… = %v, want a problem of headers.X-SMTPAPI", door, value, err)
			}
			got, err := write(t, "Comments", value)
			if err != nil || readWords(t, strings.TrimSpace(strings.ReplaceAll(got, "\r\n", ""))) != value {
				t.Errorf("%s: Comments %.20q… = %q, %v", door, value, got, err)
			}
		}
	}
}
