package compattest

import (
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/compat"
)

// Documented lists the fields of a request, those inside another after it.
func Documented(d compat.RequestDoc) []compat.FormField {
	if list, ok := d.Fields.([]compat.FormField); ok {
		return slices.Clone(list)
	}
	if d.Fields == nil {
		return nil
	}
	return fieldsOf(reflect.TypeOf(d.Fields), "")
}

func fieldsOf(t reflect.Type, path string) []compat.FormField {
	var all []compat.FormField
	for i := range t.NumField() {
		f := t.Field(i)
		name := strings.TrimPrefix(path+"."+f.Tag.Get("json"), ".")
		all = append(all, compat.FormField{Name: name, Treatment: treatment(f.Type), Note: f.Tag.Get("note")})
		inner, name := f.Type, name
		if inner.Kind() == reflect.Slice && !readsItself(inner) {
			inner, name = inner.Elem(), name+"[]"
		}
		if inner.Kind() == reflect.Struct && !readsItself(inner) && inner != reflect.TypeFor[compat.Person]() {
			all = append(all, fieldsOf(inner, name)...)
		}
	}
	return all
}

func treatment(t reflect.Type) compat.Treatment {
	switch t {
	case reflect.TypeFor[compat.Ignored]():
		return compat.IsIgnored
	case reflect.TypeFor[compat.Refused]():
		return compat.IsRefused
	default:
		return compat.Honoured
	}
}

// readsItself says whether values of the type are one field.
func readsItself(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.UnmarshalerFrom]())
}
