package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar on a terminal; anywhere else it is silent.
type progress struct {
	w     io.Writer // nil: not a terminal
	label string
	total int64
	begun time.Time
	drawn time.Time
}

// newProgress begins a bar for total steps; with a total of 0, it only counts.
func newProgress(w io.Writer, label string, total int64) *progress {
	p := &progress{label: label, total: total, begun: time.Now()}
	if file, ok := w.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.w = w
		}
	}
	return p
}

// set shows that so many steps are done.
func (p *progress) set(done int64) {
	const width, often = 30, 100 * time.Millisecond
	now := time.Now()
	if p.w == nil || now.Sub(p.drawn) < often && done < p.total {
		return
	}
	p.drawn = now
	rate := float64(done) / max(now.Sub(p.begun).Seconds(), 0.001)
	if p.total <= 0 {
		fmt.Fprintf(p.w, "\r\033[K%s: %d, %.0f/s", p.label, done, rate)
		return
	}
	share := min(float64(done)/float64(p.total), 1)
	full := int(share * width)
	left := ""
	if done > 0 && done < p.total {
		left = ", " + time.Duration(float64(p.total-done)/rate*float64(time.Second)).Round(time.Second).String() + " left"
	}
	fmt.Fprintf(p.w, "\r\033[K%s [%s%s] %3.0f%% %d/%d, %.0f/s%s", p.label, strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100, done, p.total, rate, left)
}

// done takes the bar away.
func (p *progress) done() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
