package markup

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"text/template/parse"
)

// maxDepth is how deep templates may be nested.
const maxDepth = 50

type variable struct {
	name  string
	value reflect.Value
}

// execution is that of one page.
type execution struct {
	set   *Set
	w     *bytes.Buffer
	vars  []variable
	depth int
}

func (e *execution) template(name string, dot reflect.Value) error {
	tree := e.set.trees[name]
	if tree == nil {
		return errors.New("there is no such template")
	}
	if e.depth++; e.depth > maxDepth {
		return errors.New("templates are nested too deep")
	}
	outer := e.vars
	e.vars = []variable{{"$", dot}}
	err := e.list(tree.Root, dot)
	e.vars = outer
	e.depth--
	return err
}

func (e *execution) list(l *parse.ListNode, dot reflect.Value) error {
	if l == nil {
		return nil
	}
	for _, n := range l.Nodes {
		if err := e.node(n, dot); err != nil {
			return err
		}
	}
	return nil
}

func (e *execution) node(n parse.Node, dot reflect.Value) error {
	switch n := n.(type) {
	case *parse.TextNode:
		e.w.Write(n.Text)
		return nil
	case *parse.ActionNode:
		return e.action(n, dot)
	case *parse.IfNode:
		return e.scoped(func() error { return e.branch(&n.BranchNode, dot, false) })
	case *parse.WithNode:
		return e.scoped(func() error { return e.branch(&n.BranchNode, dot, true) })
	case *parse.RangeNode:
		return e.scoped(func() error { return e.loop(n, dot) })
	case *parse.TemplateNode:
		v := reflect.Value{}
		if n.Pipe != nil {
			var err error
			if v, err = e.pipe(n.Pipe, dot); err != nil {
				return err
			}
		}
		return e.template(n.Name, v)
	default:
		return nil
	}
}

// scoped forgets the variables that f declares.
func (e *execution) scoped(f func() error) error {
	n := len(e.vars)
	err := f()
	e.vars = e.vars[:n]
	return err
}

func (e *execution) branch(n *parse.BranchNode, dot reflect.Value, with bool) error {
	v, err := e.pipe(n.Pipe, dot)
	switch {
	case err != nil:
		return err
	case !truth(v):
		return e.list(n.ElseList, dot)
	case with:
		return e.list(n.List, v)
	default:
		return e.list(n.List, dot)
	}
}

func (e *execution) loop(n *parse.RangeNode, dot reflect.Value) error {
	declared := n.Pipe.Decl
	plain := *n.Pipe
	plain.Decl = nil
	v, err := e.pipe(&plain, dot)
	if err != nil {
		return err
	}
	v = indirect(v)
	empty := true
	items, err := itemsOf(v)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Pipe, err)
	}
	for key, item := range items {
		empty = false
		err := e.scoped(func() error {
			switch len(declared) {
			case 1:
				e.vars = append(e.vars, variable{declared[0].Ident[0], item})
			case 2:
				e.vars = append(e.vars, variable{declared[0].Ident[0], key}, variable{declared[1].Ident[0], item})
			}
			return e.list(n.List, item)
		})
		if err != nil {
			return err
		}
	}
	if empty {
		return e.list(n.ElseList, dot)
	}
	return nil
}

// itemsOf are the items of a list. Maps have no order, and are refused.
func itemsOf(v reflect.Value) (iter.Seq2[reflect.Value, reflect.Value], error) {
	switch v.Kind() {
	case reflect.Invalid:
		return func(func(reflect.Value, reflect.Value) bool) {}, nil
	case reflect.Slice, reflect.Array:
		return func(yield func(reflect.Value, reflect.Value) bool) {
			for i := range v.Len() {
				if !yield(reflect.ValueOf(i), v.Index(i)) {
					return
				}
			}
		}, nil
	default:
		return nil, fmt.Errorf("no list but %s", v.Kind())
	}
}

