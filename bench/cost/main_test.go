package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestPage: the page has the table that this program prints.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	_, got, found := strings.Cut(string(page), "<!-- cost: go -C bench run ./cost -->\n\n")
	got, _, ended := strings.Cut(got, "<!-- end of cost -->")
	if !found || !ended {
		t.Fatal("docs/scaling.md has no place for the table")
	}
	var want bytes.Buffer
	table(&want)
	if got != want.String() {
		t.Errorf("docs/scaling.md has\n%s\nwant what go -C bench run ./cost prints:\n%s", got, &want)
	}
}

// TestNeeds: arithmetic that was done by hand.
func TestNeeds(t *testing.T) {
	n := needs(86_400_000) // a thousand a second
	if n.rate != 1000 || n.atPeak != 4000 || octets(n.log) != "16 MB" || octets(n.logAtPeak) != "65 MB" || octets(n.logPerDay) != "1.4 TB" {
		t.Errorf("needs = %+v", n)
	}
	if octets(n.kept) != "877 GB" || n.instances != 4 || n.databases != 1 || n.connections != 24 {
		t.Errorf("needs = %+v", n)
	}
}
