package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// row is one line of the layout table in CONTRIBUTING.md.
type row struct {
	folder  string // "." for the root
	tree    bool   // with all folders below it, whose imports are not stated
	imports []string
}

// readLayout reads the table: a folder with what it holds and, after an arrow,
// what it imports. Indented lines continue the one before.
func readLayout(t *testing.T) []row {
	t.Helper()
	data, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "\n## Layout\n")
	_, table, _ := strings.Cut(section, "```\n")
	table, _, ok := strings.Cut(table, "```\n")
	if !ok {
		t.Fatal("CONTRIBUTING.md has no layout table")
	}
	var rows []row
	for line := range strings.Lines(strings.ReplaceAll(table, "\n ", " ")) {
		text, imports, stated := strings.Cut(line, "→")
		name := strings.Fields(text)[0]
		r := row{folder: strings.TrimSuffix(name, "/")}
		r.folder, r.tree = strings.CutSuffix(r.folder, "/...")
		if name == "main.go" {
			r.folder = "."
		}
		if stated {
			r.imports = strings.FieldsFunc(imports, func(c rune) bool { return strings.ContainsRune(" ,;\n", c) })
		}
		rows = append(rows, r)
	}
	return rows
}

// folders lists the folders of the module that hold anything but test data, each
// with its Go files; those without any, too.
func folders(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base[0] == '.' || base == "testdata" && name != base || base == "node_modules"):
			return fs.SkipDir
		case d.IsDir():
			found[name] = nil
		case path.Ext(name) == ".go":
			found[path.Dir(name)] = append(found[path.Dir(name)], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every folder has its line in the table and every line its folder: those at the
// top, and those that hold Go code.
func TestLayoutFolders(t *testing.T) {
	rows, found := readLayout(t), folders(t)
	for _, r := range rows {
		if _, ok := found[r.folder]; !ok {
			t.Errorf("CONTRIBUTING.md has a line for %s, which does not exist", r.folder)
		}
	}
	for folder, files := range found {
		described := slices.ContainsFunc(rows, func(r row) bool {
			return r.folder == folder || r.tree && strings.HasPrefix(folder, r.folder+"/") ||
				len(files) == 0 && strings.HasPrefix(r.folder, folder+"/")
		})
		if top := !strings.Contains(folder, "/"); (top || len(files) > 0) && !described {
			t.Errorf("CONTRIBUTING.md's layout has no line for %s", folder)
		}
	}
}

// What follows the arrow is what the folder's Go files import, tests apart, beside
// the standard library.
func TestLayoutImports(t *testing.T) {
	found, modules := folders(t), requiredModules(t)
	for _, r := range readLayout(t) {
		code := slices.DeleteFunc(found[r.folder], func(file string) bool { return strings.HasSuffix(file, "_test.go") })
		if r.tree || len(code) == 0 {
			continue
		}
		imported := map[string]bool{}
		for _, file := range code {
			for _, name := range importsOf(t, file) {
				imported[shortImport(name, modules)] = true
			}
		}
		delete(imported, "")
		got := slices.Sorted(maps.Keys(imported))
		if len(got) == 0 {
			got = []string{"std"}
		}
		if want := slices.Sorted(slices.Values(r.imports)); !slices.Equal(got, want) {
			t.Errorf("%s imports %s; CONTRIBUTING.md says %s", r.folder, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// shortImport is an import as the table has it: a folder of ours, the last part of
// another module's path, or empty for the standard library.
func shortImport(name string, modules []string) string {
	if folder, ours := strings.CutPrefix(name, "mailsidecar/"); ours {
		return folder
	}
	for _, m := range modules {
		if name != m && !strings.HasPrefix(name, m+"/") {
			continue
		}
		short := regexp.MustCompile(`/v\d+$`).ReplaceAllString(m, "")
		if golang, ok := strings.CutPrefix(short, "golang.org/"); ok {
			return golang
		}
		return path.Base(short)
	}
	return ""
}

func requiredModules(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v`).FindAllSubmatch(data, -1) {
		modules = append(modules, string(m[1]))
	}
	return modules
}

// The linter holds every folder with Go code to a rule of its own, and has no rule
// for a folder that is gone.
func TestLayoutRules(t *testing.T) {
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct{ Files []string }
				}
			}
		}
	}
	data, err := os.ReadFile(".golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	ruled := map[string]bool{}
	for name, rule := range config.Linters.Settings.Depguard.Rules {
		for _, glob := range rule.Files {
			pattern, excluded := strings.CutPrefix(glob, "!")
			matches, err := filepath.Glob(strings.TrimPrefix(pattern, "${config-path}/"))
			if err != nil || len(matches) == 0 {
				t.Errorf("the rule %s names %s, where no Go file is: %v", name, glob, err)
			}
			if excluded {
				continue
			}
			for _, file := range matches {
				ruled[filepath.ToSlash(filepath.Dir(file))] = true
			}
		}
	}
	for _, r := range readLayout(t) {
		if len(r.imports) > 0 && !ruled[r.folder] {
			t.Errorf(".golangci.yml has no depguard rule for %s", r.folder)
		}
	}
}

// The image is built from the folders that .dockerignore names: all that the program
// imports, directly or not.
func TestImageFolders(t *testing.T) {
	data, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	named := strings.Fields(string(data))
	found, seen, todo := folders(t), map[string]bool{}, []string{".", "cmd/sendmail"}
	for len(todo) > 0 {
		folder := todo[0]
		todo = todo[1:]
		if seen[folder] {
			continue
		}
		seen[folder] = true
		top, _, _ := strings.Cut(folder, "/")
		if folder != "." && !slices.Contains(named, "!"+top) {
			t.Errorf("%s is imported; .dockerignore does not name !%s", folder, top)
		}
		for _, file := range found[folder] {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, name := range importsOf(t, file) {
				if ours, ok := strings.CutPrefix(name, "mailsidecar/"); ok {
					todo = append(todo, ours)
				}
			}
		}
	}
}
