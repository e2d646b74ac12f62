package config

import (
	"iter"
	"regexp"
	"slices"
	"strings"
)

var (
	ourName = regexp.MustCompile(`^(SMTP[0-9]*|MAILSIDECAR)_(.*)$`)
	// kubernetesName is what Kubernetes and Docker's links put into the
	// environment of a container beside a service called "smtp".
	kubernetesName = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)`)
)

// injected reports whether a variable was put there by Kubernetes, not by the
// operator. SMTP_PORT=tcp://10.0.0.7:25 is one.
func injected(name, value string) bool {
	return kubernetesName.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// synonyms are names that other software uses for what we call otherwise, too
// far apart for a look at the letters.
var synonyms = map[string]string{
	"SMTP_USER": "SMTP_USERNAME", "SMTP_LOGIN": "SMTP_USERNAME", "SMTP_PASS": "SMTP_PASSWORD",
	"SMTP_SERVER": "SMTP_HOST", "SMTP_HOSTNAME": "SMTP_HOST", "SMTP_ADDRESS": "SMTP_HOST", "SMTP_RELAY": "SMTP_HOST",
	"SMTP_SSL": "SMTP_TLS", "SMTP_SECURE": "SMTP_TLS", "SMTP_ENCRYPTION": "SMTP_TLS", "SMTP_STARTTLS": "SMTP_TLS",
	"SMTP_DOMAIN": "SMTP_HELO", "SMTP_AUTHENTICATION": "SMTP_AUTH", "SMTP_AUTH_METHOD": "SMTP_AUTH",
	"SMTP_FROM": "MAILSIDECAR_FROM", "SMTP_SENDER": "MAILSIDECAR_FROM",
	"MAILSIDECAR_PORT": "MAILSIDECAR_ADDR", "MAILSIDECAR_LISTEN": "MAILSIDECAR_ADDR",
}

// warnUnknown warns about names that look like ours and are not.
func (r *reader) warnUnknown() {
	for prefix, name := range r.unknown() {
		known := slices.Collect(knownNames(prefix))
		if len(known) == 0 {
			r.warn("%s is ignored: relays are numbered SMTP_…, SMTP2_… to SMTP9_…", name)
			continue
		}
		hint := ""
		if meant := suggestion(prefix, name, known); meant != "" {
			hint = "; did you mean " + meant + "?"
		}
		r.warn("%s is not a variable of mailsidecar and is ignored%s", name, hint)
	}
}

// unknown gives the names in the environment that look like ours and are not, each
// after its prefix.
func (r *reader) unknown() iter.Seq2[string, string] {
	return func(yield func(prefix, name string) bool) {
		for _, entry := range r.environ {
			name, value, _ := strings.Cut(entry, "=")
			match := ourName.FindStringSubmatch(name)
			if match == nil || value == "" || injected(name, value) || isKnown(match[1], name) {
				continue
			}
			if !yield(match[1], name) {
				return
			}
		}
	}
}

func isKnown(prefix, name string) bool {
	for known := range knownNames(prefix) {
		if known == name {
			return true
		}
	}
	return false
}

// knownNames yields what may follow the prefix SMTP, SMTP2 or MAILSIDECAR, with
// it; nothing for a prefix that is not ours.
func knownNames(prefix string) iter.Seq[string] {
	var specs []any
	switch number := strings.TrimPrefix(prefix, "SMTP"); {
	case prefix == servicePrefix:
		specs = []any{&Service{}, &Client{}}
	case number == "" || len(number) == 1 && number >= "2":
		specs = []any{&Relay{}}
	}
	return func(yield func(string) bool) {
		for _, spec := range specs {
			for v := range variables(prefix, spec) {
				for _, name := range v.names() {
					if !yield(name) {
						return
					}
				}
			}
		}
	}
}

// suggestion is the name that was probably meant; empty where no known one is near.
func suggestion(prefix, name string, known []string) string {
	meant := synonyms[name]
	if prefix != servicePrefix { // SMTP2_USER is to SMTP2_USERNAME as SMTP_USER to SMTP_USERNAME
		meant = synonyms["SMTP"+strings.TrimPrefix(name, prefix)]
		meant = strings.Replace(meant, "SMTP_", prefix+"_", 1)
	}
	if meant == "" {
		meant = nearestName(name, known)
	}
	return meant
}

// nearestName is the known name with the fewest letters to change, unless it
// takes more than a third of them.
func nearestName(name string, known []string) string {
	best, nearest := len(name)/3+1, ""
	for _, k := range known {
		if d := distance(name, k); d < best {
			best, nearest = d, k
		}
	}
	return nearest
}

// distance is the Levenshtein distance: letters to insert, drop or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
