package ingest

// Waiting is how many deliveries wait for a writer.
func (rc *Receiver) Waiting() int {
	rc.committer.mu.Lock()
	defer rc.committer.mu.Unlock()
	return len(rc.committer.waiting)
}

// WakeAtMostEach is how far apart the workers are notified.
const WakeAtMostEach = wakeAtMostEach
