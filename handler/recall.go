package handler

import (
	"context"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/keys"
	"mailsidecar/queue"
)

// recallTimeout limits how long the start waits for what keys have sent lately.
const recallTimeout = 2 * time.Second

// recallRates lets the keys' rates go on where they were before a restart. Without a store
// they begin anew.
func (s *Server) recallRates() {
	if s.ledger == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), recallTimeout)
	defer cancel()
	for _, k := range s.keys.Rated() {
		accepted, err := s.accepted(ctx, k, time.Now())
		if err != nil {
			s.log.Warn("the rate of a key begins anew", "key", k.Name(), "error", err)
		}
		k.Recall(accepted)
	}
}

// accepted are the times of the key's messages that may still count, the newest first.
func (s *Server) accepted(ctx context.Context, k *keys.Key, now time.Time) (times []time.Time, err error) {
	f := queue.Filter{Key: k.Name(), Since: now.Add(-k.Window())}
	for cursor := ""; len(times) < keys.MaxRecalled; {
		page, err := s.ledger.List(ctx, f, api.MaxPage, cursor)
		if err != nil {
			return times, err
		}
		for _, m := range page.Messages {
			times = append(times, m.Created)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return times, nil
}
