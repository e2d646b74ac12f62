package config

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"mailsidecar/files"
	"mailsidecar/units"
)

// nowhere is a name that no environment can hold: envconfig, asked for it,
// falls back to the default.
const nowhere = "="

// variable is one field of [Relay], [Service] or [Client] under the name it is
// read from. The field's tags:
//
//	env      the name without the prefix; a field without it is not read
//	alias    another name without the prefix, read when the first is not set
//	group    on a nested struct: its variables' names begin with it, too
//	default  as one would write it in the environment
//	unset    what happens without a value, in words, where there is no default
//	oneof    the only values, separated by blanks
//	min, max the limits of a number, size or duration, inclusive
//	lines    the secret may have several lines
//	twin     "no": the secret has no _FILE twin of the common kind; "yes": a value
//	         that is no secret has one
//	desc     documentation: what and in which unit
//	note     documentation: why to change it, and the caveat
type variable struct {
	name  string // SMTP2_PORTS
	alias string // SMTP2_PORT, else empty
	field reflect.StructField
	value reflect.Value
}

// variables yields the fields of spec, a pointer to one of the structs. A list of them
// would have ten times as many octets as the struct, and the start asks twenty times.
func variables(prefix string, spec any) iter.Seq[variable] {
	return func(yield func(variable) bool) { gather(prefix, reflect.ValueOf(spec).Elem(), yield) }
}

// gather reports whether yield wants more.
func gather(prefix string, spec reflect.Value, yield func(variable) bool) bool {
	for i := range spec.NumField() {
		field := spec.Type().Field(i)
		if group := field.Tag.Get("group"); group != "" && !gather(prefix+"_"+group, spec.Field(i), yield) {
			return false
		}
		env, ok := field.Tag.Lookup("env")
		if !ok {
			continue
		}
		v := variable{name: prefix + "_" + env, field: field, value: spec.Field(i)}
		if alias := field.Tag.Get("alias"); alias != "" {
			v.alias = prefix + "_" + alias
		}
		if !yield(v) {
			return false
		}
	}
	return true
}

func (v variable) tag(key string) string { return v.field.Tag.Get(key) }

func (v variable) secret() bool { return v.field.Type == reflect.TypeFor[Secret]() }

// twin is the name of the variable that names a file with the secret; empty
// when there is none.
func (v variable) twin() string {
	if !v.secret() && v.tag("twin") != "yes" || v.tag("twin") == "no" {
		return ""
	}
	return v.name + "_FILE"
}

