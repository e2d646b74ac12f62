package ui

import "testing"

// TestTemplates: all templates are well-formed, and every value stands where it can be escaped.
func TestTemplates(t *testing.T) {
	if p := New(nil, Options{}).newPages(); p.err != nil {
		t.Fatal(p.err)
	}
}
