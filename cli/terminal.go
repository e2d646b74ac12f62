package cli

import (
	"bufio"
	"context"
	"io"
)

// readLines reads lines of up to limit octets until the input or ctx ends. A longer
// line ends the input.
func readLines(ctx context.Context, in io.Reader, limit int) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(in)
		scanner.Buffer(nil, limit)
		for scanner.Scan() {
			select {
			case lines <- edited(scanner.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// edited is a line as it was meant, where the terminal leaves backspace and Ctrl-U to
// the program.
func edited(line string) string {
	var kept []rune
	for _, r := range line {
		switch r {
		case '\b', 0x7f:
			kept = kept[:max(0, len(kept)-1)]
		case 0x15: // Ctrl-U
			kept = kept[:0]
		default:
			kept = append(kept, r)
		}
	}
	return string(kept)
}
