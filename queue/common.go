package queue

import (
	"context"
	"time"
)

// What instances at one store have in common beside messages: pauses of relays.

const (
	// commonPoll is how often an instance looks what others have stored.
	commonPoll = time.Second
	// commonTime is how long one look, or one change, may take.
	commonTime = 5 * time.Second
)

// pollCommon takes over what other instances store, until ctx ends.
func (d *Durable) pollCommon(ctx context.Context) {
	for sleep(ctx, commonPoll) {
		within, cancel := context.WithTimeout(ctx, commonTime)
		if err := d.manual.refresh(within); err != nil {
			d.log.Debug("look for pauses that other instances have stored", "error", err)
		}
		cancel()
	}
}
