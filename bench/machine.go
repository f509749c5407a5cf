package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// MachineFacts say where the numbers come from.
type MachineFacts struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MemoryMiB   int64  `json:"memory_mib"`
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	LoadAverage string `json:"load_average_before"`
}

// RunFacts say how they were made.
type RunFacts struct {
	Date        string  `json:"date"`
	TookSeconds float64 `json:"took_seconds"`
	Smoke       bool    `json:"smoke"`
	Profiled    bool    `json:"profiled"`
	Rounds      int     `json:"rounds"`
	FocusRounds int     `json:"focus_rounds"`
	LongRounds  int     `json:"long_rounds"`
	Duration    string  `json:"duration"`
	Warm        string  `json:"warm"`
	Batch       int     `json:"batch"`
}

func (o options) facts() RunFacts {
	return RunFacts{
		Date: time.Now().UTC().Format(time.DateOnly), Smoke: o.short, Profiled: o.profiles != "", Rounds: o.rounds, FocusRounds: o.focusRounds,
		LongRounds: o.longRounds, Duration: o.duration.String(), Warm: o.warm.String(), Batch: o.batch,
	}
}

func machine() (MachineFacts, error) {
	m := MachineFacts{Cores: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go")}
	for file, read := range map[string]func(text string){
		"/proc/cpuinfo": func(text string) { m.CPU = fieldOf(text, "model name") },
		"/proc/meminfo": func(text string) {
			var kib int64
			_, _ = fmt.Sscan(fieldOf(text, "MemTotal"), &kib)
			m.MemoryMiB = kib >> 10
		},
		"/proc/sys/kernel/osrelease": func(text string) { m.Kernel = strings.TrimSpace(text) },
		"/proc/loadavg": func(text string) {
			m.LoadAverage = strings.Join(strings.Fields(text)[:1], "")
		},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			return m, fmt.Errorf("asking for the machine, which needs Linux: %w", err)
		}
		read(string(bytes.TrimSpace(text)))
	}
	return m, nil
}

// fieldOf is the value of the first line "name: value".
func fieldOf(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
