package browser_test

import (
	"testing"
)

// TestPages looks at every page of a server that has mail, in every look.
func TestPages(t *testing.T) {
	t.Parallel()
	s := serve(t, newRelay(t, nil).withKeys())
	sent, failed, waits := s.mixedMail(t)
	pages := map[string]string{
		"overview": "/ui/", "messages": "/ui/messages", "message-sent": "/ui/messages/" + sent, "message-failed": "/ui/messages/" + failed,
		"message-waits": "/ui/messages/" + waits, "relays": "/ui/relays", "keys": "/ui/keys", "send": "/ui/send", "settings": "/ui/settings",
	}
	for _, l := range looks() {
		t.Run(l.String(), func(t *testing.T) {
			p := open(t, s, l)
			p.visit("/ui/")
			p.check("sign-in")
			p.picture("sign-in-" + l.String())
			p.signIn(adminSecret)
			for name, path := range pages {
				p.visit(path)
				p.await("main h1")
				p.picture(name + "-" + l.String())
				p.check(name)
			}
		})
	}
}
