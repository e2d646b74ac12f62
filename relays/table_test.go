package relays

import (
	"runtime"
	"testing"
	"testing/fstest"
	"time"
)

// TestTableNamesItsSources: each fact of each relay names a source, and each source a
// public page and the month in which it was read.
func TestTableNamesItsSources(t *testing.T) {
	for _, p := range Presets() {
		for name, s := range p.Sources {
			if _, err := time.Parse("2006-01", s.Read); err != nil || len(s.URL) < 9 || s.URL[:8] != "https://" {
				t.Errorf("%s: source %s is %+v, want an https address and a month such as 2026-11", p.Name, name, s)
			}
		}
		for fact, source := range factSources(p) {
			if _, ok := p.Sources[source]; !ok {
				t.Errorf("%s: %s has source %q, which the file does not have", p.Name, fact, source)
			}
		}
	}
}

// TestReadTableIsStrict: a misspelt field, one that stands there twice and a value of
// another kind are errors, not facts that get lost.
func TestReadTableIsStrict(t *testing.T) {
	for _, text := range []string{
		`{"name": "x", "prots": {"value": [587]}}`,
		`{"name": "x", "name": "y"}`,
		`{"name": "x", "Name": "y"}`,
		`{"ports": [587]}`,
		`{"rate": {"value": "fast"}}`,
		`{"idle": {"value": "1 minute"}}`,
		`{"name": "x"} {}`,
		``,
	} {
		if _, err := readTable(fstest.MapFS{"table/x.json": {Data: []byte(text)}}); err == nil {
			t.Errorf("readTable(%s) = no error", text)
		}
	}
	got, err := readTable(fstest.MapFS{
		"table/general.json": {Data: []byte(`{"replies": [{"verdict": "retry"}]}`)},
		"table/x.json":       {Data: []byte(`{"name": "x", "rate": {"value": "30/m", "source": "smtp"}}`)},
	})
	if err != nil || len(got) != 1 || got[0].Rate.Value.Per != time.Minute || got[0].Replies.read() != nil {
		t.Errorf("readTable = %+v, %v", got, err)
	}
}

// TestReadRulesIsStrict: the same goes for rules, which the facts' reader skips.
func TestReadRulesIsStrict(t *testing.T) {
	files := func(rules string) fstest.MapFS {
		return fstest.MapFS{"table/x.json": {Data: []byte(`{"name": "x", "replies": ` + rules + `}`)}}
	}
	for _, rules := range []string{
		`[{"code": [421]}]`, `[{"codes": [421], "codes": [450]}]`, `[{"codes": [421], "Codes": [450]}]`, `[{"codes": 421}]`,
		`[{"for": "long"}]`, `{"codes": [421]}`, `[] []`,
	} {
		if got, err := readRules(files(rules), "table/x.json"); err == nil {
			t.Errorf("readRules(%s) = %+v and no error", rules, got)
		}
	}
	presets, err := readTable(files(`[{"codes": [421], "verdict": "retry"}, {"for": "1h"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if rules := presets[0].Replies.read(); len(rules) != 2 || rules[0].Codes[0] != 421 || time.Duration(rules[1].For) != time.Hour {
		t.Errorf("the rules are %+v", rules)
	}
}

// BenchmarkReadTable is what the first use of the table costs a start, and what stays in
// memory then: held is in octets.
func BenchmarkReadTable(b *testing.B) {
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	presets, err := readTable(tableFiles)
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		if presets, err = readTable(tableFiles); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(presets)
	b.ReportMetric(float64(after.HeapAlloc)-float64(before.HeapAlloc), "held")
}

// BenchmarkReadRules is what the first refusal costs: the general rules.
func BenchmarkReadRules(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readRules(tableFiles, generalFile); err != nil {
			b.Fatal(err)
		}
	}
}
