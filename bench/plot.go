//go:build linux

package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of a plot, in pixels.
const (
	plotWidth  = 720
	labelWidth = 300
	barHeight  = 18
	barStep    = 26
	plotTop    = 34
)

// bars draws the first column of a table as bars, with their intervals; it is empty for tables with fewer than two bars.
func bars(t *Table) string {
	most, n := 0.0, 0
	for _, r := range t.Rows {
		if len(r.Figures) > 0 && r.Figures[0] != nil {
			most, n = max(most, r.Figures[0].High, r.Figures[0].Median), n+1
		}
	}
	if n < 2 || most <= 0 {
		return ""
	}
	var b strings.Builder
	height := plotTop + barStep*len(t.Rows) + 6
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="20" font-weight="bold">%s</text>`+"\n",
		html.EscapeString(strings.TrimSuffix(t.Columns[0].Name+", "+t.Columns[0].Unit, ", ")))
	scale := float64(plotWidth-labelWidth-90) / most
	for i, r := range t.Rows {
		if len(r.Figures) == 0 || r.Figures[0] == nil {
			continue
		}
		f, y := r.Figures[0], plotTop+barStep*i
		colour := "#8a9bb0"
		if strings.HasPrefix(r.Name, "Tidegate") {
			colour = "#1f7a8c"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+13, html.EscapeString(r.Name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, f.Median*scale, barHeight, colour)
		fmt.Fprintf(&b, `<path d="M%.1f %d H%.1f" stroke="#222"/>`, labelWidth+f.Low*scale, y+barHeight/2, labelWidth+f.High*scale)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+max(f.High, f.Median)*scale+6, y+13, number(f.Median))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
