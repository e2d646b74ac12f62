package sqlite

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// BenchmarkBeside stores small messages, alone and while others store and deliver large
// ones. What counts is the last hundredth:
//
//	go test ./queue/sqlite -run - -bench Beside -benchtime 2000x
func BenchmarkBeside(b *testing.B) {
	for _, c := range []struct {
		name        string
		size, count int
	}{{"nothing", 0, 0}, {"25 MiB", 25 << 20, 4}, {"1 MiB", 1 << 20, 8}, {"200 KiB", 200 << 10, 16}} {
		b.Run(c.name, func(b *testing.B) {
			s := benchStore(b)
			ctx, cancel := context.WithCancel(b.Context())
			var others sync.WaitGroup
			for range c.count {
				others.Go(func() { keepBusy(ctx, b, s, c.size) })
			}
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				began := time.Now()
				insertOne(b, s, 2<<10)
				took = append(took, time.Since(began))
				time.Sleep(2 * time.Millisecond)
			}
			cancel()
			others.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[(len(took)-1)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
		})
	}
}

// keepBusy stores and delivers one message after the other.
func keepBusy(ctx context.Context, b *testing.B, s *Store, size int) {
	n := 0
	began := time.Now()
	for ; ctx.Err() == nil; n++ {
		e := insertOne(b, s, size)
		o := queue.Outcome{ID: e.Message.ID, Owner: e.Owner, Lease: 0, Route: e.Route, At: time.Now()}
		for _, path := range e.Message.Envelope.ForwardPaths {
			o.Changes = append(o.Changes, queue.Change{ForwardPath: path, State: queue.Delivered})
		}
		if _, err := s.Record(b.Context(), []queue.Outcome{o}); err != nil {
			b.Error(err)
		}
	}
	b.Logf("%d of %d octets, %.0f MiB/s", n, size, float64(n*size)/(1<<20)/time.Since(began).Seconds())
}

func insertOne(b *testing.B, s *Store, size int) queue.Entry {
	e := randomEntry(0, time.Now())
	e.Message.Size, e.Content = int64(size), mailer.Content{Data: make([]byte, size)}
	if _, err := s.Insert(b.Context(), queue.Batch{Entries: []queue.Entry{e}}); err != nil {
		b.Error(err)
	}
	return e
}