func (e *execution) action(n *parse.ActionNode, dot reflect.Value) error {
	v, err := e.pipe(n.Pipe, dot)
	if err != nil || len(n.Pipe.Decl) > 0 {
		return err
	}
	text, err := print(v)
	if err != nil {
		return fmt.Errorf("%s: %w", n, err)
	}
	switch e.set.contexts[n] {
	case inURL:
		text = strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
	case atURL:
		if _, ok := valueOf(v).(URL); !ok {
			return fmt.Errorf("%s begins an address and is no markup.URL", n)
		}
	default:
	}
	e.w.WriteString(Escape(text))
	return nil
}

// Escape makes text that may stand in HTML, within quotes also. Octets that are no UTF-8, and
// characters that no page may have, become U+FFFD.
func Escape(text string) string {
	return escaper.Replace(strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f {
			return '\uFFFD'
		}
		return c
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

func valueOf(v reflect.Value) any {
	if !v.IsValid() || !v.CanInterface() {
		return nil
	}
	return v.Interface()
}

func print(v reflect.Value) (string, error) {
	if s, ok := valueOf(v).(fmt.Stringer); ok && !isNil(v) {
		return s.String(), nil
	}
	switch v = indirect(v); v.Kind() {
	case reflect.Invalid:
		return "", nil
	case reflect.String:
		return v.String(), nil
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64), nil
	default:
		return "", fmt.Errorf("a %s cannot be printed", v.Kind())
	}
}

func isNil(v reflect.Value) bool {
	return (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil()
}

// indirect follows pointers and interfaces; nil ones become the zero Value.
func indirect(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	return v
}

// truth is false for what is empty, a zero time included. A pointer is true unless it is nil.
func truth(v reflect.Value) bool {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if v.Kind() == reflect.Pointer {
		return !v.IsNil()
	}
	if z, ok := valueOf(v).(interface{ IsZero() bool }); ok && !isNil(v) {
		return !z.IsZero()
	}
	switch v = indirect(v); v.Kind() {
	case reflect.Invalid:
		return false
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() > 0
	case reflect.Struct:
		return true
	default:
		return !v.IsZero()
	}
}

func (e *execution) pipe(p *parse.PipeNode, dot reflect.Value) (v reflect.Value, err error) {
	for i, c := range p.Cmds {
		if v, err = e.command(c, dot, v, i > 0); err != nil {
			return v, err
		}
	}
	for _, d := range p.Decl {
		if p.IsAssign {
			err = e.assign(d.Ident[0], v)
		} else {
			e.vars = append(e.vars, variable{d.Ident[0], v})
		}
	}
	return v, err
}

func (e *execution) assign(name string, v reflect.Value) error {
	for i := len(e.vars) - 1; i >= 0; i-- {
		if e.vars[i].name == name {
			e.vars[i].value = v
			return nil
		}
	}
	return fmt.Errorf("there is no variable %s", name)
}

// command evaluates one part of a pipe. last is the value of the part before it.
func (e *execution) command(c *parse.CommandNode, dot, last reflect.Value, piped bool) (reflect.Value, error) {
	name, isFunc := c.Args[0].(*parse.IdentifierNode)
	if !isFunc {
		if len(c.Args) > 1 || piped {
			return last, fmt.Errorf("%s is no function", c.Args[0])
		}
		return e.value(c.Args[0], dot)
	}
	if name.Ident == "and" || name.Ident == "or" {
		return e.logic(name.Ident == "and", c.Args[1:], dot)
	}
	var args []reflect.Value
	for _, a := range c.Args[1:] {
		v, err := e.value(a, dot)
		if err != nil {
			return v, err
		}
		args = append(args, v)
	}
	if piped {
		args = append(args, last)
	}
	v, err := call(e.set.funcs[name.Ident], args)
	if err != nil {
		err = fmt.Errorf("%s: %w", c, err)
	}
	return v, err
}

// logic returns the first argument that decides, and evaluates none behind it.
func (e *execution) logic(all bool, args []parse.Node, dot reflect.Value) (v reflect.Value, err error) {
	for _, a := range args {
		if v, err = e.value(a, dot); err != nil || truth(v) != all {
			break
		}
	}
	return v, err
}

func (e *execution) value(n parse.Node, dot reflect.Value) (reflect.Value, error) {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot, nil
	case *parse.NilNode:
		return reflect.Value{}, nil
	case *parse.BoolNode:
		return reflect.ValueOf(n.True), nil
	case *parse.StringNode:
		return reflect.ValueOf(n.Text), nil
	case *parse.NumberNode:
		if n.IsInt {
			return reflect.ValueOf(int(n.Int64)), nil
		}
		return reflect.ValueOf(n.Float64), nil
	case *parse.FieldNode:
		return fields(dot, n.Ident)
	case *parse.VariableNode:
		for i := len(e.vars) - 1; i >= 0; i-- {
			if e.vars[i].name == n.Ident[0] {
				return fields(e.vars[i].value, n.Ident[1:])
			}
		}
		return reflect.Value{}, fmt.Errorf("there is no variable %s", n.Ident[0])
	case *parse.ChainNode:
		v, err := e.value(n.Node, dot)
		if err != nil {
			return v, err
		}
		return fields(v, n.Field)
	case *parse.PipeNode:
		return e.pipe(n, dot)
	case *parse.IdentifierNode:
		return call(e.set.funcs[n.Ident], nil)
	default:
		return reflect.Value{}, fmt.Errorf("%s is not understood", n)
	}
}

func fields(v reflect.Value, names []string) (reflect.Value, error) {
	for _, name := range names {
		switch v = indirect(v); v.Kind() {
		case reflect.Struct:
			t, ok := v.Type().FieldByName(name)
			if !ok || !t.IsExported() {
				return v, fmt.Errorf("%s has no field %s", v.Type(), name)
			}
			field, err := v.FieldByIndexErr(t.Index)
			if err != nil {
				return v, err
			}
			v = field
		case reflect.Map:
			if v.Type().Key().Kind() != reflect.String {
				return v, fmt.Errorf("the keys of %s are no strings", v.Type())
			}
			v = v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key()))
		case reflect.Invalid:
			return v, fmt.Errorf("there is nothing with a field %s", name)
		default:
			return v, fmt.Errorf("a %s has no field %s", v.Kind(), name)
		}
	}
	return v, nil
}

