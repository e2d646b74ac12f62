package cli

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// This file says in the words of the command line what the server says in those of its interface: a person who
// typed --code does not know what reply_code is.

// flagNames are the flags for fields and header fields of the interface that have another name there. Others have
// the same one, with hyphens.
var flagNames = map[string]string{
	"reply_code": "code", "enhanced_code": "enhanced", "attachments": "attach", "again": "yes", "headers": "header", "tags": "tag",
	"envelope-from": "return-path", "envelope-to": "to", "envelope-priority": "priority", "prefer": "wait",
}

// flagOf is the command's flag that a field came from, with what follows the field's name; empty where no flag is.
func flagOf(cmd *cobra.Command, field string) string {
	if cmd == nil {
		return ""
	}
	head, rest := field, ""
	if i := strings.IndexAny(field, "[."); i > 0 {
		head, rest = field[:i], field[i:]
	}
	head = strings.ToLower(head)
	name := cmp.Or(flagNames[head], strings.ReplaceAll(head, "_", "-"))
	flag := cmd.Flags().Lookup(name)
	if flag == nil {
		return ""
	}
	if all, ok := flag.Value.(interface{ GetSlice() []string }); ok && len(all.GetSlice()) == 1 && strings.HasPrefix(rest, "[") {
		rest = "" // it can only be that one
	}
	return "--" + name + itemWords(rest)
}

// itemWords says which of several values of a flag is meant: "[1].content" is the second, ".X-A" that with the name.
func itemWords(rest string) string {
	if name, ok := strings.CutPrefix(rest, "."); ok {
		return " " + name
	}
	number, _, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]")
	if n, err := strconv.Atoi(number); ok && err == nil {
		return " (number " + strconv.Itoa(n+1) + ")"
	}
	return rest
}

var fieldWord = regexp.MustCompile(`\b[a-z]+(?:_[a-z]+)+\b`)

// inFlags is a text of the server in which the names of fields are those of the command's flags. Names without an
// underscore are words of the language, too, and stay.
func inFlags(cmd *cobra.Command, text string) string {
	return fieldWord.ReplaceAllStringFunc(text, func(word string) string { return cmp.Or(flagOf(cmd, word), word) })
}
