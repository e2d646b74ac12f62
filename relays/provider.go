package relays

import (
	"cmp"
	"slices"
	"strings"
)

// Provider is what SMTP_PROVIDER names: a relay, and perhaps one of its regions.
type Provider struct {
	Preset        // Host is that of the region; empty where the relay needs one and none is named
	Region string // as [Region.Name]; empty where none is named
	// Guessed reports whether the region is unknown: its host follows the pattern of the
	// others.
	Guessed bool
}

// NameError says that a text names no relay of the table, or no region of one.
type NameError struct {
	// Preset is the relay whose region is unknown. Its name is empty where the relay is.
	Preset Preset
	Region string
	// Near are the names that were probably meant, best first. For a region, all that
	// there are.
	Near []string
}

func (e *NameError) Error() string {
	if e.Preset.Name == "" {
		return "no relay of that name is known"
	}
	return e.Preset.Title + " has no region of that name"
}

// ProviderNamed returns what text stands for: the name or an alias of a relay, after
// which a colon and a region may stand, as in "zoho:eu". Case, blanks, hyphens,
// underscores and dots do not count. Anything else is a [*NameError].
func ProviderNamed(text string) (Provider, error) {
	name, region, _ := strings.Cut(text, ":")
	region = strings.TrimSpace(region)
	for _, p := range knowledge() {
		if p.isNamed(name) {
			return p.provider(region)
		}
		for _, r := range p.Regions {
			if region == "" && isAny(r.Aliases, name) {
				return p.provider(r.Name)
			}
		}
	}
	return Provider{}, &NameError{Near: namesNear(name)}
}

// provider returns the preset with the host of that region.
func (p Preset) provider(region string) (Provider, error) {
	if region == "" {
		return Provider{Preset: p}, nil
	}
	for _, r := range p.Regions {
		if isAny([]string{r.Name}, region) {
			p.Host = r.Host
			return Provider{Preset: p, Region: r.Name}, nil
		}
	}
	if region = strings.ToLower(region); p.Regional() && isLabel(region) {
		return Provider{Preset: p.InRegion(region), Region: region, Guessed: true}, nil
	}
	e := &NameError{Preset: p, Region: region}
	for _, r := range p.Regions {
		e.Near = append(e.Near, p.Name+":"+r.Name)
	}
	return Provider{}, e
}

func (p Preset) isNamed(name string) bool {
	return isAny([]string{p.Name}, name) || isAny(p.Aliases, name)
}

// isAny reports whether name is one of names, in the form that names are compared in.
func isAny(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return plainName(n) == plainName(name) })
}

// plainName brings a name into the form that names are compared in: "Amazon SES",
// "amazon-ses" and "amazon_ses" are one.
func plainName(name string) string {
	return strings.ToLower(strings.Map(func(c rune) rune {
		if strings.ContainsRune(" -_.", c) {
			return -1
		}
		return c
	}, name))
}

// isLabel reports whether s may stand in a host name, as one label of it.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[len(s)-1] != '-'
}

// maxNear is how many names are suggested, and maxNameLength how long a name may be for
// that.
const (
	maxNear       = 3
	maxNameLength = 40
)

// namesNear returns the relays whose name or alias is like name: begins with it, or
// differs in a third of the letters at most. Best first.
func namesNear(name string) []string {
	given := strings.ToLower(strings.TrimSpace(name))
	name = plainName(name)
	if len(name) < 2 || len(name) > maxNameLength || len(given) > 2*maxNameLength {
		return nil
	}
	if meant := nameMeant(given); meant != "" {
		return []string{meant}
	}
	type candidate struct {
		name     string
		mistakes int
	}
	var all []candidate
	for _, p := range knowledge() {
		best := len(name)
		for alias := range p.names() {
			best = min(best, nameMistakes(name, plainName(alias)))
		}
		if best <= max(1, len(name)/3) {
			all = append(all, candidate{p.Name, best})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.mistakes, b.mistakes) })
	var names []string
	for _, c := range all[:min(maxNear, len(all))] {
		names = append(names, c.name)
	}
	return names
}

// nameMeant returns the name that another form of it surely stands for: a region without
// its colon, as in zoho-eu; a host, or the domain of a relay or of its mailboxes, as in
// gmail.com. Empty where there is none.
func nameMeant(given string) string {
	for i, c := range given {
		if strings.ContainsRune(" -_.", c) {
			if name := regionMeant(given[:i], given[i+1:]); name != "" {
				return name
			}
		}
	}
	for _, host := range []string{given, "smtp." + given} {
		if p, ok := PresetFor(host); ok {
			return p.Name
		}
	}
	if i := strings.LastIndexByte(given, '.'); i > 0 {
		if p, ok := find(func(p *Preset) bool { return p.isNamed(given[:i]) }); ok {
			return p.Name
		}
	}
	return ""
}

// regionMeant returns the name of a relay's region; empty where the words are none.
func regionMeant(name, region string) string {
	for _, p := range knowledge() {
		if !p.isNamed(name) {
			continue
		}
		for _, r := range p.Regions {
			if isAny([]string{r.Name}, region) {
				return p.Name + ":" + r.Name
			}
		}
	}
	return ""
}

// nameMistakes counts the letters of name that are wrong. A beginning of three letters
// or more counts as one mistake.
func nameMistakes(name, want string) int {
	if len(name) > 2 && strings.HasPrefix(want, name) {
		return 1
	}
	return distance(name, want)
}
