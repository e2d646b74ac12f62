package mutants

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// goPackage is what the go command tells of a package.
type goPackage struct {
	ImportPath, Export, Dir string
	GoFiles                 []string
}

// goPackages checks types without a build: that of the whole program takes seconds for each fault.
type goPackages struct {
	byDir    map[string]*goPackage
	files    *token.FileSet
	importer types.Importer
}

// listPackages returns those that the simulator is made of.
func listPackages(t *testing.T) *goPackages {
	t.Helper()
	c := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles", "./sim")
	c.Dir, c.Stderr = root, os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	byPath := map[string]*goPackage{}
	p := &goPackages{byDir: map[string]*goPackage{}, files: token.NewFileSet()}
	p.importer = importer.ForCompiler(p.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(byPath[path].Export) })
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var one goPackage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return p
		} else if err != nil {
			t.Fatal(err)
		}
		p.byDir[one.Dir], byPath[one.ImportPath] = &one, &one
	}
}

// check says what is wrong with the package that has the file, with another source in it.
func (p *goPackages) check(file, source string) error {
	path, err := filepath.Abs(filepath.Join(root, file))
	if err != nil {
		return err
	}
	of := p.byDir[filepath.Dir(path)]
	if of == nil {
		return fmt.Errorf("%s is not a part of the simulator", file)
	}
	var files []*ast.File
	for _, name := range of.GoFiles {
		name = filepath.Join(of.Dir, name)
		var src any // nil: what the file has
		if name == path {
			src = source
		}
		f, err := parser.ParseFile(p.files, name, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	c := types.Config{Importer: p.importer}
	_, err = c.Check(of.ImportPath, p.files, files, nil)
	return err
}
