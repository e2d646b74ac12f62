package service

import "log/slog"

// spareFiles is how many file descriptors are for all but the connections of clients: the
// store, the relays, look-ups of names.
const spareFiles = 200

// leastConnections is how many connections are served though there are too few descriptors.
const leastConnections = 16

// withinFiles returns how many connections there may be where the process may open so many
// files: as many as wanted, or fewer, which it logs.
func withinFiles(wanted int, files uint64, log *slog.Logger) int {
	if files >= uint64(wanted)+spareFiles {
		return wanted
	}
	fits := leastConnections
	if files > leastConnections+spareFiles {
		fits = int(files) - spareFiles
	}
	log.Warn("fewer connections than configured", "max_connections", wanted, "limit", fits, "open_files", files,
		"do", "let the process open more files (ulimit -n; LimitNOFILE= of systemd; ulimits of Docker), or lower MAILSIDECAR_MAX_CONNECTIONS")
	return fits
}
