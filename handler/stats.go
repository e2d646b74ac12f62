package handler

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/queue"
)

// getStats serves GET /v1/stats: the numbers of the key's messages, or of all.
func (s *Server) getStats(c echo.Context) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return problem.New(api.CodeInvalidParameter, "The query cannot be read.")
	}
	key, days := "", ""
	bad := readParameters(query, map[string]*string{"key": &key, "days": &days})
	if days != "" && days != "7" {
		bad = append(bad, problem.At("days", "must be 7, or be left out"))
	}
	if len(bad) > 0 {
		return problem.New(api.CodeInvalidParameter, "", bad...)
	}
	whose, err := scopeOf(c, key)
	if err != nil {
		return err
	}
	if s.ledger == nil {
		return queue.ErrQueueRequired
	}
	stats, err := s.ledger.Stats(c.Request().Context(), whose)
	if err != nil {
		return err
	}
	var week []queue.Bucket
	if days != "" {
		if week, err = s.ledger.Week(c.Request().Context(), whose); err != nil {
			return err
		}
	}
	if whose == queue.AnyKey {
		whose = ""
	}
	b := newStats(stats, s.relayStatus(), whose)
	b.Hours = newBuckets(week)
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

func newStats(s queue.Stats, relays []RelayStatus, key string) api.Stats {
	b := api.Stats{
		Key: key, Counting: s.Counting, Statuses: statusNumbers(s.Statuses), OldestDue: inUTC(s.OldestDue),
		Hour: api.StatsSince{Since: inUTC(s.Hour.Since), StatsCounts: api.StatsCounts(s.Hour.Counts)},
		Day:  api.StatsSince{Since: inUTC(s.Day.Since), StatsCounts: api.StatsCounts(s.Day.Counts)},
		Keys: []api.StatsKey{}, Replies: []api.StatsReply{}, Buckets: newBuckets(s.Buckets),
		Relays: relayNumbers(s.Relays, relays),
	}
	for _, k := range s.Keys {
		b.Keys = append(b.Keys, api.StatsKey{
			Name: k.Name, Statuses: statusNumbers(k.Statuses), OldestDue: inUTC(k.OldestDue), Hour: api.StatsCounts(k.Hour), Day: api.StatsCounts(k.Day),
		})
	}
	for _, r := range s.Replies {
		b.Replies = append(b.Replies, api.StatsReply{
			Relay: r.Relay, Class: r.Class.String(), ReplyCode: r.Code, EnhancedCode: r.Enhanced, Text: r.Text, Count: r.Count, First: inUTC(r.First), Last: inUTC(r.Last),
			Filter: api.StatsFilter{Relay: r.Relay, ReplyCode: r.Code, EnhancedCode: r.Enhanced, Text: wholeText + r.Text},
		})
	}
	return b
}

func newBuckets(buckets []queue.Bucket) []api.StatsBucket {
	all := make([]api.StatsBucket, len(buckets))
	for i, bucket := range buckets {
		all[i] = api.StatsBucket{At: inUTC(bucket.At), StatsCounts: api.StatsCounts(bucket.Counts)}
	}
	return all
}

// statusNumbers has every status, also those that no message has.
func statusNumbers(n map[queue.Status]int64) map[string]int64 {
	all := map[string]int64{}
	for _, status := range queue.Statuses {
		all[string(status)] = n[status]
	}
	return all
}

// relayNumbers has the relays that are configured, in their order, and then others that had
// mail within the day.
func relayNumbers(numbers []queue.RelayStats, relays []RelayStatus) []api.StatsRelay {
	all := []api.StatsRelay{}
	for _, r := range relays {
		status := newRelay(r)
		all = append(all, api.StatsRelay{Name: r.Name, Status: status.Status, PausedUntil: status.PausedUntil, PausedByOperator: status.PausedByOperator, Advice: status.Advice})
	}
	for _, n := range numbers {
		i := slices.IndexFunc(all, func(r api.StatsRelay) bool { return r.Name == n.Name })
		if i < 0 {
			i, all = len(all), append(all, api.StatsRelay{Name: n.Name})
		}
		all[i].Hour, all[i].Day = api.StatsCounts(n.Hour), api.StatsCounts(n.Day)
	}
	return all
}
