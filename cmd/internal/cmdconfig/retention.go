package cmdconfig

import (
	"fmt"
	"time"
)

// Retention is how long things are kept.
type Retention struct {
	// EventRetention is after how long events go. Their ids stay for the 90 days in which Polar can redeliver them.
	EventRetention time.Duration `env:"EVENT_RETENTION" envDefault:"2160h" form:"a duration such as 2160h"`
}

func (c Retention) checkRetention() error {
	const shortest = time.Minute // what is younger may still be on its way in
	if c.EventRetention < shortest {
		return fmt.Errorf("EVENT_RETENTION is %s: give %s at least, such as 2160h (what is removed is gone)", c.EventRetention, shortest)
	}
	return nil
}
