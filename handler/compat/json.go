package compat

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// This file reads JSON as the providers' own servers do. The providers' clients
// send null, [], {} and "" for an absent value: an empty PHP array is [], even
// where the API has an object. Everything else is as strict as the native API;
// a field that is not in the types is refused, because its meaning is not known.
//
// The types of a request are its documentation: a member of type ignored or
// refused is what its type says, any other is honoured, and the note tag says
// more. docs/provider-apis.md is made of them.

// Ignored is a member that changes nothing for the recipients.
type Ignored struct{ given bool }

// Refused is a member that cannot be honoured and would change the recipients, the
// content or the time.
type Refused struct{ given bool }

// Scalar is a string, or a number or boolean in its place.
type Scalar string

// Person is an address taken apart.
type Person struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

// Absent reports whether the request has no such person.
func (p Person) Absent() bool { return p == Person{} }

// Address is the person as mail has it.
func (p Person) Address() mailer.Address { return mailer.Address{Name: p.Name, Email: p.Email} }

// Pairs are an object's members in their order, with scalar values.
type Pairs []mailer.Field

// Texts are a list of strings, or a single one in its place.
type Texts []string

// Variables are values to put into a text, by name; a value inside an object or
// a list has a dotted name (order.items.0.name).
type Variables struct {
	Given  bool
	Values []mailer.Field
}

// FileContent is an attachment's content in one of three encodings: base64,
// perhaps with line breaks; Node's {"type": "Buffer", "data": [37, 80]}; and a
// list of numbers, as Go makes of a []byte that is no []byte.
type FileContent struct {
	Given bool
	Data  []byte
}

// Moment is a time in seconds since 1970, as a number or a string.
type Moment struct{ time.Time }

var (
	errNotPairs   = errors.New("must be an object of strings")
	errNotTexts   = errors.New("must be a string or a list of strings")
	errNotScalar  = errors.New("must be a string")
	errNotBase64  = errors.New("must be valid base64")
	errNotContent = errors.New("must be base64, a Buffer or a list of octets")
	errNotMoment  = errors.New("must be a time in seconds since 1970")
)

var tolerant = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithUnmarshalers(json.UnmarshalFromFunc(emptyIsAbsent)),
)

// emptyIsAbsent leaves v alone where the input has an empty value of another
// kind than v's.
func emptyIsAbsent(d *jsontext.Decoder, v any) error {
	kind := d.PeekKind()
	_, own := v.(json.UnmarshalerFrom)
	if _, any := v.(*jsontext.Value); own || any || kind == 0 {
		return errors.ErrUnsupported
	}
	wanted := reflect.TypeOf(v).Elem()
	switch wanted.Kind() {
	case reflect.Slice:
		if kind == '[' {
			return errors.ErrUnsupported
		}
	case reflect.Struct, reflect.Map:
		if kind == '{' {
			return errors.ErrUnsupported
		}
	default:
		if kind != '[' && kind != '{' && (kind != '"' || wanted.Kind() == reflect.String) {
			return errors.ErrUnsupported
		}
	}
	value, err := d.ReadValue()
	if err == nil && !isEmpty(value) {
		return errors.New("must be " + intake.TypeName(wanted))
	}
	return err
}

// isEmpty reports whether a value stands for an absent one.
func isEmpty(v jsontext.Value) bool {
	switch v.Kind() {
	case 'n':
		return true
	case '"':
		return len(v) == 2
	case '[', '{':
		return strings.TrimSpace(string(v[1:len(v)-1])) == ""
	default:
		return false
	}
}

// Decode reads data into v. Its error is a [*problem.Error].
func Decode(data []byte, v any, path string, options ...json.Options) error {
	if err := json.Unmarshal(data, v, append([]json.Options{tolerant}, options...)...); err != nil {
		return intake.JSONProblem(err, data, path)
	}
	return nil
}

// UnmarshalJSONFrom reads the member as the providers' servers do.
func (i *Ignored) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	given, err := isGiven(d)
	i.given = given
	return err
}

