package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mailsidecar/queue"
)

// TestPlainErrors: why there is no connection is said once, with host and port, and without user and password.
func TestPlainErrors(t *testing.T) {
	t.Parallel()
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := refused.Addr().String()
	_ = refused.Close()
	for _, tc := range []struct{ url, want string }{
		{"postgres://shop:hunter2@" + addr + "/mail", addr + ": connection refused"},
		{"postgres://shop:hunter2@" + addr + "/mail?sslmode=require", addr + ": connection refused"},
		{"postgres://shop:hunter2@" + addr + "," + addr + "/mail", addr + ": connection refused"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, examined := Examine(ctx, Options{URL: tc.url})
		_, _, migrated := Migrate(ctx, Options{URL: tc.url})
		for _, err := range []error{examined, migrated} {
			if err == nil {
				t.Fatal("there is a connection")
			}
			text := err.Error()
			if strings.Count(text, tc.want) != 1 || strings.Contains(text, "shop") || strings.Contains(text, "failed to") || strings.Contains(text, "\n") {
				t.Errorf("the error is %q, want %q", text, tc.want)
			}
			if !Unreachable(fmt.Errorf("x: %w", err)) || errors.As(err, new(*queue.StoreError)) {
				t.Errorf("%v is not said to be unreachable", err)
			}
		}
	}
}