func call(f reflect.Value, args []reflect.Value) (reflect.Value, error) {
	t := f.Type()
	if len(args) < t.NumIn() && (!t.IsVariadic() || len(args) < t.NumIn()-1) || len(args) > t.NumIn() && !t.IsVariadic() {
		return f, fmt.Errorf("takes %d arguments, not %d", t.NumIn(), len(args))
	}
	in := make([]reflect.Value, len(args))
	for i, a := range args {
		var want reflect.Type
		if t.IsVariadic() && i >= t.NumIn()-1 {
			want = t.In(t.NumIn() - 1).Elem()
		} else {
			want = t.In(i)
		}
		var err error
		if in[i], err = argument(a, want); err != nil {
			return f, fmt.Errorf("argument %d: %w", i+1, err)
		}
	}
	out := f.Call(in)
	if len(out) == 2 && !out[1].IsNil() {
		if err, ok := out[1].Interface().(error); ok {
			return out[0], err
		}
	}
	return out[0], nil
}

// argument makes v one of the wanted type: strings and numbers are converted to others.
func argument(v reflect.Value, want reflect.Type) (reflect.Value, error) {
	if v.Kind() == reflect.Interface && want.Kind() != reflect.Interface {
		v = v.Elem()
	}
	if !v.IsValid() {
		return reflect.Zero(want), nil
	}
	if v.Type().AssignableTo(want) {
		return v, nil
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		return argument(v.Elem(), want)
	}
	if isNumber(v.Kind()) && isNumber(want.Kind()) || v.Kind() == reflect.String && want.Kind() == reflect.String {
		return v.Convert(want), nil
	}
	return v, fmt.Errorf("is a %s and must be a %s", v.Type(), want)
}

func isNumber(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Float64 }
