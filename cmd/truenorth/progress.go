package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows on a terminal how far long work is; elsewhere it shows nothing.
type progress struct {
	w     io.Writer // nil where there is no terminal
	label string
	bar   *progressbar.ProgressBar
}

func newProgress(w io.Writer) *progress {
	if file, ok := w.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &progress{w: w}
	}
	return &progress{}
}

// show tells how many of total objects are done; 0: the total is not known. Another label begins a new bar.
func (p *progress) show(label string, done, total int64) {
	if p.w == nil {
		return
	}
	if total <= 0 {
		total = -1
	}
	if p.bar == nil || label != p.label {
		p.close()
		p.label = label
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(label),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	if p.bar.GetMax64() != total {
		p.bar.ChangeMax64(max(total, done))
	}
	_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop
}

// note shows a line in place of a bar.
func (p *progress) note(text string) {
	if p.w == nil || text == p.label {
		return
	}
	p.close()
	p.label = text
	_, _ = io.WriteString(p.w, text+" ...\n")
}

// close takes the bar away.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_, _ = io.WriteString(p.w, "\r\033[K") // whatever was drawn at the same time
		p.bar = nil
	}
}