// UnmarshalJSONFrom reads the member as the providers' servers do.
func (r *Refused) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	given, err := isGiven(d)
	r.given = given
	return err
}

// isGiven reads the next value; empty, false and 0 are not given.
func isGiven(d *jsontext.Decoder) (bool, error) {
	v, err := d.ReadValue()
	if err != nil {
		return false, err
	}
	return !isEmpty(v) && v.Kind() != 'f' && string(v) != "0", nil
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (s *Scalar) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	text, ok := scalarText(v)
	if !ok && !isEmpty(v) {
		return errNotScalar
	}
	*s = Scalar(text)
	return nil
}

// scalarText is a string's value, a number or boolean as it was written.
func scalarText(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(nil, v)
		return string(text), err == nil
	case '0', 't', 'f':
		return string(v), true
	default:
		return "", false
	}
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (p *Pairs) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return emptyOr(d, errNotPairs)
	}
	return eachMember(d, func(name string) error {
		if len(*p) == MaxPairs {
			return errTooMany
		}
		var value Scalar
		err := json.UnmarshalDecode(d, &value)
		*p = append(*p, mailer.Field{Name: name, Value: string(value)})
		return err
	})
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (t *Texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '[':
		return json.UnmarshalDecode(d, (*[]string)(t))
	case '"':
		var text string
		if err := json.UnmarshalDecode(d, &text); err != nil {
			return err
		}
		if text != "" {
			*t = Texts{text}
		}
		return nil
	default:
		return emptyOr(d, errNotTexts)
	}
}

// emptyOr reads a value that must be empty, or else is wrong.
func emptyOr(d *jsontext.Decoder, wrong error) error {
	v, err := d.ReadValue()
	if err == nil && !isEmpty(v) {
		return wrong
	}
	return err
}

// eachMember reads an object; read must read the value that goes with the name.
func eachMember(d *jsontext.Decoder, read func(name string) error) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := read(name.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (v *Variables) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return emptyOr(d, errNotPairs)
	}
	v.Given = true
	return v.read(d, "")
}

// read reads one value, and what is inside it, under the name.
func (v *Variables) read(d *jsontext.Decoder, name string) error {
	if len(v.Values) > maxVariables || len(name) > maxVariable {
		return errTooMany
	}
	below := func(member string) error {
		if name == "" {
			return v.read(d, member)
		}
		return v.read(d, name+"."+member)
	}
	switch d.PeekKind() {
	case '{':
		return eachMember(d, below)
	case '[':
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		for i := 0; d.PeekKind() != ']'; i++ {
			if err := below(strconv.Itoa(i)); err != nil {
				return err
			}
		}
		_, err := d.ReadToken()
		return err
	default:
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		text, _ := scalarText(value) // null is no text
		v.Values = append(v.Values, mailer.Field{Name: name, Value: text})
		return nil
	}
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (c *FileContent) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '"':
		return c.readBase64(d)
	case '[':
		c.Given = true
		return c.readOctets(d)
	case '{':
		return c.readBuffer(d)
	default:
		return emptyOr(d, errNotContent)
	}
}

func (c *FileContent) readBase64(d *jsontext.Decoder) error {
	var text string
	if err := json.UnmarshalDecode(d, &text); err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\t", "").Replace(text))
	if err != nil {
		return errNotBase64
	}
	c.Given, c.Data = true, data
	return nil
}

// readOctets does without a decoder for each number: there are millions.
func (c *FileContent) readOctets(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		n := -1.0
		if token.Kind() == '0' {
			n, _ = token.Float()
		}
		if n < 0 || n > math.MaxUint8 || n != math.Trunc(n) {
			return errNotContent
		}
		c.Data = append(c.Data, byte(n))
	}
	_, err := d.ReadToken()
	return err
}

