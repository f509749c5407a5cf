package cmdconfig_test

import (
	"strings"
	"testing"
	"time"

	"github.com/truenorth-dev/truenorth/cmd/internal/cmdconfig"
)

func TestEventsAreKeptAsLongAsPolarKeepsThemOrAsIsSaid(t *testing.T) {
	t.Parallel()

	for given, want := range map[string]time.Duration{"": 90 * 24 * time.Hour, "720h": 720 * time.Hour, "1m": time.Minute, "8760h": 8760 * time.Hour} {
		environ := []string{"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token, "EVENT_RETENTION=" + given}
		worker, err := cmdconfig.ReadWorker(environ)
		if err != nil || worker.EventRetention != want {
			t.Errorf("%q keeps events for %s, %v; want %s", given, worker.EventRetention, err, want)
		}
		operator, err := cmdconfig.ReadOperator(environ)
		if err != nil || operator.Retention != worker.Retention {
			t.Errorf("of %q the operator reads %s, %v", given, operator.EventRetention, err)
		}
	}
	for _, given := range []string{"0", "0s", "-1h", "90d", "2160", "59s", "forever"} {
		_, err := cmdconfig.ReadWorker([]string{"DATABASE_URL=" + databaseURL, "POLAR_ACCESS_TOKEN=" + token, "EVENT_RETENTION=" + given})
		if err == nil || !strings.Contains(err.Error(), "EVENT_RETENTION is") || !strings.Contains(err.Error(), "2160h") {
			t.Errorf("%q: %v, want it named, and what to give", given, err)
		}
	}
}
