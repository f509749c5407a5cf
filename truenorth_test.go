package truenorth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/truenorth-dev/truenorth"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
)

// TestMain fails where a test leaves a goroutine behind: all Clients and pools are closed by then.
func TestMain(m *testing.M) {
	code := storetest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var product = uuid.MustParse("5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01")

// app is a product's side of truenorth. There is no worker: the test plays it.
type app struct {
	t      *testing.T
	pool   *pgxpool.Pool
	client *truenorth.Client
}

func newApp(t *testing.T) *app {
	t.Helper()
	a := &app{t: t, pool: storetest.New(t).Pool()}
	a.client = truenorth.NewClient(a.pool)
	t.Cleanup(a.client.Close)
	return a
}

// onQuery sees each statement before it is sent, and may change its context.
type onQuery func(ctx context.Context, sql string) context.Context

func (f onQuery) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return f(ctx, data.SQL)
}

func (onQuery) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func newTracedApp(t *testing.T, trace onQuery) *app {
	t.Helper()
	config, err := pgxpool.ParseConfig(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.Tracer = trace
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	a := &app{t: t, pool: pool, client: truenorth.NewClient(pool)}
	t.Cleanup(a.client.Close)
	return a
}

func (a *app) exec(sql string, args ...any) {
	a.t.Helper()
	if _, err := a.pool.Exec(context.Background(), sql, args...); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
}

func (a *app) count(sql string, args ...any) int {
	a.t.Helper()
	var n int
	if err := a.pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (a *app) ask(options ...truenorth.CheckoutOption) uuid.UUID {
	a.t.Helper()
	id, err := a.client.CreateCheckout(a.t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{product}}, options...)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

// end brings a request to a state, as a worker does but for the notification.
func (a *app) end(id uuid.UUID, state string) {
	a.t.Helper()
	a.exec(`update polar.checkout_request
		set state = $2, url = 'https://polar.sh/checkout/' || id, checkout_id = gen_random_uuid(), expires_at = now() + interval '1 day',
		    error = case when $2 = 'failed' then 'Polar says no' end
		where id = $1`, id, state)
}

// listening counts the connections on which Clients wait for notifications.
func (a *app) listening() int {
	a.t.Helper()
	return a.count("select count(*) from pg_stat_activity where query ilike 'listen%polar_checkout%' and datname = current_database()")
}

func (a *app) untilListening(n int) {
	a.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := a.listening()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%d connections listen, want %d", got, n)
		}
		<-tick.C
	}
}

func TestABuyersURLComesWithTheNotificationAndNotWithTheNextPoll(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	type wait struct {
		id   uuid.UUID
		done chan error
	}
	waits := make([]wait, 9)
	for i := range waits {
		w := wait{a.ask(), make(chan error, 1)}
		waits[i] = w
		go func() {
			_, err := a.client.AwaitURL(ctx, w.id)
			w.done <- err
		}()
	}
	a.untilListening(1)
	// By then each polls but once a second, and all at about the same time. Taken from the last to the first, each
	// would have its poll just behind it, and without the notification wait for most of a second.
	slow := time.NewTimer(1700 * time.Millisecond)
	<-slow.C
	var delays []time.Duration
	for _, w := range slices.Backward(waits) {
		a.end(w.id, "open")
		a.exec("select pg_notify('polar_checkout', $1)", w.id.String())
		notified := time.Now()
		if err := <-w.done; err != nil {
			t.Fatal(err)
		}
		delays = append(delays, time.Since(notified))
	}
	slices.Sort(delays)
	if median := delays[len(delays)/2]; median > 300*time.Millisecond {
		t.Errorf("the median of %d waits is %s after the notification: %v", len(delays), median, delays)
	}
}

func TestARequestThatIsOverHasNoURL(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	for state, reason := range map[string]string{"failed": "Polar says no", "expired": "", "succeeded": ""} {
		id := a.ask()
		a.end(id, state)
		_, err := a.client.AwaitURL(t.Context(), id)
		over, ok := errors.AsType[*truenorth.CheckoutError](err)
		if !ok || *over != (truenorth.CheckoutError{RequestID: id, State: state, Reason: reason}) {
			t.Errorf("a request that is %s gives %v", state, err)
			continue
		}
		if text := over.Error(); !strings.Contains(text, id.String()) || !strings.Contains(text, state) || !strings.Contains(text, reason) {
			t.Errorf("the error of a request that is %s reads %q", state, text)
		}
	}
	for _, state := range []string{"open", "confirmed"} {
		id := a.ask()
		a.end(id, state)
		if url, err := a.client.AwaitURL(t.Context(), id); err != nil || url != "https://polar.sh/checkout/"+id.String() {
			t.Errorf("a request that is %s gives %q, %v", state, url, err)
		}
	}
}

