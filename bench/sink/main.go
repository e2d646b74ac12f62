// Sink is the relay of the benchmark: submission with STARTTLS, AUTH,
// PIPELINING, CHUNKING, SIZE and 8BITMIME, which accepts every message, keeps
// none and counts by the X-Bench field which ones arrived, and how often.
//
// It is meant to be no bottleneck: a reply is written when no further command
// is waiting, content is looked at in place, and nothing is logged.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address for SMTP")
	control := flag.String("control", "127.0.0.1:0", "address for HTTP: counts of what arrived")
	cert := flag.String("cert", "", "PEM file with certificate and key")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "sink:", run(*listen, *control, *cert))
	os.Exit(1)
}

// run ends with an error only.
func run(listen, control, cert string) error {
	pair, err := tls.LoadX509KeyPair(cert, cert)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := &sink{tls: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	server := http.Server{Addr: control, Handler: s.arrivals.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		fmt.Fprintln(os.Stderr, "sink:", server.ListenAndServe())
		os.Exit(1)
	}()
	return s.serve(l)
}

type sink struct {
	tls      *tls.Config
	arrivals arrivals
}

func (s *sink) serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			newSession(s, conn).run()
		}()
	}
}

// routes: GET /count?run=3 answers with the number of different messages of
// that run, GET /run?run=3 with one octet for each: how often it arrived.
func (a *arrivals) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, r *http.Request) {
		run, err := strconv.Atoi(r.FormValue("run"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, a.count(run))
	})
	mux.HandleFunc("GET /run", func(w http.ResponseWriter, r *http.Request) {
		run, err := strconv.Atoi(r.FormValue("run"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, err = w.Write(a.times(run))
		if err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintln(os.Stderr, "sink:", err)
		}
	})
	return mux
}
