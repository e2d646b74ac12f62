package keys

import (
	"fmt"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
)

// Role is what a key may do. Roles are joined with |; zero is no role, and what needs zero
// is open to every key.
type Role uint8

const (
	// Send is to submit messages.
	Send Role = 1 << iota
	// Read is to look at messages: those of the key itself.
	Read
	// Admin is to see and to change the messages of all keys, and to steer the server.
	// A key with this role has the other two as well.
	Admin

	// Mend is what a key needs to try its own messages again or to cancel them: both
	// change what is sent, and the answer shows the message.
	Mend = Send | Read

	everything = Send | Read | Admin
)

// roleNames are in the order of the roles' bits.
var roleNames = []string{"send", "read", "admin"}

// ParseRoles returns the roles of those names; those of a key without any names are send
// and read.
func ParseRoles(names []string) (Role, error) {
	if len(names) == 0 {
		return Send | Read, nil
	}
	var roles Role
	for _, name := range names {
		role := Role(0)
		for i, known := range roleNames {
			if name == known {
				role = 1 << i
			}
		}
		if role == 0 {
			return 0, fmt.Errorf("there is no role %q: the roles are %s", name, strings.Join(roleNames, ", "))
		}
		roles |= role
	}
	if roles&Admin != 0 {
		return everything, nil
	}
	return roles, nil
}

// String names the roles, such as "roles send and read".
func (r Role) String() string {
	switch {
	case r&Admin != 0:
		return "role admin"
	case r == Send|Read:
		return "roles send and read"
	case r == Send:
		return "role send"
	default:
		return "role read"
	}
}

// Names are the names of the roles, in the order in which the documentation has them. One that
// includes the others stands for them.
func (r Role) Names() []string {
	if r&Admin != 0 {
		return []string{"admin"}
	}
	var names []string
	for i, name := range roleNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Has reports whether the key has all of these roles. The nil Key has none.
func (k *Key) Has(roles Role) bool { return k != nil && k.roles&roles == roles }

// Require returns a problem unless the key has all of these roles.
func (k *Key) Require(roles Role) error {
	if roles == 0 || k.Has(roles) {
		return nil
	}
	if k == nil {
		return problem.New(api.CodeUnauthorized, "")
	}
	return problem.New(api.CodeRoleRequired, fmt.Sprintf("This request needs the %s, and the key %s has the %s only (MAILSIDECAR_KEY_ROLES).", roles, k.name, k.roles))
}
