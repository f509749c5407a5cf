package store_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

var sqlBlock = regexp.MustCompile("(?s)[ \t]*```sql\n(.*?)```")

func TestEverySQLExampleOfTheReadmeRuns(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if examples := runExamples(t, s, "../../README.md"); examples < 8 {
		t.Errorf("found %d examples in README.md; they are marked ```sql", examples)
	}
	got := column[string](t, s, "select coalesce(key, '-') || ' ' || external_customer_id || ' ' || state from polar.checkout_request order by 1")
	if len(got) != 2 || got[0] != "- usr_grace queued" || got[1] != "order-1234 usr_ada queued" {
		t.Errorf("the examples that create checkouts made %q", got)
	}
}

func TestEverySQLExampleOnLinkingRuns(t *testing.T) {
	t.Parallel()
	if examples := runExamples(t, storetest.New(t), "../../docs/linking.md"); examples < 3 {
		t.Errorf("found %d examples in docs/linking.md; they are marked ```sql", examples)
	}
}

// runExamples runs the SQL of a document and returns how many statements there are.
func runExamples(t *testing.T, s *store.Store, document string) (examples int) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range sqlBlock.FindAllStringSubmatch(string(text), -1) {
		for statement := range strings.SplitSeq(block[1], ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			examples++
			rows, err := s.Pool().Query(t.Context(), statement)
			if err == nil {
				_, err = pgx.CollectRows(rows, pgx.RowToMap)
			}
			if err != nil {
				t.Errorf("%v:\n%s", err, statement)
			}
		}
	}
	return examples
}
