// Cost prints what a PostgreSQL needs for so many messages a day: the table of docs/scaling.md. The constants are
// measured by the tests TestFigures… in queue/postgres and by make bench; the rest is arithmetic.
package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// What one message costs, in and out: 12,300 octets to one recipient with an idempotency key, accepted, marked before the
// delivery, delivered at the first attempt.
const (
	size        = 12_300
	logFixed    = 2_500 // octets of the database's log, beside the content
	logPerOctet = 1.11
	serverCPU   = 0.9e-3 // seconds of the database's processors
	instanceCPU = 1.0e-3 // seconds of the instances' processors, HTTP and TLS to the relay included
	kept        = 1_450  // octets of tables and indexes while a finished message is kept
)

// What is assumed of the load.
const (
	peak      = 4  // the busiest second, in average ones
	retention = 7  // days
	naptime   = 60 // seconds between two vacuums, the server's default
)

// What one well-equipped database, and one instance, is trusted with.
const (
	maxLog        = 200e6 // octets of log each second, at the peak: the disk, each standby and the archive must keep up
	maxCores      = 8     // half of 16
	maxKept       = 4e12  // octets
	perInstance   = 1.0   // cores of an instance that are busy at the peak, half of two
	perConnection = 6     // connections of an instance without sealed logins: four for statements, the heartbeat, the listener
	leastServers  = 2     // instances, so that one may die
)

// need is what a rate needs.
type need struct {
	perDay                    float64
	rate, atPeak              float64 // messages each second
	log, logAtPeak, logPerDay float64 // octets
	cores, coresAtPeak        float64
	kept, dead                float64 // octets
	instances, databases      int
	first                     string // what asks for the most databases
	connections               int    // of each database
}

func needs(perDay float64) need {
	n := need{perDay: perDay, rate: perDay / 86_400}
	n.atPeak = n.rate * peak
	perMessage := logFixed + logPerOctet*size
	n.log, n.logAtPeak, n.logPerDay = n.rate*perMessage, n.atPeak*perMessage, perDay*perMessage
	n.cores, n.coresAtPeak = n.rate*serverCPU, n.atPeak*serverCPU
	n.kept, n.dead = perDay*retention*kept, n.atPeak*size*naptime
	n.instances = max(leastServers, int(math.Ceil(n.atPeak*instanceCPU/perInstance)))
	most := 0.0
	for _, limit := range []struct {
		what  string
		share float64
	}{{"log", n.logAtPeak / maxLog}, {"processors", n.coresAtPeak / maxCores}, {"what is kept", n.kept / maxKept}} {
		if limit.share > most {
			most, n.first = limit.share, limit.what
		}
	}
	n.databases = max(1, int(math.Ceil(most)))
	n.first = fmt.Sprintf("%s, %.0f %% of one", n.first, math.Ceil(100*most))
	n.connections = (n.instances + n.databases - 1) / n.databases * perConnection
	return n
}

// table writes the table in Markdown.
func table(w io.Writer) {
	var all []need
	for _, perDay := range []float64{1e6, 1e8, 1e9} {
		all = append(all, needs(perDay))
	}
	row := func(what string, cell func(need) string) {
		fmt.Fprintf(w, "| %s |", what)
		for _, n := range all {
			fmt.Fprintf(w, " %s |", cell(n))
		}
		fmt.Fprintln(w)
	}
	row("messages a day", func(n need) string { return grouped(n.perDay) })
	fmt.Fprintln(w, "|---|"+strings.Repeat("--:|", len(all)))
	row("messages a second; at the peak", func(n need) string { return grouped(n.rate) + "; " + grouped(n.atPeak) })
	row("log a second; at the peak", func(n need) string { return octets(n.log) + "; " + octets(n.logAtPeak) })
	row("log a day", func(n need) string { return octets(n.logPerDay) })
	row("cores of the database; at the peak", func(n need) string { return fmt.Sprintf("%.2f; %.1f", n.cores, n.coresAtPeak) })
	row("finished messages of a week", func(n need) string { return octets(n.kept) })
	row("contents that wait for a vacuum, at the peak", func(n need) string { return octets(n.dead) })
	row("instances of two cores", func(n need) string { return fmt.Sprint(n.instances) })
	row("breaks first", func(n need) string { return n.first })
	row("databases", func(n need) string { return fmt.Sprint(n.databases) })
	row("connections to each", func(n need) string { return fmt.Sprint(n.connections) })
}

// grouped writes a number with commas.
func grouped(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// octets writes a number of octets in decimal units, with two digits that count.
func octets(n float64) string {
	unit := 0
	for ; n >= 1000; unit++ {
		n /= 1000
	}
	text := fmt.Sprintf("%.0f", n)
	if n < 10 {
		text = fmt.Sprintf("%.1f", n)
	}
	return text + " " + []string{"B", "kB", "MB", "GB", "TB", "PB"}[unit]
}

func main() { table(os.Stdout) }