func TestAwaitURLFindsARequestWhoseRowComesAMomentLater(t *testing.T) {
	t.Parallel()
	// River has the job, and a worker is about to take it.
	id := uuid.New()
	looked := make(chan struct{}, 1000)
	a := newTracedApp(t, func(ctx context.Context, sql string) context.Context {
		if strings.Contains(sql, "from polar.checkout_request") {
			looked <- struct{}{}
		}
		return ctx
	})
	got := make(chan error, 1)
	go func() {
		_, err := a.client.AwaitURL(t.Context(), id)
		got <- err
	}()
	for range 2 { // the second look means that the first found nothing
		select {
		case <-looked:
		case err := <-got:
			t.Fatalf("it gave up at once: %v", err)
		}
	}
	a.exec(`insert into polar.checkout_request (id, params, state, url, checkout_id) values ($1, '{}', 'open', 'https://polar.sh', gen_random_uuid())`, id)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestARequestThatNeverComesIsNotFound(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	id := uuid.New()
	if _, err := a.client.AwaitURL(t.Context(), id); !errors.Is(err, truenorth.ErrRequestNotFound) || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("AwaitURL gives %v", err)
	}
	if _, err := a.client.Request(t.Context(), id); !errors.Is(err, truenorth.ErrRequestNotFound) {
		t.Errorf("Request gives %v", err)
	}
}

func TestAwaitURLEndsWithItsContextAndMayBeCalledAgain(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	id := a.ask()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := a.client.AwaitURL(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that ends it gives %v", err)
	}
	a.end(id, "open")
	if _, err := a.client.AwaitURL(t.Context(), id); err != nil {
		t.Errorf("the second time it gives %v", err)
	}
}

func TestAllWhoWaitShareOneConnection(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	id := a.ask()
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() {
			_, err := a.client.AwaitURL(t.Context(), id)
			errs <- err
		}()
	}
	a.untilListening(1)
	a.end(id, "open")
	a.exec("select pg_notify('polar_checkout', $1)", id.String())
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	a.untilListening(1) // kept for a while, for the next buyer
}

func TestAClientThatIsClosedListensNoMoreYetServes(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	early, late := a.ask(), a.ask()
	got := make(chan error, 1)
	go func() {
		_, err := a.client.AwaitURL(t.Context(), early)
		got <- err
	}()
	a.untilListening(1)
	a.client.Close()
	a.client.Close()
	a.untilListening(0)
	a.end(early, "open")
	if err := <-got; err != nil {
		t.Errorf("who waited before the Close got %v", err)
	}
	a.end(late, "open")
	if _, err := a.client.AwaitURL(t.Context(), late); err != nil {
		t.Errorf("who waits after the Close gets %v", err)
	}
	if n := a.listening(); n != 0 {
		t.Errorf("%d connections listen after the Close", n)
	}
}

func TestWhereNobodyCanListenAwaitURLPolls(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{}, 1000)
	a := newTracedApp(t, func(ctx context.Context, sql string) context.Context {
		if !strings.HasPrefix(sql, "listen") {
			return ctx
		}
		refused <- struct{}{}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	})
	id := a.ask()
	got := make(chan error, 1)
	go func() {
		_, err := a.client.AwaitURL(t.Context(), id)
		got <- err
	}()
	<-refused
	a.end(id, "open")
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeRightIsAParamsErrorAndNothingIsWritten(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	good := truenorth.CheckoutParams{Products: []uuid.UUID{product}}
	for _, tt := range []struct {
		name   string
		params truenorth.CheckoutParams
		option truenorth.CheckoutOption
		path   string
	}{
		{"no product", truenorth.CheckoutParams{}, truenorth.WithKey("order-1"), "products"},
		{"a field that nobody knows", truenorth.CheckoutParams{Products: good.Products, Extra: map[string]json.RawMessage{"gift": json.RawMessage("1")}}, truenorth.WithKey("order-1"), "gift"},
		{"empty key", good, truenorth.WithKey(""), "key"},
		{"key of 256 characters", good, truenorth.WithKey(strings.Repeat("ü", 256)), "key"},
		{"key with NUL", good, truenorth.WithKey("a\x00b"), "key"},
		{"key that is no UTF-8", good, truenorth.WithKey("\xff"), "key"},
	} {
		refused := func(door string, err error) {
			t.Helper()
			if bad, ok := errors.AsType[*truenorth.ParamsError](err); !ok || len(bad.Fields) != 1 || bad.Fields[0].Path != tt.path {
				t.Errorf("%s, %s: got %v, want a ParamsError of %q", tt.name, door, err, tt.path)
			}
		}
		_, err := a.client.CreateCheckout(t.Context(), tt.params, tt.option)
		refused("CreateCheckout", err)
		_, err = truenorth.NewCreateCheckoutArgs(tt.params, tt.option)
		refused("NewCreateCheckoutArgs", err)
		err = pgx.BeginFunc(t.Context(), a.pool, func(tx pgx.Tx) error {
			_, err := a.client.CreateCheckoutTx(t.Context(), tx, tt.params, tt.option)
			refused("CreateCheckoutTx", err)
			_, err = tx.Exec(t.Context(), "select 1") // the caller's transaction is none the worse
			return err
		})
		if err != nil {
			t.Errorf("%s: the transaction was spoilt: %v", tt.name, err)
		}
	}
	if n := a.count("select count(*) from polar.checkout_request"); n != 0 {
		t.Errorf("%d requests were written", n)
	}
	a.ask(truenorth.WithKey(strings.Repeat("ü", 255)))
}

