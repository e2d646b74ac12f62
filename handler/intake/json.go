package intake

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

var errNull = errors.New("null is not a value here: leave the field out")

// strict is how every body is read. The library itself refuses duplicate names,
// invalid UTF-8, trailing data and names in another case.
var strict = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, v any) error {
		kind := d.PeekKind()
		if kind == 'n' {
			return errNull
		}
		switch s, ok := v.(*string); {
		case ok && kind == '"':
			return readString(d, s)
		case kind == '[' && d.StackDepth() > 0 && isObject(v):
			return ReadEmptyList(d, "must be an object")
		}
		return errors.ErrUnsupported
	})),
)

// isObject says that v is read from an object, by the library's own rules.
func isObject(v any) bool {
	kind := reflect.TypeOf(v).Elem().Kind()
	_, own := v.(json.UnmarshalerFrom)
	return !own && (kind == reflect.Struct || kind == reflect.Map)
}

// ReadEmptyList reads a list in the place of an object. An empty one stands for an
// object without members: PHP writes its empty array so. Any other is an error, with
// that text.
func ReadEmptyList(d *jsontext.Decoder, otherwise string) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if d.PeekKind() != ']' {
		return errors.New(otherwise)
	}
	_, err := d.ReadToken()
	return err
}

// readString reads a string as the library does, several times faster
// where it holds escapes, and without leaving it to the garbage collector twice.
func readString(d *jsontext.Decoder, s *string) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	v = v[1 : len(v)-1]
	if bytes.IndexByte(v, '\\') < 0 {
		*s = string(v)
		return nil
	}
	b := newBuffer(len(v))
	b.data = appendUnescaped(b.data, v)
	*s = string(b.data)
	b.release()
	return nil
}