// names lists everything the variable is called.
func (v variable) names() []string {
	names := []string{v.name}
	for _, n := range []string{v.alias, v.twin()} {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// text is the value as one would write it, secrets redacted.
func (v variable) text() string {
	text := fmt.Sprint(v.value.Interface())
	if strings.HasSuffix(v.name, "_FILE") && text != "" {
		return files.Shown(text)
	}
	if v.tag("oneof") != "" {
		text = strings.ToLower(text) // slog.Level prints as INFO
	}
	return text
}

// decode has envconfig read the environment's variable called key, or take def
// when there is none.
//
// Each field is read alone, as the only one of a struct made for it: envconfig
// stops at the first value it cannot convert, and we want them all reported.
// The name is given in full: with a prefix, envconfig would read the name
// without it as well, and SMTP_HOST would silently come from HOST.
func (v variable) decode(key, def string) error {
	tag := fmt.Sprintf("envconfig:%q default:%q", key, def)
	one := reflect.New(reflect.StructOf([]reflect.StructField{
		{Name: v.field.Name, Type: v.field.Type, Tag: reflect.StructTag(tag)},
	}))
	err := envconfig.Process("", one.Interface())
	if parse, ok := errors.AsType[*envconfig.ParseError](err); ok {
		return parse.Err // the ParseError itself prints the value
	}
	if err != nil {
		return err
	}
	v.value.Set(one.Elem().Field(0))
	if v.value.Kind() == reflect.String {
		v.value.SetString(strings.TrimSpace(v.value.String()))
	}
	return nil
}

// bound decodes the value of a min or max tag.
func (v variable) bound(text string) int64 {
	v.value = reflect.New(v.field.Type).Elem()
	_ = v.decode(nowhere, text)
	return v.value.Int()
}

// reader gathers values, where they came from, and what is wrong with them.
type reader struct {
	getenv   func(string) string
	environ  []string          // all of the environment, sorted
	sources  map[string]Source // by name
	failed   map[string]bool   // names with a problem
	problems []Problem
	warnings []string
}

func newReader(getenv func(string) string, environ []string) *reader {
	return &reader{getenv: getenv, environ: slices.Sorted(slices.Values(environ)), sources: map[string]Source{}, failed: map[string]bool{}}
}

// problem records what is wrong with a variable. Only the first counts: the
// others would mostly be its consequences.
func (r *reader) problem(name, what, remedy string) {
	if !r.failed[name] {
		r.problems = append(r.problems, Problem{name, what, remedy})
	}
	r.failed[name] = true
}

// reject records what is wrong with v, which was read under another name.
func (r *reader) reject(v variable, name string, bad *invalid) {
	r.problem(name, bad.what, bad.remedy)
	r.failed[v.name] = true
}

func (r *reader) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return &Error{r.problems}
}

// get is getenv without blank values, and without what Kubernetes puts into the
// environment of every pod beside a Service named "smtp".
func (r *reader) get(name string) string {
	value := r.getenv(name)
	if strings.TrimSpace(value) == "" || injected(name, value) {
		return ""
	}
	return value
}

// anySet reports whether the environment has any variable of spec.
func (r *reader) anySet(prefix string, spec any) bool {
	for v := range variables(prefix, spec) {
		for _, name := range v.names() {
			if r.get(name) != "" {
				return true
			}
		}
	}
	return false
}

// read fills spec from the environment.
func (r *reader) read(prefix string, spec any) {
	for v := range variables(prefix, spec) {
		if twin := v.twin(); twin != "" && r.get(twin) != "" {
			r.readFile(v, twin)
			continue
		}
		r.readVariable(v)
	}
}

func (r *reader) readFile(v variable, twin string) {
	if r.get(v.name) != "" {
		r.reject(v, twin, &invalid{"is set and so is " + v.name, "set only one of them"})
		return
	}
	if bad := checkName(twin, r.get(twin)); bad != nil {
		r.reject(v, twin, bad)
		return
	}
	secret, bad := readSecretFile(r.get(twin))
	if bad == nil {
		if bad = checkText(secret.Reveal(), v.tag("lines") != ""); bad != nil {
			bad.what = "names a file that " + bad.what
		}
	}
	if bad != nil {
		r.reject(v, twin, bad)
		return
	}
	if !v.secret() {
		if err := v.value.Addr().Interface().(envconfig.Decoder).Decode(secret.Reveal()); err != nil {
			r.reject(v, twin, v.explain(err, ""))
			return
		}
		r.sources[v.name] = FromFile
		return
	}
	v.value.Set(reflect.ValueOf(secret))
	r.sources[v.name] = FromFile
}

func (r *reader) readVariable(v variable) {
	if err := v.decode(nowhere, v.tag("default")); err != nil {
		panic(v.name + ": the default: " + err.Error()) // a test reads every default
	}
	key := r.key(v)
	if key == "" {
		r.sources[v.name] = FromDefault
		return
	}
	r.sources[v.name] = FromVariable
	if isQuoted(r.get(key)) {
		r.warn("%s begins and ends with a quote, which docker --env-file keeps as part of the value", key)
	}
	if bad := v.set(key, r.get(key)); bad != nil {
		r.reject(v, key, bad)
	}
}

func isQuoted(s string) bool {
	return len(s) > 1 && s[0] == s[len(s)-1] && (s[0] == '"' || s[0] == '\'')
}

// key is the name under which the variable is set: its own, its alias, or none.
func (r *reader) key(v variable) string {
	own, alias := r.get(v.name), ""
	if v.alias != "" {
		alias = r.get(v.alias)
	}
	switch {
	case own != "" && alias != "" && own != alias:
		r.problem(v.alias, "is set beside "+v.name+" and differs", "set only "+v.name)
		return v.name
	case own == "" && alias != "":
		return v.alias
	case own == "":
		return ""
	default:
		return v.name
	}
}

// set decodes the value of key in the environment, and checks
// what the tags say of it.
func (v variable) set(key, raw string) *invalid {
	if bad := checkName(key, raw); bad != nil {
		return bad
	}
	if !v.secret() {
		if bad := checkText(raw, false); bad != nil {
			return bad
		}
	}
	if choices := v.tag("oneof"); choices != "" && !oneOf(choices, raw) {
		// What stands there is not shown: SMTP_AUTH attracts passwords.
		return &invalid{"has no value we know", "set one of " + strings.Join(strings.Fields(choices), ", ")}
	}
	if err := v.decode(key, ""); err != nil {
		return v.explain(err, raw)
	}
	switch {
	case v.secret():
		secret := v.value.Interface().(Secret)
		return checkText(secret.Reveal(), v.tag("lines") != "")
	case v.tag("oneof") != "" && v.value.Kind() == reflect.String:
		v.value.SetString(strings.ToLower(v.value.String()))
	}
	return v.checkBounds()
}

func oneOf(choices, raw string) bool {
	for _, choice := range strings.Fields(choices) {
		if strings.EqualFold(choice, raw) {
			return true
		}
	}
	return false
}

// explain turns a decoder's error into the two halves of a problem.
func (v variable) explain(err error, raw string) *invalid {
	if bad, ok := errors.AsType[*invalid](err); ok {
		return bad
	}
	if bad, ok := errors.AsType[*units.Error](err); ok {
		return &invalid{bad.What(), bad.Remedy()}
	}
	switch v.value.Kind() {
	case reflect.Bool:
		return &invalid{"is " + units.Quote(raw) + ", which is neither true nor false", "set true or false"}
	case reflect.Int:
		return &invalid{"is " + units.Quote(raw) + ", which is no whole number", "set a number in digits"}
	default:
		return &invalid{"cannot be read", "see --help"}
	}
}

func (v variable) checkBounds() *invalid {
	if low := v.tag("min"); low != "" && v.value.Int() < v.bound(low) {
		return &invalid{"is " + v.text() + ", which is too low", "set " + low + " or more"}
	}
	if high := v.tag("max"); high != "" && v.value.Int() > v.bound(high) {
		return &invalid{"is " + v.text() + ", which is too high", "set " + high + " or less"}
	}
	return nil
}
