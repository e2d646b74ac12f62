package cli

import (
	"context"
	"os"
	"os/exec"
	"runtime"
)

// openBrowser opens the address in a browser on this machine, and reports whether
// that was tried: only where a person sits at a screen of it.
func openBrowser(ctx context.Context, address string) bool {
	name, args := browserCommand(runtime.GOOS, os.Getenv)
	if name == "" {
		return false
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return false
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, append(args, address)...) //nolint:gosec // a program of the system, with an https URL
	if cmd.Start() != nil {
		return false
	}
	go func() { _ = cmd.Wait() }()
	return true
}

// browserCommand returns the system's program that opens an address; empty over SSH
// and where there is no screen.
func browserCommand(system string, getenv func(string) string) (name string, args []string) {
	if getenv("SSH_CONNECTION") != "" || getenv("SSH_TTY") != "" {
		return "", nil
	}
	switch system {
	case "darwin":
		return "open", nil
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler"}
	default:
		if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
			return "", nil
		}
		return "xdg-open", nil
	}
}
