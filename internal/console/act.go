package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/truenorth-dev/truenorth/internal/jobs"
	"github.com/truenorth-dev/truenorth/internal/store"
)

// act does what an operator asks with a form, and leads to where it shows.
func (c *Console) act(do func(context.Context, *http.Request, store.Word) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		word, err := c.word(w, r)
		if err != nil {
			c.fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
		defer cancel()
		next, err := do(ctx, r, word)
		if err != nil {
			c.fail(w, r, said(err))
			return
		}
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// word reads who asks by a form, and why, once it is sure that the form is one of ours.
func (c *Console) word(w http.ResponseWriter, r *http.Request) (store.Word, error) {
	who := visitorOf(r.Context())
	if !who.Operator {
		return store.Word{}, refused(http.StatusForbidden, "The reader's password is for reading only. Come with the operator's.")
	}
	if err := c.readForm(r); err != nil {
		return store.Word{}, err
	}
	if !who.Asked {
		if name := cleanName(r.PostForm.Get("name")); name != "" {
			who.Name = name
			http.SetCookie(w, &http.Cookie{ //nolint:gosec // no secret, and it has to work without TLS on loopback
				Name: nameCookie, Value: url.PathEscape(name), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int((365 * 24 * time.Hour).Seconds()),
			})
		}
	}
	if who.Name == "" {
		return store.Word{}, refused(http.StatusBadRequest, "Say who you are: what is changed here stands in the audit trail.")
	}
	word := store.Word{Actor: who.Name, Reason: strings.TrimSpace(r.PostForm.Get("reason")), Door: store.DoorConsole}
	if err := jobs.CheckWord(word); err != nil {
		return store.Word{}, said(err)
	}
	return word, nil
}

// readForm reads a form that this console has signed.
func (c *Console) readForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			return refused(http.StatusRequestEntityTooLarge, "That is too much for this form.")
		}
		return refused(http.StatusBadRequest, "The form could not be read.")
	}
	if !c.forms.isValid(r.PostForm.Get("token"), boundName(visitorOf(r.Context())), time.Now()) {
		return refused(http.StatusForbidden, "This form is out of date. Go back, load the page again and press the button again.")
	}
	return nil
}

// said makes of why something was not done what a person is told.
func said(err error) error {
	switch {
	case errors.Is(err, jobs.ErrWord):
		return refused(http.StatusBadRequest, "Give a reason, and your own name: both stand in the audit trail. Nothing was changed.")
	case errors.Is(err, jobs.ErrTooMany):
		return refused(http.StatusBadRequest, "At most %d events can be replayed at once. Nothing was done.", jobs.MostReplayed)
	case errors.Is(err, store.ErrRefused):
		return refused(http.StatusUnprocessableEntity, "Refused: %s. Nothing was changed.", err)
	case errors.Is(err, jobs.ErrNoUser), errors.Is(err, jobs.ErrNoCustomer):
		return refused(http.StatusNotFound, "Nothing was changed: %s.", err)
	}
	for _, known := range []error{
		jobs.ErrSettled, jobs.ErrCustomerDeleted, jobs.ErrCustomerLinked, jobs.ErrUserLinked, jobs.ErrNotLinked,
		jobs.ErrRequestLive, jobs.ErrRequestOver, store.ErrNothingOpen,
	} {
		if errors.Is(err, known) {
			return refused(http.StatusConflict, "Nothing was changed: %s.", err)
		}
	}
	return err
}

// news tells what became of something, by what is known and never by the address alone.
type news struct {
	Tone string // good, warn or calm
	Text string
}

// done is an address with what was done there.
func done(path, what string, numbers ...int64) string {
	values := url.Values{"done": {what}}
	for _, n := range numbers {
		values.Add("n", strconv.FormatInt(n, 10))
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return path + separator + values.Encode()
}

// told puts in words what an address says was done. Only words of ours can be told.
func told(query url.Values) *news {
	n := make([]int64, 3)
	for i, text := range query["n"] {
		if i < len(n) {
			n[i], _ = strconv.ParseInt(text, 10, 64)
		}
	}
	switch query.Get("done") {
	case "linked":
		return &news{"good", "Linked. The history keeps who said so, and why."}
	case "unlinked":
		return &news{"good", "Unlinked. It stays so until a person links the two again."}
	case "resolved":
		return &news{"good", "Settled. The history keeps who said so, and why."}
	case "asked":
		return &news{"good", "Asked anew: this is the new request."}
	case "woken":
		return &news{"good", "A worker takes it up now."}
	case "sweep":
		return &news{"good", "A sweep was asked for. What it finds shows here."}
	case "retried":
		if n[0] == 0 {
			return &news{"calm", "No failed event fits."}
		}
		return &news{"good", plural(n[0], "failed event") + " will be tried again by the workers."}
	case "replayed":
		text := plural(n[0]-n[1], "event") + " applied again."
		if n[2] > 0 {
			text += " " + plural(n[2], "event") + " left out: no longer kept."
		}
		if n[1] > 0 {
			return &news{"warn", text + " " + plural(n[1], "event") + " failed."}
		}
		return &news{"good", text}
	}
	return nil
}
