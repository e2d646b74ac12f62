package metrics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// partTimeout is how long a scrape waits for one of its parts.
const partTimeout = 2 * time.Second

// part is one of what a scrape reads. It is read by one goroutine at a time: where a source
// hangs, scrapes go without this part until it comes back, and nothing piles up.
type part struct{ free chan struct{} }

func newPart() *part { return &part{free: make(chan struct{}, 1)} }

var errSlow = errors.New("an earlier scrape still waits for it")

type partResult struct {
	metrics []prometheus.Metric
	err     error
}

// begin begins to read, and returns a function that waits for the result. A panic is an
// error: it must not end the process.
func (p *part) begin(read func(context.Context) ([]prometheus.Metric, error)) (wait func() ([]prometheus.Metric, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
	done := make(chan partResult, 1)
	go func() {
		select {
		case p.free <- struct{}{}:
		case <-ctx.Done():
			done <- partResult{nil, errSlow}
			return
		}
		defer func() { <-p.free }()
		done <- readPart(ctx, read)
	}()
	return func() ([]prometheus.Metric, error) {
		defer cancel()
		select {
		case r := <-done:
			return r.metrics, r.err
		case <-ctx.Done():
		}
		select { // another part may have used up the time
		case r := <-done:
			return r.metrics, r.err
		default:
			return nil, ctx.Err()
		}
	}
}

func readPart(ctx context.Context, read func(context.Context) ([]prometheus.Metric, error)) (r partResult) {
	defer func() {
		if p := recover(); p != nil {
			r = partResult{nil, fmt.Errorf("panic: %v", p)}
		}
	}()
	metrics, err := read(ctx)
	return partResult{metrics, err}
}
