package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress tells how far long work is: by a bar at a terminal, elsewhere by a line now and then, so that a log shows
// that something is going on.
type progress struct {
	e        *environment
	terminal bool
	label    string
	bar      *progressbar.ProgressBar
	said     time.Time // when the last line was
}

// linesApart is how long a log is left alone.
const linesApart = 10 * time.Second

func newProgress(e *environment) *progress {
	return &progress{e: e, terminal: isTerminal(e.stderr) && !e.json, said: time.Now()}
}

// show tells how many of total objects are done; 0: the total is not known. Another label begins a new bar.
func (p *progress) show(label string, done, total int64) {
	if !p.terminal {
		text := fmt.Sprintf("%s: %d", label, done)
		if total > 0 {
			text += fmt.Sprintf(" of %d", total)
		}
		p.now(text)
		return
	}
	if total <= 0 {
		total = -1
	}
	if p.bar == nil || label != p.label {
		p.close()
		p.label = label
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.e.stderr), progressbar.OptionSetDescription(label),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	if p.bar.GetMax64() != total {
		p.bar.ChangeMax64(max(total, done))
	}
	_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop
}

// step tells what is being done, where there is nothing to count.
func (p *progress) step(text string) {
	if !p.terminal {
		p.now(text + " ...")
		return
	}
	if text == p.label {
		return
	}
	p.close()
	p.label = text
	_, _ = io.WriteString(p.e.stderr, text+" ...\n")
}

// now writes a line, unless there was one just now.
func (p *progress) now(text string) {
	if time.Since(p.said) < linesApart {
		return
	}
	p.said = time.Now()
	p.e.notef("%s", text)
}

// close takes the bar away.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_, _ = io.WriteString(p.e.stderr, "\r\033[K") // whatever was drawn at the same time
		p.bar = nil
	}
}