// escapes are what stands for one octet after a backslash (RFC 8259 §7).
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// appendUnescaped appends what the inside of a JSON string stands for. The
// decoder must have found it valid: every escape is whole, no surrogate lonely.
func appendUnescaped(dst, v []byte) []byte {
	for {
		i := bytes.IndexByte(v, '\\')
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(dst, v[:i]...)
		if v = v[i+1:]; v[0] != 'u' {
			dst = append(dst, escapes[v[0]])
			v = v[1:]
			continue
		}
		r := utf16Unit(v)
		v = v[len("uXXXX"):]
		if utf16.IsSurrogate(r) {
			r = utf16.DecodeRune(r, utf16Unit(v[len(`\`):]))
			v = v[len(`\uXXXX`):]
		}
		dst = utf8.AppendRune(dst, r)
	}
}

// utf16Unit reads uXXXX.
func utf16Unit(v []byte) (unit rune) {
	for _, c := range v[len("u"):len("uXXXX")] {
		digit := c - '0'
		if c >= 'A' {
			digit = c&^0x20 - 'A' + 10
		}
		unit = unit<<4 | rune(digit)
	}
	return unit
}

// Decode reads data into v as strictly as the native API. Its error is a
// [*problem.Error] that names the field, below the path given.
func Decode(data []byte, v any, path string) error {
	if err := json.Unmarshal(data, v, strict); err != nil {
		return JSONProblem(err, data, path)
	}
	return nil
}

// JSONProblem makes a problem of an error of the JSON library; base is the path of data
// in the request.
func JSONProblem(err error, data []byte, base string) *problem.Error {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		path := fieldPath(base, data, syntactic.JSONPointer)
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return problem.New(api.CodeDuplicateField, "", problem.At(path, "is given twice"))
		}
		return syntaxProblem(syntactic, data, path)
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return problem.New(api.CodeMalformedJSON, "")
	}
	path := fieldPath(base, data, semantic.JSONPointer)
	switch corrupt := base64.CorruptInputError(0); {
	case errors.Is(err, json.ErrUnknownName):
		return problem.New(api.CodeUnknownField, "", problem.At(path, "is not a field of this request"+nearest(semantic)))
	case errors.As(err, &corrupt) || semantic.JSONKind == '"' && semantic.GoType == reflect.TypeFor[[]byte]():
		return problem.New(api.CodeInvalidBase64, "", problem.At(path, "must be base64 with padding and without line breaks (RFC 4648 §4)"))
	case semantic.JSONKind == 0 && semantic.Err != nil:
		return problem.New(api.CodeWrongType, "", problem.At(path, semantic.Err.Error()))
	default:
		return problem.New(api.CodeWrongType, "", problem.At(path, "must be "+TypeName(semantic.GoType)))
	}
}

func syntaxProblem(err *jsontext.SyntacticError, data []byte, path string) *problem.Error {
	detail := fmt.Sprintf("There is a syntax error at octet %d.", err.ByteOffset)
	switch {
	case len(data) == 0:
		return problem.New(api.CodeMalformedJSON, "The body is empty.")
	case !utf8.Valid(data):
		detail = fmt.Sprintf("The body is not valid UTF-8: see octet %d.", err.ByteOffset)
	case err.ByteOffset >= int64(len(data)):
		detail = "The body ends in the middle of a value."
	case isSurrogate(data[err.ByteOffset:]):
		const half = "unpaired surrogate: half of a character, such as an emoji that was cut in two"
		detail = fmt.Sprintf("There is an unpaired surrogate at octet %d, %s.", err.ByteOffset, data[err.ByteOffset:][:len(`\uXXXX`)])
		return problem.New(api.CodeMalformedJSON, detail, problem.At(path, "has an "+half))
	}
	if path == "" {
		return problem.New(api.CodeMalformedJSON, detail)
	}
	return problem.New(api.CodeMalformedJSON, detail, problem.At(path, "has a syntax error in it or after it"))
}

// isSurrogate says that data begins with the escape of a surrogate (RFC 8259 §7).
func isSurrogate(data []byte) bool {
	if len(data) < len(`\uXXXX`) || data[0] != '\\' || data[1] != 'u' {
		return false
	}
	unit, err := strconv.ParseUint(string(data[len(`\u`):len(`\uXXXX`)]), 16, 16)
	return err == nil && utf16.IsSurrogate(rune(unit))
}

// nearest hints at the known name that an unknown one differs from by case only.
func nearest(err *json.SemanticError) string {
	name := err.JSONPointer.LastToken()
	if err.GoType == nil || err.GoType.Kind() != reflect.Struct {
		return ""
	}
	for i := range err.GoType.NumField() {
		known, _, _ := strings.Cut(err.GoType.Field(i).Tag.Get("json"), ",")
		if strings.EqualFold(known, name) {
			return "; names are case-sensitive: did you mean " + known + "?"
		}
	}
	return ""
}

// TypeName says what JSON a type is read from, such as "a list".
func TypeName(t reflect.Type) string {
	switch {
	case t == nil:
		return "of another type"
	case t == reflect.TypeFor[[]byte]():
		return "a base64 string"
	case t.Kind() == reflect.String:
		return "a string"
	case t.Kind() == reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}

// fieldPath writes a JSON pointer (RFC 6901) into data as people write a path:
// "attachments[0].content", "headers.X-Order".
func fieldPath(base string, data []byte, p jsontext.Pointer) string {
	path, items := base, listItems(data, p)
	for token := range p.Tokens() {
		switch {
		case len(items) > 0 && items[0]:
			path += "[" + token + "]"
		case path == "":
			path = token
		default:
			path += "." + token
		}
		if len(path) > problem.MaxPath {
			break // a long name is not copied for each name below it
		}
		items = items[min(1, len(items)):]
	}
	return problem.Cut(path)
}

// listItems says of each token of a pointer into data whether it is the place of an item
// in a list: a member of an object may have a number for its name. It reads each octet
// once, however deep the data is.
func listItems(data []byte, p jsontext.Pointer) (items []bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for token := range p.Tokens() {
		isList := d.PeekKind() == '['
		if _, err := d.ReadToken(); err != nil {
			break // the pointer is to what cannot be read
		}
		items = append(items, isList)
		if isList && !skipItems(d, token) || !isList && !skipMembers(d, token) {
			break
		}
	}
	return items
}

// skipItems reads up to an item of a list, whose place is given. It returns false where
// there is none.
func skipItems(d *jsontext.Decoder, place string) bool {
	n, err := strconv.Atoi(place)
	for ; err == nil && n > 0; n-- {
		err = d.SkipValue()
	}
	return err == nil
}

// skipMembers reads up to the value of an object's member. It returns false where there is
// none of that name.
func skipMembers(d *jsontext.Decoder, name string) bool {
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return false
		}
		if token.String() == name {
			return true
		}
		if d.SkipValue() != nil {
			return false
		}
	}
	return false
}
