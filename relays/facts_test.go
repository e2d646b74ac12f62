package relays

import (
	"reflect"
	"strconv"
	"strings"
)

// factSources returns where each fact of the relay is from, by its name in the file.
// Facts that are unknown are left out; one with a value and no source is there with "".
func factSources(p Preset) map[string]string {
	sources := map[string]string{}
	value := reflect.ValueOf(p)
	for i := range value.NumField() {
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		field := value.Field(i)
		if field.Kind() == reflect.Slice {
			for j := range field.Len() {
				addSource(sources, name+" "+strconv.Itoa(j+1), field.Index(j))
			}
			continue
		}
		addSource(sources, name, field)
	}
	return sources
}

// addSource notes the source of fact, if it is a [Fact] or a [User] that is known.
func addSource(sources map[string]string, name string, fact reflect.Value) {
	if fact.Kind() != reflect.Struct || fact.IsZero() {
		return
	}
	if source := fact.FieldByName("Source"); source.IsValid() && fact.Type() != reflect.TypeFor[Rule]() {
		sources[name] = source.String()
	}
}
