// Watch says on each line what its clocks show, and what became of a deadline that it set itself at the start.
package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"time"
)

func main() {
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	line := struct {
		Wall          time.Time
		Elapsed       time.Duration // by the monotonic clock
		DeadlineAfter time.Duration // zero: not yet
		ReadGaveUp    time.Duration // zero: not yet; a read from the network with the same deadline
	}{}
	gaveUp := make(chan time.Duration, 1)
	go func() {
		silent, _ := net.Pipe()
		_ = silent.SetReadDeadline(started.Add(time.Second))
		_, _ = silent.Read(make([]byte, 1))
		gaveUp <- time.Since(started)
	}()
	output := json.NewEncoder(os.Stdout)
	expired := ctx.Done()
	for range time.Tick(20 * time.Millisecond) {
		select {
		case <-expired:
			line.DeadlineAfter, expired = time.Since(started), nil
		case line.ReadGaveUp = <-gaveUp:
		default:
		}
		line.Wall, line.Elapsed = time.Now(), time.Since(started)
		if output.Encode(line) != nil {
			return
		}
	}
}
