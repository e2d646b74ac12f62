package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// levels are the functions of a logger that write what an operator reads by default, with
// the place of the message among their arguments.
var levels = map[string]int{"Info": 0, "Warn": 0, "Error": 0, "Log": 2, "LogAttrs": 2}

// unlogged are folders whose code does not run in the service.
var unlogged = []string{"bench", "integration", "examples", "queue/storetest", "queue/queuetest", "handler/compat/compattest", "api/apitest", "mailer/relaytest"}

// TestLogTable: docs/operating.md has each message that the service logs at INFO and
// above.
func TestLogTable(t *testing.T) {
	doc, err := os.ReadFile("docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, logs, _ := strings.Cut(string(doc), "\n## Logs\n")
	logs, _, _ = strings.Cut(logs, "\n## ")
	found := 0
	for message, file := range logMessages(t) {
		found++
		if !strings.Contains(logs, "`"+message+"`") {
			t.Errorf("%s logs %q, which docs/operating.md does not have under Logs", file, message)
		}
	}
	if found < 50 {
		t.Errorf("%d messages found in the code, want them all", found)
	}
}

// logMessages are the messages in the code, and a file that logs each.
func logMessages(t *testing.T) map[string]string {
	t.Helper()
	messages := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || slices.Contains(unlogged, filepath.ToSlash(path))):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if message, ok := logMessage(n); ok {
				messages[message] = path
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// logMessage is the message of a call that logs one at INFO or above.
func logMessage(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	at, ok := levels[f.Sel.Name]
	if !ok || len(call.Args) <= at {
		return "", false
	}
	text, ok := call.Args[at].(*ast.BasicLit)
	if !ok || text.Kind != token.STRING {
		return "", false
	}
	message, err := strconv.Unquote(text.Value)
	return message, err == nil
}