func (c *FileContent) readBuffer(d *jsontext.Decoder) error {
	isBuffer := false
	err := eachMember(d, func(name string) error {
		switch {
		case name == "type":
			var kind Scalar
			err := json.UnmarshalDecode(d, &kind)
			isBuffer = kind == "Buffer"
			return err
		case name == "data" && d.PeekKind() == '[':
			c.Given = true
			return c.readOctets(d)
		default:
			return errNotContent
		}
	})
	if err == nil && !isBuffer && c.Given {
		return errNotContent
	}
	return err
}

// UnmarshalJSONFrom reads the value as the providers' servers do.
func (m *Moment) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil || isEmpty(v) {
		return err
	}
	text, ok := scalarText(v)
	seconds, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || seconds < 0 || seconds > math.MaxInt32*100 {
		return errNotMoment
	}
	if seconds != 0 {
		m.Time = time.Unix(seconds, 0)
	}
	return nil
}

// Treatment is what becomes of a member of a request.
type Treatment string

const (
	Honoured    Treatment = "honoured"
	IsIgnored   Treatment = "ignored"
	IsRefused   Treatment = "refused"
	noteRefused           = "is not supported here"
)

var ownTypes = map[reflect.Type]Treatment{
	reflect.TypeFor[Ignored]():     IsIgnored,
	reflect.TypeFor[Refused]():     IsRefused,
	reflect.TypeFor[Variables]():   Honoured,
	reflect.TypeFor[FileContent](): Honoured,
	reflect.TypeFor[Moment]():      Honoured,
}

// judged is a member of a request's type that is ignored or refused, or has such a
// member inside it.
type judged struct {
	index      int
	name, note string
	treatment  Treatment // empty: see inside
}

// judgedMembers has the judged members of each type that was asked for.
var judgedMembers sync.Map

// judgedIn returns the judged members of a type: none of one that is no struct.
func judgedIn(t reflect.Type) []judged {
	if known, ok := judgedMembers.Load(t); ok {
		return known.([]judged)
	}
	var all []judged
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		f := t.Field(i)
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		switch treatment := ownTypes[f.Type]; {
		case treatment == IsIgnored || treatment == IsRefused || treatment == "" && len(judgedIn(inner)) > 0:
			all = append(all, judged{i, f.Tag.Get("json"), f.Tag.Get("note"), treatment})
		default: // honoured as a whole
		}
	}
	judgedMembers.Store(t, all)
	return all
}

// place is where in a request a value is. Its path is written only where it is needed.
type place struct {
	around *place // nil for the request itself
	name   string // empty for an item of a list
	item   int
}

func (p *place) path() string {
	switch {
	case p == nil:
		return ""
	case p.name == "":
		return fmt.Sprintf("%s[%d]", p.around.path(), p.item)
	default:
		return strings.TrimPrefix(p.around.path()+"."+p.name, ".")
	}
}

// eachJudged visits the ignored and refused members that a decoded request has.
func eachJudged(v reflect.Value, at *place, visit func(*place, judged)) {
	if v.Kind() == reflect.Slice {
		if len(judgedIn(v.Type().Elem())) == 0 {
			return
		}
		for i := range v.Len() {
			eachJudged(v.Index(i), &place{around: at, item: i}, visit)
		}
		return
	}
	for _, m := range judgedIn(v.Type()) {
		here := &place{around: at, name: m.name}
		switch field := v.Field(m.index); {
		case m.treatment == "":
			eachJudged(field, here, visit)
		case field.Field(0).Bool():
			visit(here, m)
		}
	}
}

// judgeFields refuses the refused members of a decoded request, and returns the
// names of those that are ignored: of both the first fifty.
func judgeFields(v any) (notHonoured []string, err error) {
	var f Fields
	eachJudged(reflect.Indirect(reflect.ValueOf(v)), nil, func(at *place, m judged) {
		switch {
		case m.treatment == IsIgnored && len(notHonoured) < problem.MaxFields:
			notHonoured = append(notHonoured, at.path())
		case m.treatment == IsRefused && !f.Full():
			f.Add(at.path(), cmp.Or(m.note, noteRefused))
		}
	})
	return notHonoured, f.Err()
}
