// Package markup executes templates for HTML pages. They are written in the language of
// html/template, as far as pages need it.
//
// html/template itself would make the program 3.4 MB larger: it looks methods up by name,
// so that the linker must keep every exported method there is. Here a template reads fields,
// and calls the functions that it is given, but no methods.
//
// Values are escaped by where they stand, which is judged once, when the templates are
// parsed: in text, in a quoted attribute, or in an attribute that is an address. Values in
// any other place are an error, and so are inline scripts, styles and event attributes, and
// attributes without double quotes. There is no type for markup that is not to be escaped.
package markup

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"text/template/parse"
)

// URL is an address that code has made: only such a value may stand at the beginning of
// href, src or action.
type URL string

// Funcs are functions that templates call by these names. They return one value, or one
// and an error.
type Funcs map[string]any

// Set is a set of templates, ready to be executed by any number of goroutines.
type Set struct {
	trees    map[string]*parse.Tree
	funcs    map[string]reflect.Value
	contexts map[*parse.ActionNode]place
}

// Parse reads all files of fsys that match the pattern. Each is a template with the file's
// base name, and may define others.
func Parse(fsys fs.FS, pattern string, funcs Funcs) (*Set, error) {
	names, err := fs.Glob(fsys, pattern)
	if err != nil {
		return nil, err
	}
	s := &Set{trees: map[string]*parse.Tree{}, funcs: map[string]reflect.Value{}, contexts: map[*parse.ActionNode]place{}}
	known := map[string]any{"and": true, "or": true}
	for _, of := range []Funcs{builtins, funcs} {
		maps.Copy(known, of)
		for name, f := range of {
			s.funcs[name] = reflect.ValueOf(f)
		}
	}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if err := s.add(path.Base(name), string(text), known); err != nil {
			return nil, err
		}
	}
	for name, tree := range s.trees {
		if err := s.check(tree); err != nil {
			return nil, fmt.Errorf("template %s: %w", name, err)
		}
	}
	return s, nil
}

func (s *Set) add(name, text string, known map[string]any) error {
	trees, err := parse.Parse(name, text, "", "", known)
	if err != nil {
		return err
	}
	for defined, tree := range trees {
		if defined == name && parse.IsEmptyTree(tree.Root) && len(trees) > 1 {
			continue // the file only defines others
		}
		if s.trees[defined] != nil {
			return fmt.Errorf("template %s is defined twice, the second time in %s", defined, name)
		}
		s.trees[defined] = tree
	}
	return nil
}

// Execute writes the template of that name. After an error nothing is written.
func (s *Set) Execute(w io.Writer, name string, data any) error {
	var page bytes.Buffer
	e := execution{set: s, w: &page}
	if err := e.template(name, reflect.ValueOf(data)); err != nil {
		return fmt.Errorf("template %s: %w", name, err)
	}
	_, err := w.Write(page.Bytes())
	return err
}
