package markup

import (
	"errors"
	"fmt"
	"reflect"
)

// builtins are the functions of every template, beside and, or.
var builtins = Funcs{
	"not": func(v any) bool { return !truth(reflect.ValueOf(v)) },
	"eq":  equal,
	"ne": func(a, b any) (bool, error) {
		same, err := equal(a, b)
		return !same, err
	},
	"lt":     func(a, b float64) bool { return a < b },
	"le":     func(a, b float64) bool { return a <= b },
	"gt":     func(a, b float64) bool { return a > b },
	"ge":     func(a, b float64) bool { return a >= b },
	"add":    func(a, b int) int { return a + b },
	"printf": fmt.Sprintf,
	"len": func(v any) (int, error) {
		r := indirect(reflect.ValueOf(v))
		switch r.Kind() {
		case reflect.Invalid:
			return 0, nil
		case reflect.Slice, reflect.Array, reflect.Map, reflect.String:
			return r.Len(), nil
		default:
			return 0, fmt.Errorf("a %s has no length", r.Kind())
		}
	},
	"index": func(v, key any) (any, error) {
		r, k := indirect(reflect.ValueOf(v)), reflect.ValueOf(key)
		switch {
		case r.Kind() == reflect.Map && k.IsValid() && k.Kind() == reflect.String && r.Type().Key().Kind() == reflect.String:
			return valueOf(r.MapIndex(k.Convert(r.Type().Key()))), nil
		case r.Kind() == reflect.Slice && k.IsValid() && k.CanInt() && k.Int() >= 0 && k.Int() < int64(r.Len()):
			return valueOf(r.Index(int(k.Int()))), nil
		default:
			return nil, errors.New("there is no such item")
		}
	},
}

// equal reports whether a is one of the others. Numbers are compared with numbers, and
// strings with strings.
func equal(a any, others ...any) (bool, error) {
	for _, b := range others {
		x, y := indirect(reflect.ValueOf(a)), indirect(reflect.ValueOf(b))
		switch {
		case x.Kind() == reflect.String && y.Kind() == reflect.String:
			if x.String() == y.String() {
				return true, nil
			}
		case x.CanInt() && y.CanInt():
			if x.Int() == y.Int() {
				return true, nil
			}
		case x.Kind() == reflect.Bool && y.Kind() == reflect.Bool:
			if x.Bool() == y.Bool() {
				return true, nil
			}
		default:
			return false, fmt.Errorf("%T and %T cannot be compared", a, b)
		}
	}
	return false, nil
}
