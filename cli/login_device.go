package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailsidecar/service"
)

// withDevice logs in with a code that the person types in on another device.
func (s *loginSession) withDevice(ctx context.Context) error {
	code, err := s.AskDevice(ctx)
	if errors.As(err, new(*service.ConfigError)) {
		return err
	}
	if err != nil {
		return s.refusal(err)
	}
	fmt.Fprintf(s.out, "On any device, open\n\n  %s\n\nand type in this code:\n\n  %s\n\n", code.VerificationURI, code.UserCode)
	s.say("It is good until %s.", code.Expires.Local().Format(time.TimeOnly+" MST"))
	answer, err := s.AwaitDevice(ctx, code)
	if err != nil {
		return s.refusal(err)
	}
	return s.finish(ctx, answer)
}
