package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// The kinds of entry.
const (
	kindDelivery     = "delivery"     // ingest was sent a valid delivery, by an observer outside of all faults
	kindForged       = "forged"       // somebody without a secret or a key tried to come in
	kindAsked        = "asked"        // the app began to ask for a checkout
	kindAcknowledged = "acknowledged" // its transaction is known to be committed
	kindOpened       = "opened"       // a buyer has the page of a checkout, or the app knows why there is none
	kindMemory       = "memory"       // what a program holds
	kindFault        = "fault"        // a fault began
	kindHealed       = "healed"       // and ended
	kindPrimary      = "primary"      // a server became the primary
	kindWhole        = "whole"        // there is a primary with a synchronous standby: commits need not wait
	kindAlone        = "alone"        // and there is not
	kindEnded        = "ended"        // a program ended by itself
	kindQuiet        = "quiet"        // everything was worked, after the last fault
)

// entry is one thing that happened, as those saw it who stand outside of the faults.
type entry struct {
	At       int64  `json:"at"` // milliseconds from the beginning of the run
	Kind     string `json:"kind"`
	Host     string `json:"host,omitempty"`
	ID       string `json:"id,omitempty"`     // webhook-id of a delivery
	Status   int    `json:"status,omitempty"` // of the answer; none: none came
	Took     int64  `json:"took,omitempty"`   // milliseconds
	Told     bool   `json:"told,omitempty"`   // the answer told when to try again
	What     string `json:"what,omitempty"`   // what was forged; what went wrong; which fault
	Key      string `json:"key,omitempty"`
	Request  string `json:"request,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	Fault    int    `json:"fault,omitempty"`
	Timeline int    `json:"timeline,omitempty"`
}

func (e entry) accepted() bool { return e.Kind == kindDelivery && e.Status >= 200 && e.Status < 300 }

// history is the log of a run: in memory, and line by line in a file.
type history struct {
	began time.Time

	mu      sync.Mutex
	entries []entry
	file    *os.File
	buffer  *bufio.Writer
}

func newHistory(path string) (*history, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("making the log of the run: %w", err)
	}
	return &history{began: time.Now(), file: file, buffer: bufio.NewWriter(file)}, nil
}

// note adds an entry, with the time.
func (h *history) note(e entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = time.Since(h.began).Milliseconds()
	h.entries = append(h.entries, e)
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	_, _ = h.buffer.Write(append(line, '\n')) // close tells
}

func (h *history) all() []entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.entries)
}

func (h *history) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.buffer.Flush(), h.file.Close())
}

// readHistory reads what a history wrote.
func readHistory(r io.Reader) (entries []entry, err error) {
	decoder := json.NewDecoder(r)
	for {
		var e entry
		switch err := decoder.Decode(&e); {
		case errors.Is(err, io.EOF):
			return entries, nil
		case err != nil:
			return nil, fmt.Errorf("reading entry %d of the log: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
}
