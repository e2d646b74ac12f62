package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// scrape reads metrics each second, as Prometheus would, until stop is called. It tells how
// often that failed.
func scrape(ctx context.Context, url string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		failed, tick := 0, time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := readOnce(ctx, url); err != nil && ctx.Err() == nil {
					failed++
				}
			case <-ctx.Done():
				if failed > 0 {
					fmt.Fprintf(os.Stderr, "bench: %d scrapes failed\n", failed)
				}
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func readOnce(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}
