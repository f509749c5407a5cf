package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

func TestWhoIsNotLetInIsToldWhat(t *testing.T) {
	t.Parallel()
	right, err := url.Parse(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*url.URL)
		says   string
	}{
		"the user":     {func(u *url.URL) { u.User = url.UserPassword("nobody_"+uuid.NewString(), "hidden-word") }, "nobody_"},
		"the database": {func(u *url.URL) { u.Path = "/nowhere" }, `"nowhere" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := *right
			c.change(&wrong)
			environ := "DATABASE_URL=" + wrong.String()
			for _, command := range []string{"status", "doctor"} {
				stdout, stderr, _ := called([]string{command}, environ)
				told := stdout + stderr
				for _, want := range []string{"the database does not let us in", c.says, adviceDenied} {
					if !strings.Contains(told, want) {
						t.Errorf("%s does not say %q:\n%s", command, want, told)
					}
				}
				if password, _ := wrong.User.Password(); password != "" && strings.Contains(told, password) {
					t.Errorf("%s shows the password:\n%s", command, told)
				}
			}
		})
	}
}

func TestACheckoutThatHasNoURLInTimeIsKept(t *testing.T) {
	t.Parallel()
	o, _ := newTour(t)
	for _, wait := range []string{"50ms", "1us"} {
		_, stderr := o.run(exitFailed, "checkout", "create", "--product", polarfake.OneTimeProductID, "--wait", wait)
		id := anyUUID.FindString(stderr)
		for _, want := range []string{"no URL within", id + " is kept", "truenorth checkout get " + id, "whether a worker is alive"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("--wait %s does not say %q:\n%s", wait, want, stderr)
			}
		}
		o.run(0, "checkout", "get", id)
	}
}

func TestNumbersAgreeWithTheirNouns(t *testing.T) {
	t.Parallel()
	o, _ := newTour(t)
	o.conflict(o.customer("ada@corp.example"), "usr_ada")
	if _, stderr := o.run(exitFound, "status", "--exit-code"); !strings.Contains(stderr, "1 conflict open, ") {
		t.Errorf("status says %q", stderr)
	}
	if _, stderr := o.run(exitFailed, "endpoint", "redeliver", uuid.NewString()); !strings.Contains(stderr, "not sent again: 1 of 1 event") {
		t.Errorf("redeliver says %q", stderr)
	}
	o.exec("update polar.customer set doc = jsonb_set(doc, '{created_at}', to_jsonb(now()))")
	if stdout := o.shows(0, "conflicts", "show", "1"); !strings.Contains(stdout, "less than a day ago") {
		t.Errorf("the customer was made just now:\n%s", stdout)
	}
}
