package compat

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

// Required is what every provider says of a field that is missing.
const Required = "is required"

// Fields collects what is wrong with the fields of a provider's request.
type Fields struct {
	problem.FieldErrors
	addresses int // read so far
}

// maxAddresses is how many addresses the lists of a request may have that are written
// as texts.
const maxAddresses = 10_000

var errTooManyAddresses = fmt.Errorf("more than %d addresses", maxAddresses)

// ParseList reads a comma-separated list of addresses, and counts them.
func (f *Fields) ParseList(text string) ([]mailer.Address, error) {
	if f.addresses > maxAddresses {
		return nil, errTooManyAddresses
	}
	list, err := ParseAddresses(text)
	if f.addresses += len(list); f.addresses > maxAddresses {
		return nil, errTooManyAddresses
	}
	return list, err
}

// List reads a comma-separated list of addresses, which is at path.
func (f *Fields) List(path, text string) []mailer.Address {
	list, err := f.ParseList(text)
	if err != nil {
		f.AddAddress(path, err)
	}
	return list
}

// ParseAddresses reads a list of addresses, or a single one whose name has a
// comma and no quotes, as Symfony sends it.
func ParseAddresses(text string) ([]mailer.Address, error) {
	text = unfold(text)
	list, err := mailer.ParseAddressList(text)
	if err == nil {
		return list, nil
	}
	open := strings.LastIndexByte(text, '<')
	if open < 0 || !strings.HasSuffix(text, ">") || strings.ContainsAny(text[:open], `<>@"`) {
		return nil, err
	}
	name, email := text[:open], text[open+1:len(text)-1]
	a, soleErr := mailer.ParseAddress(email)
	if soleErr != nil {
		return nil, err
	}
	return []mailer.Address{{Name: strings.TrimSpace(name), Email: a.Email}}, nil
}

// Lists reads addresses, each text one or a list of them.
func (f *Fields) Lists(field string, list Texts) []mailer.Address {
	var all []mailer.Address
	for _, text := range list {
		if strings.TrimSpace(text) != "" {
			all = append(all, f.List(field, text)...)
		}
	}
	return all
}

// People are the addresses of a list.
func People(list []Person) []mailer.Address {
	var all []mailer.Address
	for _, p := range list {
		all = append(all, p.Address())
	}
	return all
}

// Overridden merges two lists; a later value replaces the one of that name. own says of
// each place whether what stands there is of more; the others are at the places that they
// have in base.
func Overridden(base, more Pairs) (merged []mailer.Field, own []bool) {
	if len(more) == 0 {
		return slices.Clone([]mailer.Field(base)), make([]bool, len(base))
	}
	merged, own = make([]mailer.Field, 0, len(base)+len(more)), make([]bool, len(base), len(base)+len(more))
	places := make(map[string]int, len(base)+len(more)) // of the first field of each name
	for i, fields := range []Pairs{base, more} {
		for _, f := range fields {
			key := strings.ToLower(f.Name)
			place, known := places[key]
			switch {
			case known && i > 0:
				merged[place], own[place] = f, true
				continue
			case !known:
				places[key] = len(merged)
			}
			if merged = append(merged, f); i > 0 {
				own = append(own, true)
			}
		}
	}
	return merged, own
}

// PersonPath is the path of what is wrong with a person that is at a path: the name, or
// else the address.
func PersonPath(path string, at mailer.Position) string {
	return path + "." + cmp.Or(at.Member, "email")
}

var placeInList = regexp.MustCompile(`\[(\d+)\]`)

// Dotted writes a path of ours, to[1].email, as most providers do: to.1.email.
func Dotted(path string) string {
	return strings.TrimPrefix(placeInList.ReplaceAllString(path, ".$1"), ".")
}
