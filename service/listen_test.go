package service

import (
	"net"
	"testing"
)

func TestListenError(t *testing.T) {
	_, err := net.Listen("tcp", "192.0.2.1:1")
	if got, want := (&ListenError{"MAILSIDECAR_ADDR", "192.0.2.1:1", err}).Error(), "MAILSIDECAR_ADDR: this machine does not have the address 192.0.2.1:1"; got != want {
		t.Errorf("ListenError = %q, want %q", got, want)
	}
}
