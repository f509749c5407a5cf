package store_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

var sqlBlock = regexp.MustCompile("(?s)[ \t]*```sql\n(.*?)```")

func TestEverySQLExampleOfTheReadmeRuns(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
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
	if examples < 8 {
		t.Errorf("found %d examples in README.md; they are marked ```sql", examples)
	}
	got := column[string](t, s, "select coalesce(key, '-') || ' ' || external_customer_id || ' ' || state from polar.checkout_request order by 1")
	if len(got) != 2 || got[0] != "- usr_grace queued" || got[1] != "order-1234 usr_ada queued" {
		t.Errorf("the examples that create checkouts made %q", got)
	}
}
