package ui

import (
	"fmt"
	"time"

	"mailsidecar/api"
)

// chart is what happened over a time, drawn as stacked bars with a line, and as a table for
// those who do not see it.
type chart struct {
	Name          string // for the element's ids
	Title         string
	Width, Height int
	Bars          []bar
	Line          string // points of the polyline: what was accepted
	Most          int64
	Marks         []string // of the time, from the left to the right
	Rows          []chartRow
	Total         chartRow
	Summary       string
}

// bar is what one part of the time has. Positions are those of SVG.
type bar struct {
	X, W                              string
	DeliveredY, DeliveredH            string
	DeferredY, DeferredH              string
	BouncedY, BouncedH                string
	Title                             string
	Any, Delivered, Deferred, Bounced bool
}

type chartRow struct {
	From                                   time.Time
	Label                                  string
	Accepted, Delivered, Deferred, Bounced int64
}

const (
	chartWidth  = 720
	chartHeight = 120
	// mostBars is how many are drawn at most: the newest.
	mostBars = 200
)

// newChart draws buckets, each of which is step long. The table has a row for every so many of
// them. label says what time a row is of.
func newChart(name, title string, buckets []api.StatsBucket, step time.Duration, perRow int, label string, marks []string) *chart {
	if len(buckets) > mostBars {
		buckets = buckets[len(buckets)-mostBars:]
	}
	c := &chart{Name: name, Title: title, Width: chartWidth, Height: chartHeight, Marks: marks}
	for _, b := range buckets {
		c.Most = max(c.Most, b.Delivered+b.Deferred+b.Bounced, b.Accepted)
	}
	if len(buckets) == 0 || c.Most == 0 {
		c.Summary = "Nothing happened."
		return c
	}
	width := float64(chartWidth) / float64(len(buckets))
	height := func(n int64) float64 { return float64(n) / float64(c.Most) * (chartHeight - 4) }
	for i, b := range buckets {
		row := chartRow{b.At, b.At.UTC().Format(label), b.Accepted, b.Delivered, b.Deferred, b.Bounced}
		if i%perRow == 0 {
			c.Rows = append(c.Rows, row)
		} else {
			last := &c.Rows[len(c.Rows)-1]
			last.add(row)
		}
		c.Total.add(row)
		x, bottom := float64(i)*width, float64(chartHeight)
		one := bar{X: px(x), W: px(max(width-1, 1)), Title: fmt.Sprintf("%s to %s: %d sent, %d put off, %d refused, %d accepted",
			b.At.UTC().Format(label), b.At.Add(step).UTC().Format("15:04"), b.Delivered, b.Deferred, b.Bounced, b.Accepted)}
		piece := func(n int64) (y, h string, any bool) {
			if n == 0 {
				return "", "", false
			}
			tall := max(height(n), 1.5)
			bottom -= tall
			return px(bottom), px(tall), true
		}
		one.DeliveredY, one.DeliveredH, one.Delivered = piece(b.Delivered)
		one.DeferredY, one.DeferredH, one.Deferred = piece(b.Deferred)
		one.BouncedY, one.BouncedH, one.Bounced = piece(b.Bounced)
		one.Any = one.Delivered || one.Deferred || one.Bounced
		c.Bars = append(c.Bars, one)
		c.Line += fmt.Sprintf("%s,%s ", px(x+width/2), px(chartHeight-1-height(b.Accepted)))
	}
	c.Summary = fmt.Sprintf("%s sent, %s put off, %s refused.", number(c.Total.Delivered), number(c.Total.Deferred), number(c.Total.Bounced))
	return c
}

func (r *chartRow) add(o chartRow) {
	r.Accepted += o.Accepted
	r.Delivered += o.Delivered
	r.Deferred += o.Deferred
	r.Bounced += o.Bounced
}

func px(v float64) string { return fmt.Sprintf("%.1f", v) }
