package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"mailsidecar/queue"
)

// sum is what one store has of a table.
type sum struct {
	n      int64
	digest string
}

// compare reads both stores as a whole, at the same time, and returns the digest of all rows.
func (c *copying) compare(ctx context.Context, total int64) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var sums [2]map[Table]sum
	var errs [2]error
	for i, side := range []Side{c.from, c.to} {
		wg.Go(func() {
			progress := c.progress
			if i == 0 {
				progress = func(Progress) {} // one tells
			}
			if sums[i], errs[i] = sumUp(ctx, side, total, progress); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for _, err := range errs { // what ended the other one comes first
		if err != nil && !errors.Is(err, context.Canceled) {
			return "", err
		}
	}
	if err := errors.Join(errs[0], errs[1]); err != nil {
		return "", err
	}
	all := sha256.New()
	for _, t := range append(tables, other) {
		if sums[0][t] != sums[1][t] {
			return "", &queue.StoreError{Path: c.to.Place(), Err: ErrDiffer, Remedy: fmt.Sprintf("%s: %d there and %d in %s; nothing is lost, and neither is used. "+
				"Give this copy up with `mailsidecar queue copy --undo`, and copy into another, empty one", t, sums[1][t].n, sums[0][t].n, c.from.Place())}
		}
		fmt.Fprintf(all, "%s %d %s\n", t, sums[0][t].n, sums[0][t].digest)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// other stands for [Rest].
const other Table = "counts, turns and pauses"

func sumUp(ctx context.Context, s Side, total int64, progress func(Progress)) (map[Table]sum, error) {
	sums := map[Table]sum{}
	for _, t := range tables {
		var err error
		if sums[t], err = sumTable(ctx, s, t, func(n int64) {
			if t == Messages {
				progress(Progress{"compared", n, total})
			}
		}); err != nil {
			return nil, err
		}
	}
	r, err := s.ReadRest(ctx)
	if err != nil {
		return nil, err
	}
	b, err := r.encode()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b)
	sums[other] = sum{1, hex.EncodeToString(digest[:])}
	return sums, nil
}

func sumTable(ctx context.Context, s Side, t Table, progress func(n int64)) (sum, error) {
	h := sha256.New()
	n := int64(0)
	for at := (Position{}); ; {
		if err := ctx.Err(); err != nil {
			return sum{}, err
		}
		rows, err := s.Read(ctx, t, at)
		if err != nil {
			return sum{}, err
		}
		if rows.len() == 0 {
			return sum{n, hex.EncodeToString(h.Sum(nil))}, nil
		}
		encoded, err := rows.encode()
		if err != nil {
			return sum{}, err
		}
		for _, row := range encoded {
			fmt.Fprintf(h, "%d:", len(row))
			h.Write(row)
		}
		n += int64(len(encoded))
		at = rows.last()
		progress(n)
	}
}
