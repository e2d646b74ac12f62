package config

import (
	"slices"
	"strconv"
	"strings"

	"mailsidecar/units"
)

// This file reads what is set for single keys, beside their secrets.

// checkKeySenders gives each key its senders.
func (r *reader) checkKeySenders(s *Service) {
	r.forKeys(s, "KEY_SENDERS", s.KeySenders, "write name:sender|sender, such as shop:shop@example.com|example.org", func(k *APIKey, value string) string {
		for text := range strings.SplitSeq(value, "|") {
			sender, bad := parseSender(strings.TrimSpace(text))
			if bad != nil {
				return "gives key " + k.Name + " a sender" + shownWord(s, text) + " that is neither address nor domain"
			}
			k.Senders = append(k.Senders, sender)
		}
		return ""
	})
}

// checkKeyRates gives each key its rate.
func (r *reader) checkKeyRates(s *Service) {
	r.forKeys(s, "KEY_RATES", s.KeyRates, "write name:rate, such as shop:10/s, shop:30/m, shop:500/h or shop:2000/d", func(k *APIKey, value string) string {
		if err := k.Rate.UnmarshalText([]byte(value)); err != nil {
			return "gives key " + k.Name + " a rate" + shownWord(s, value) + " that cannot be read"
		}
		return ""
	})
}

// roles are what MAILSIDECAR_KEY_ROLES can give. A test in service compares them with those
// that the server knows.
var roles = []string{"send", "read", "admin"}

// checkKeyRoles gives each key its roles.
func (r *reader) checkKeyRoles(s *Service) {
	r.forKeys(s, "KEY_ROLES", s.KeyRoles, "write name:role|role, such as shop:send or monitor:read or ops:admin; the roles are "+strings.Join(roles, ", "), func(k *APIKey, value string) string {
		for text := range strings.SplitSeq(value, "|") {
			role := strings.ToLower(strings.TrimSpace(text))
			switch {
			case !slices.Contains(roles, role):
				return "gives key " + k.Name + " a role" + shownWord(s, text) + " that does not exist"
			case slices.Contains(k.Roles, role):
				return "gives key " + k.Name + " the role " + role + " twice"
			}
			k.Roles = append(k.Roles, role)
		}
		return ""
	})
}

// forKeys calls set for each entry "name:value" of a variable with the key of
// that name; set returns what is wrong with the value. Wrong entries are reported
// by number, with the key's name where it is known, and never printed whole: a user
// who swaps name and secret would have the secret logged.
func (r *reader) forKeys(s *Service, suffix string, entries List, remedy string, set func(*APIKey, string) string) {
	if r.failed[serviceName("API_KEYS")] {
		return
	}
	var wrong []string
	seen := map[*APIKey]bool{}
	for i, entry := range entries {
		name, value, whole := strings.Cut(entry, ":")
		key := s.key(strings.TrimSpace(name))
		var bad string
		switch {
		case !whole:
			bad = "has no colon after a key's name"
		case key == nil:
			bad = "names no key of " + serviceName("API_KEYS") + s.keyNames()
		case seen[key]:
			bad = "names key " + key.Name + " for the second time"
		default:
			bad = set(key, strings.TrimSpace(value))
		}
		if seen[key] = true; bad != "" {
			wrong = append(wrong, "entry "+strconv.Itoa(i+1)+" "+bad)
		}
	}
	if len(wrong) > 0 {
		r.problem(serviceName(suffix), strings.Join(wrong, ", "), remedy)
	}
}

// longestWord is up to how many characters of a wrong value are shown.
const longestWord = 15

// shownWord is the text as it was written, in quotes after a blank. It is empty where the text is,
// and for what may be a secret: the secret of a key, or anything that is long enough for one.
func shownWord(s *Service, text string) string {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > longestWord {
		return ""
	}
	for _, k := range s.Keys {
		if strings.Contains(text, k.Secret.Reveal()) || len(text) > 3 && strings.Contains(k.Secret.Reveal(), text) {
			return ""
		}
	}
	return " " + units.Quote(text)
}

// keyNames lists the keys that there are.
func (s *Service) keyNames() string {
	names := make([]string, len(s.Keys))
	for i, k := range s.Keys {
		names[i] = k.Name
	}
	if len(names) == 0 {
		return ", which is not set"
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// key returns the key of that name, or nil.
func (s *Service) key(name string) *APIKey {
	for i := range s.Keys {
		if s.Keys[i].Name == name {
			return &s.Keys[i]
		}
	}
	return nil
}

// KnowsKey reports whether mail may come with a key of that name; an empty one stands for
// a server without keys.
func (s *Service) KnowsKey(name string) bool {
	return s.key(name) != nil || name == "" && len(s.Keys) == 0
}
