package relays

import (
	"cmp"
	"embed"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
)

// The table is a folder of files: one for each relay, and general.json with the rules
// that hold for every relay. It is read when something first asks for it: the facts all
// together, the rules of a relay when a reply of it is first judged. Every start asks for
// facts, and few relays ever refuse.
//
//go:embed table/*.json
var tableFiles embed.FS

// generalFile has the rules that hold for every relay.
const generalFile = "table/general.json"

// general are the rules of that file.
var general = repliesIn(tableFiles, generalFile)

// knowledge returns the presets in the order of their names. It panics where a file is
// wrong, which a test would have found.
var knowledge = sync.OnceValue(func() []Preset { return must(readTable(tableFiles)) })

func must[T any](value T, err error) T {
	if err != nil {
		panic("relays: " + err.Error())
	}
	return value
}

// readTable reads the facts in the folder "table" of files.
func readTable(files fs.FS) ([]Preset, error) {
	names, err := fs.Glob(files, "table/*.json")
	if err != nil {
		return nil, err
	}
	presets := make([]Preset, 0, len(names))
	for _, name := range names {
		if name == generalFile {
			continue
		}
		var p Preset
		if err = readEntry(files, name, &p, json.RejectUnknownMembers(true)); err != nil {
			return nil, err
		}
		p.Replies = repliesIn(files, name)
		presets = append(presets, p)
	}
	slices.SortFunc(presets, func(a, b Preset) int { return cmp.Compare(a.Name, b.Name) })
	return presets, nil
}

// Replies are the rules of one file for what relays say.
type Replies struct{ read func() []Rule }

// repliesIn returns the rules in a file. They are read when they are first asked for, and
// a wrong one panics as knowledge does.
func repliesIn(files fs.FS, name string) Replies {
	return Replies{sync.OnceValue(func() []Rule { return must(readRules(files, name)) })}
}

// UnmarshalJSON leaves the rules in the file.
func (*Replies) UnmarshalJSON([]byte) error { return nil }

// ruleList is the rules in a file, read strictly.
type ruleList []Rule

// UnmarshalJSON refuses unknown fields, which [readRules] skips around the rules.
func (l *ruleList) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, (*[]Rule)(l), json.RejectUnknownMembers(true))
}

// readRules reads the rules in a file.
func readRules(files fs.FS, name string) ([]Rule, error) {
	var entry struct {
		Replies ruleList `json:"replies"`
	}
	err := readEntry(files, name, &entry)
	for i := range entry.Replies {
		r := &entry.Replies[i]
		r.text, r.not = conditionsOf(r.Text), conditionsOf(r.Not)
	}
	return entry.Replies, err
}

// readEntry decodes one file. Fields that stand there twice are refused.
func readEntry(files fs.FS, name string, entry any, options ...json.Options) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	if err = json.Unmarshal(data, entry, options...); err != nil {
		return &fs.PathError{Op: "decode", Path: strings.TrimPrefix(name, "table/"), Err: err}
	}
	return nil
}
