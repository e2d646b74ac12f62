package sqlite

import (
	"testing"

	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
	"mailsidecar/queue/transfer"
)

func copyPlace(t *testing.T) storetest.Place {
	o := Options{Path: dbPath(t), Retention: storetest.Retention}
	return storetest.Place{
		Open: func() (queue.Store, error) { return Open(t.Context(), o) },
		Side: func() (transfer.Side, error) { return OpenSide(t.Context(), o) },
	}
}

func TestCopy(t *testing.T) { storetest.RunCopy(t, copyPlace, copyPlace) }
