package handler

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// This file reads JSON as the providers' own servers do. The providers' clients
// send null, [], {} and "" for what is absent: an empty PHP array is [], even
// where the API has an object. Everything else is as strict as the native API;
// a field that is not in the types is refused, for nobody knows what it asks.
//
// The types of a request are its documentation: a member of type ignored or
// refused is what its type says, any other is honoured, and the note tag says
// what is special. docs/provider-apis.md is made of them.

// ignored is a member that changes nothing for the recipients.
type ignored struct{ given bool }

// refused is a member that would change who gets what and when, and cannot be
// honoured.
type refused struct{ given bool }

// scalar is a string, or a number or boolean in its place.
type scalar string

// person is an address taken apart.
type person struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

func (p person) absent() bool { return p == person{} }

func (p person) address() mailer.Address { return mailer.Address{Name: p.Name, Email: p.Email} }

// pairs are an object's members in their order, with scalar values.
type pairs []mailer.Field

// texts are a list of strings, or a single one in its place.
type texts []string

// variables are values to put into a text, by name; a value inside an object or
// a list has a dotted name (order.items.0.name).
type variables struct {
	given  bool
	values []mailer.Field
}

// fileContent is an attachment's content in one of three encodings: base64,
// perhaps with line breaks; Node's {"type": "Buffer", "data": [37, 80]}; and a
// list of numbers, as Go makes of a []byte that is no []byte.
type fileContent struct {
	given bool
	data  []byte
}

// moment is a time in seconds since 1970, as a number or a string.
type moment struct{ time.Time }

var (
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

// decodeProvider reads data into v. Its error is a *problem.
func decodeProvider(data []byte, v any, path string, options ...json.Options) error {
	if err := json.Unmarshal(data, v, append([]json.Options{tolerant}, options...)...); err != nil {
		return intake.JSONProblem(err, data, path)
	}
	return nil
}

func (i *ignored) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	given, err := isGiven(d)
	i.given = given
	return err
}

func (r *refused) UnmarshalJSONFrom(d *jsontext.Decoder) error {
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

func (s *scalar) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	text, ok := scalarText(v)
	if !ok && !isEmpty(v) {
		return errNotScalar
	}
	*s = scalar(text)
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

func (p *pairs) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return emptyOr(d, errNotObject)
	}
	return eachMember(d, func(name string) error {
		if len(*p) == maxPairs {
			return errTooMany
		}
		var value scalar
		err := json.UnmarshalDecode(d, &value)
		*p = append(*p, mailer.Field{Name: name, Value: string(value)})
		return err
	})
}

func (t *texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '[':
		return json.UnmarshalDecode(d, (*[]string)(t))
	case '"':
		var text string
		if err := json.UnmarshalDecode(d, &text); err != nil {
			return err
		}
		if text != "" {
			*t = texts{text}
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

func (v *variables) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return emptyOr(d, errNotObject)
	}
	v.given = true
	return v.read(d, "")
}

// read reads one value, and what is inside it, under the name.
func (v *variables) read(d *jsontext.Decoder, name string) error {
	if len(v.values) > maxVariables || len(name) > maxVariable {
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
		v.values = append(v.values, mailer.Field{Name: name, Value: text})
		return nil
	}
}

func (c *fileContent) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '"':
		return c.readBase64(d)
	case '[':
		c.given = true
		return c.readOctets(d)
	case '{':
		return c.readBuffer(d)
	default:
		return emptyOr(d, errNotContent)
	}
}

func (c *fileContent) readBase64(d *jsontext.Decoder) error {
	var text string
	if err := json.UnmarshalDecode(d, &text); err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\t", "").Replace(text))
	if err != nil {
		return errNotBase64
	}
	c.given, c.data = true, data
	return nil
}

// readOctets does without a decoder for each number: there are millions.
func (c *fileContent) readOctets(d *jsontext.Decoder) error {
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
		c.data = append(c.data, byte(n))
	}
	_, err := d.ReadToken()
	return err
}

func (c *fileContent) readBuffer(d *jsontext.Decoder) error {
	isBuffer := false
	err := eachMember(d, func(name string) error {
		switch {
		case name == "type":
			var kind scalar
			err := json.UnmarshalDecode(d, &kind)
			isBuffer = kind == "Buffer"
			return err
		case name == "data" && d.PeekKind() == '[':
			c.given = true
			return c.readOctets(d)
		default:
			return errNotContent
		}
	})
	if err == nil && !isBuffer && c.given {
		return errNotContent
	}
	return err
}

func (m *moment) UnmarshalJSONFrom(d *jsontext.Decoder) error {
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

// treatment is what becomes of a member of a request.
type treatment string

const (
	honoured    treatment = "honoured"
	isIgnored   treatment = "ignored"
	isRefused   treatment = "refused"
	noteRefused           = "is not supported here"
)

// member is one member of a request's type, or of a value of it.
type member struct {
	path      string
	treatment treatment
	note      string
	given     bool // in the value
}

var ownTypes = map[reflect.Type]treatment{
	reflect.TypeFor[ignored]():     isIgnored,
	reflect.TypeFor[refused]():     isRefused,
	reflect.TypeFor[variables]():   honoured,
	reflect.TypeFor[fileContent](): honoured,
	reflect.TypeFor[moment]():      honoured,
}

// eachField visits every ignored and refused member of a decoded request.
func eachField(v reflect.Value, path string, visit func(member)) {
	switch v.Kind() {
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct && v.Type() != reflect.TypeFor[pairs]() {
			for i := range v.Len() {
				eachField(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := strings.TrimPrefix(path+"."+f.Tag.Get("json"), ".")
			switch t := ownTypes[f.Type]; t {
			case isIgnored, isRefused:
				visit(member{name, t, f.Tag.Get("note"), v.Field(i).Field(0).Bool()})
			case "":
				eachField(v.Field(i), name, visit)
			default: // honoured as a whole
			}
		}
	default:
	}
}

// judgeFields refuses the refused members of a decoded request, and returns the
// names of those that are ignored.
func judgeFields(v any) (notHonoured []string, err error) {
	var bad []mailer.FieldError
	eachField(reflect.Indirect(reflect.ValueOf(v)), "", func(m member) {
		switch {
		case !m.given || len(bad) == maxRefusals:
		case m.treatment == isIgnored:
			notHonoured = append(notHonoured, m.path)
		default:
			bad = append(bad, problem.At(m.path, orText(m.note, noteRefused)))
		}
	})
	if len(bad) > 0 {
		return nil, problem.New(api.CodeInvalidMessage, "", bad...)
	}
	return notHonoured, nil
}

func orText(text, byDefault string) string {
	if text == "" {
		return byDefault
	}
	return text
}
