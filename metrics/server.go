package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mailsidecar/api"
	"mailsidecar/handler/conns"
)

// maxScrapes is how many scrapes may go on at a time: the others are answered with 503.
const maxScrapes = 4

// Handler answers with all metrics, as text or in OpenMetrics' form, compressed where the
// client can read that.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
		OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip},
	})
}

// The limits of a server that has no keys: a scrape is small, and so is who asks for it.
const (
	maxConnections = 32
	maxHeader      = 16 << 10
	readTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Server serves metrics on an address of their own, without a key.
type Server struct {
	http  *http.Server
	conns *conns.Set
}

// Serve serves h at /metrics in the background, and nothing else, until [Server.Close].
func Serve(l net.Listener, h http.Handler, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h) // and HEAD
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s := &Server{conns: conns.New(conns.Limits{Open: maxConnections, Header: maxHeader}, log)}
	s.http = &http.Server{
		Handler: own(mux), Protocols: protocols, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ConnState: s.conns.Track, ConnContext: conns.Context, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
	}
	go func() {
		if err := s.http.Serve(s.conns.Listen(l, nil)); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "setting", "MAILSIDECAR_METRICS_ADDR", "error", err)
		}
	}()
	return s
}

// own marks every answer as the server's own.
func own(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderOwn, "1")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// stopTime is how long a scrape under way may take once the server stops.
const stopTime = 250 * time.Millisecond

// Close lets scrapes under way end, for a moment, and closes all connections.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // nobody waits for what is cut
	}
}
