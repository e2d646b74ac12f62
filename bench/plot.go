package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of the plot, in its own units.
const (
	plotWidth  = 860
	labelWidth = 120
	barArea    = 250
	barHeight  = 18
	caseGap    = 44
)

// plot draws every case as bars: messages at the relay per second to the left,
// CPU per message to the right. Each case has its own scale.
func (r *Results) plot() string {
	var b strings.Builder
	y := 40
	for _, c := range r.Cases {
		y += caseGap
		fmt.Fprintf(&b, `<text x="10" y="%d" class="title">%s</text>`+"\n", y-14, html.EscapeString(c.Title))
		for _, s := range c.Systems {
			drawSystem(&b, c, s, y)
			y += barHeight + 4
		}
	}
	y += 30
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<style>.title{font-weight:bold;font-size:13px}.ours{fill:#0b6e4f}.peer{fill:#9fb4c7}text{fill:#222}</style>
<rect width="%d" height="%d" fill="#fff"/>
<text x="%d" y="24" class="title">messages at the relay per second (longer is better)</text>
<text x="%d" y="24" class="title">CPU ms per message (shorter is better)</text>
`, plotWidth, y, plotWidth, y, labelWidth, labelWidth+barArea+140)
	foot := fmt.Sprintf(`<text x="10" y="%d">%s, commit %s</text>`, y-10, r.Date, html.EscapeString(r.Commit))
	return head + b.String() + foot + "\n</svg>\n"
}

func drawSystem(b *strings.Builder, c *CaseResult, s SystemResult, y int) {
	class := "peer"
	if s.Name == mailsidecar.name {
		class = "ours"
	}
	fmt.Fprintf(b, `<text x="10" y="%d">%s</text>`+"\n", y+13, html.EscapeString(s.Name))
	drawBar(b, labelWidth, y, class, s.Median.RelayPerSecond, c.largest(relayRate), "%.0f")
	drawBar(b, labelWidth+barArea+140, y, class, s.Median.CPUMillis, c.largest(cpu), "%.2f")
}

func drawBar(b *strings.Builder, x, y int, class string, value, largest float64, format string) {
	width := 0.0
	if largest > 0 {
		width = value / largest * barArea
	}
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" class="%s"/><text x="%.1f" y="%d">`+format+"</text>\n",
		x, y, max(width, 1), barHeight, class, float64(x)+width+5, y+13, value)
}

func (c *CaseResult) largest(figure func(Sample) float64) float64 {
	most := 0.0
	for _, s := range c.Systems {
		most = max(most, figure(s.Median))
	}
	return most
}
