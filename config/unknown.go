package config

import (
	"iter"
	"slices"
	"strings"
)

const digits = "0123456789"

// ourPrefix returns the prefix of a name that looks like ours: SMTP, SMTP with a number,
// or MAILSIDECAR; empty for any other name.
func ourPrefix(name string) string {
	prefix, _, found := strings.Cut(name, "_")
	number, isRelay := strings.CutPrefix(prefix, "SMTP")
	if found && (prefix == servicePrefix || isRelay && strings.Trim(number, digits) == "") {
		return prefix
	}
	return ""
}

// isKubernetesName reports whether Kubernetes and Docker's links put such a name into the
// environment of a container beside a service called "smtp": SMTP_SERVICE_HOST,
// SMTP_SERVICE_PORT, SMTP_SERVICE_PORT_SUBMISSION, SMTP_PORT_587_TCP_ADDR.
func isKubernetesName(name string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name+"_", "_SERVICE_PORT_") {
		return true
	}
	rest := name + "_"
	for {
		_, after, found := strings.Cut(rest, "_PORT_")
		if !found {
			return false
		}
		protocol := strings.TrimLeft(after, digits)
		if len(protocol) < len(after) && hasAnyPrefix(protocol, "_TCP_", "_UDP_", "_SCTP_") {
			return true
		}
		rest = "_" + after // another "_PORT_" may begin with the last octet of this one
	}
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// injected reports whether a variable was put there by Kubernetes, not by the
// operator. SMTP_PORT=tcp://10.0.0.7:25 is one.
func injected(name, value string) bool {
	return isKubernetesName(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
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
			prefix := ourPrefix(name)
			if prefix == "" || value == "" || injected(name, value) || isKnown(prefix, name) {
				continue
			}
			if !yield(prefix, name) {
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