func TestARoleNeedsNoMoreThanItIsToldToHave(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	owner := storetest.Open(t, url).Pool()
	role := "app_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	server, err := pgx.Connect(t.Context(), storetest.ServerURL(t)) // the database's owner may not make roles
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close(context.Background()) })
	if _, err := server.Exec(t.Context(), "create role "+role+"; grant "+role+" to "+owner.Config().ConnConfig.User); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := server.Exec(context.Background(), "drop role "+role); err != nil {
			t.Error(err)
		}
	})
	a := &app{t: t, pool: owner}
	a.exec("grant usage on schema polar to " + role)
	a.exec("grant execute on function polar.create_checkout to " + role)
	a.exec("grant select on polar.checkout_request to " + role)
	t.Cleanup(func() { a.exec("drop owned by " + role) })

	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set role "+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	client := truenorth.NewClient(pool)
	t.Cleanup(client.Close)
	id, err := client.CreateCheckout(t.Context(), truenorth.CheckoutParams{Products: []uuid.UUID{product}}, truenorth.WithKey("order-1"))
	if err != nil {
		t.Fatal(err)
	}
	a.end(id, "open")
	if _, err := client.AwaitURL(t.Context(), id); err != nil {
		t.Error(err)
	}
	if request, err := client.Request(t.Context(), id); err != nil || request.Key != "order-1" || request.ExpiresAt.Before(time.Now()) {
		t.Errorf("the request reads as %+v, %v", request, err)
	}
	for _, sql := range []string{
		"delete from polar.checkout_request", "select * from polar.customer", "insert into polar.river_job (kind, args) values ('create_checkout', '{}')",
	} {
		if _, err := pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("the role may %s", sql)
		}
	}
}

// What stands in stored rows and in other programs must stay as it is.
func TestNamesAndIDsThatAreStoredStay(t *testing.T) {
	t.Parallel()
	if id := truenorth.RequestIDOfJob(42); id != uuid.MustParse("f1834c82-344c-5394-a20a-c43896584601") || id.Version() != 5 {
		t.Errorf("the request of job 42 is %s", id)
	}
	if truenorth.RequestIDOfJob(42) == truenorth.RequestIDOfJob(43) {
		t.Error("two jobs have one request")
	}
	var args truenorth.CreateCheckoutArgs
	if kind, opts := args.Kind(), args.InsertOpts(); kind != "create_checkout" || opts.Queue != "checkouts" || opts.MaxAttempts != 1000 {
		t.Errorf("kind %s, options %+v", kind, opts)
	}
	empty, err := json.Marshal(args)
	if err != nil || string(empty) != "{}" {
		t.Errorf("empty args are %s, %v", empty, err)
	}
	args, err = truenorth.NewCreateCheckoutArgs(truenorth.CheckoutParams{Products: []uuid.UUID{product}}, truenorth.WithKey("order-1"))
	if err != nil {
		t.Fatal(err)
	}
	full, err := json.Marshal(args)
	want := fmt.Sprintf(`{"request_id":%q,"key":"order-1","params":{"products":[%q]}}`, args.RequestID, product)
	if err != nil || string(full) != want {
		t.Errorf("args are %s, %v, want %s", full, err, want)
	}
}
