package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"mailsidecar/mailer/smtp/token/weblogin"
	"mailsidecar/units"
)

// withBrowser logs in with a browser that comes back to this machine, or whose last
// address is pasted.
func (s *loginSession) withBrowser(ctx context.Context) (err error) {
	b, err := s.AskBrowser(ctx, s.opts.port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return exit(exitFailure, "%s is taken by another program: give another port, or none", portOption(s.opts.port))
	case errors.Is(err, syscall.EACCES):
		return exit(exitFailure, "this user may not listen on %s: give a port over 1023, or none", portOption(s.opts.port))
	case err != nil:
		return err
	}
	page := weblogin.Page{}
	defer func() { b.End(page) }()
	grant, err := s.awaitGrant(ctx, b)
	if err != nil {
		page = s.page(ctx, err)
		return err
	}
	answer, err := s.Redeem(ctx, grant)
	if err != nil {
		err = s.refusal(err)
	} else {
		err = s.finish(ctx, answer)
	}
	page = s.page(ctx, err)
	return err
}

// page is what the browser shows in the end.
func (s *loginSession) page(ctx context.Context, err error) weblogin.Page {
	switch {
	case err == nil:
		return weblogin.Page{Title: "Logged in", Text: "Mail can be sent through " + s.relay.Host + "."}
	case ctx.Err() != nil:
		return weblogin.Page{}
	case exitStatus(err) == exitUnavailable:
		return weblogin.Page{Title: "Mail cannot be sent yet", Text: "The terminal says why: " + err.Error()}
	default:
		if told, ok := errors.AsType[*loginRefused](err); ok {
			err = fmt.Errorf("%w; %s", told.err, told.advice.Found)
		}
		return weblogin.Page{Title: "Not logged in", Text: err.Error()}
	}
}

// awaitGrant shows where to log in and waits for the browser and for a pasted
// address, whichever comes first.
func (s *loginSession) awaitGrant(ctx context.Context, b *weblogin.Browser) (weblogin.Grant, error) {
	fmt.Fprintf(s.out, "Log in at this address:\n\n  %s\n\n", b.URL)
	if openBrowser(ctx, b.URL) {
		s.say("It was opened in this machine's browser.")
	}
	s.say("The browser then comes back to %s/. If it shows an error page there, because it runs on another machine or outside this container, copy the whole address from its address bar and paste it here:", b.RedirectURI)
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.timeout, errTooSlow)
	defer cancel()
	type arrival struct {
		grant weblogin.Grant
		err   error
	}
	arrived := make(chan arrival, 1)
	go func() {
		g, err := b.Await(ctx)
		arrived <- arrival{g, err}
	}()
	defer takeLongLines(s.in)()
	lines := readLines(ctx, s.in, weblogin.MaxPasted)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				lines = nil
				s.say("Nothing can be pasted here, for standard input has ended: only the browser can end the login.")
				continue
			}
			s.pasted(b, line)
		case a := <-arrived:
			return a.grant, s.notArrived(ctx, a.err)
		}
	}
}

var errTooSlow = errors.New("took too long")

// notArrived is the error of a browser that came back with one, or not at all.
func (s *loginSession) notArrived(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return s.refusal(err)
	case errors.Is(context.Cause(ctx), errTooSlow):
		late := fmt.Errorf("the browser did not come back within %s: not logged in, and nothing was stored", units.Duration(s.opts.timeout))
		if address := s.ConsentURL(); address != "" {
			late = fmt.Errorf("%w\nIf the page says \"Need admin approval\", an administrator gives it here:\n  %s", late, address)
		}
		return &statusError{exitFailure, late}
	default:
		return err
	}
}

// pasted takes a line that was pasted, and asks again where it does not help.
func (s *loginSession) pasted(b *weblogin.Browser, line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	err := b.Paste(line)
	if err == nil {
		return
	}
	if errors.As(err, new(*weblogin.RefusedError)) {
		err = s.refusal(err)
	}
	fmt.Fprintf(s.out, "%v\nLog in again at the same address, or paste another one here:\n", err)
}
