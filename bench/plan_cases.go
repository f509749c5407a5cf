package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Values of the cases, as expressions of SQL on the large database.
const (
	someCustomers = "array(select c.id from polar.customer c order by c.id limit 64)"
	someUsers     = "array(select l.local_user_id from polar.customer_link l order by l.customer_id limit 64)"
	someCheckouts = "array(select c.id from polar.checkout c order by c.id limit 64)"
	oneCustomer   = "(select l.customer_id from polar.customer_link l order by l.customer_id limit 1)"
	oneUser       = "(select l.local_user_id from polar.customer_link l order by l.customer_id limit 1)"
	oneRequest    = "(select r.id from polar.checkout_request r where r.state = 'succeeded' order by r.id limit 1)"
	halfway       = "(select swept_seq / 2 from polar.event_sweep)"
	dayAgo        = "(select swept_seq - swept_seq / 90 from polar.event_sweep)" // what EventSeqSince finds
	aMomentAgo    = "now() - interval '1 hour'"
	aMonthAgo     = "now() - interval '30 days'"
	noUUID        = "'00000000-0000-0000-0000-000000000000'"
	aRun          = "(select max(id) from polar.reconcile_run)"
)

// arrived are events that were received in ten batches, with their jobs, and are not applied.
const arrived = `
with batches as (select nextval('polar.event_batch') as number from generate_series(1, 10)), jobs as (
	insert into polar.river_job (kind, args, queue, max_attempts)
	select 'apply_events', jsonb_build_object('batch', b.number, 'size', 40), 'events', 1000 from batches b
)
insert into polar.event_log (webhook_id, type, object_id, occurred_at, received_at, batch, body)
select gen_random_uuid()::text, l.type, l.object_id, now(), now() - interval '2 minutes', b.number, l.body
  from batches b cross join (select e.type, e.object_id, e.body from polar.event_log e order by e.seq limit 40) l;`

// arrivedAndApplied are such events after their turn.
const arrivedAndApplied = arrived + `
insert into polar.event_outcome (seq, state, applied_at) select l.seq, 'applied', now() from polar.event_log l where l.seq > (select swept_seq from polar.event_sweep);
delete from polar.river_job;`

// lastBatch is one of those that have just arrived.
const lastBatch = "(select batch from polar.event_log order by seq desc limit 1)"

// delivered are the values of a group commit's deliveries.
var delivered = map[string]string{
	"webhook_ids": "array(select gen_random_uuid()::text from generate_series(1, 64))", "types": "array_fill('customer.updated'::text, array[64])",
	"object_ids": "(select array_agg(c.id::text) from (select id from polar.customer order by id limit 64) c)", "occurred_ats": "array_fill(now(), array[64])",
	"bodies": "(select array_agg(l.body) from (select body from polar.event_log order by seq limit 64) l)", "body_bytes": "array_fill(''::bytea, array[64])", "notify": "false", "metadata": "'{}'",
}

// page is the first page of a list by time or by number, with further parameters by name and value.
func page(further ...string) map[string]string {
	values := map[string]string{"max_rows": "51", "before_at": "'9999-12-31'::timestamptz", "before_id": "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"}
	for pair := range slices.Chunk(further, 2) {
		values[pair[0]] = pair[1]
	}
	return values
}

// eventPage is the same of events.
func eventPage(further ...string) map[string]string {
	values := page(further...)
	values["before_seq"], values["from_seq"] = "9223372036854775807", "0"
	return values
}

// versions are newer versions of stored objects of a type.
func versions(table string) map[string]string {
	some := "(select %s from (select t.id, t.doc from polar." + table + " t order by t.id limit 64) o)"
	pick := func(what string) string { return fmt.Sprintf(some, what) }
	return map[string]string{
		"object_type": "'" + strings.Trim(table, `"`) + "'", "ids": pick("array_agg(o.id order by o.id)"),
		"docs":       pick("array_agg(o.doc || jsonb_build_object('modified_at', now()) order by o.id)"),
		"tombstones": "array_fill(false, array[64])", "version_ats": "array_fill(now(), array[64])", "version_from": "'event'",
		"webhook_ids": "array(select gen_random_uuid()::text from generate_series(1, 64))", "lift": "false", "target": "'polar'",
	}
}

// read is a page of Polar's list of objects of a type, in which nothing differs.
func read(table string) map[string]string {
	return map[string]string{
		"object_type": "'" + strings.Trim(table, `"`) + "'", "read_at": "now()",
		"ids":  "(select array_agg(o.id order by o.id) from (select t.id, t.doc from polar." + table + " t order by t.created_at limit 100) o)",
		"docs": "(select array_agg(o.doc order by o.id) from (select t.id, t.doc from polar." + table + " t order by t.created_at limit 100) o)",
	}
}

// unseen is the range of such a page in the middle of the list.
func unseen(table, key string) map[string]string {
	at := func(offset string) string {
		return "(select o." + key + " from polar." + table + " o where o." + key + " >= " + aMonthAgo + " order by o." + key + " limit 1 offset " + offset + ")"
	}
	return map[string]string{
		"object_type": "'" + strings.Trim(table, `"`) + "'", "sort_key": "'" + key + "'", "from_key": at("0"), "until_key": at("10"),
		"seen":   "array(select o.id from polar." + table + " o where o." + key + " >= " + aMonthAgo + " order by o." + key + " limit 10)",
		"run_id": aRun, "after_id": noUUID, "max_rows": "1000",
	}
}

// replayed are the values of a replay from the middle of the log on.
var replayed = map[string]string{
	"after": halfway, "up_to": "(select swept_seq from polar.event_sweep)", "since": "'-infinity'::timestamptz", "types": "'{}'::text[]",
	"max_rows": "512", "max_bytes": "16777216", "window_size": "20000",
}

// drifted are differences of some customers.
var drifted = map[string]string{
	"object_type": "'customer'", "run_id": aRun, "repaired": "true",
	"object_ids": "(select array_agg(c.id::text) from (select id from polar.customer order by id limit 20) c)", "fields": "array_fill('name'::text, array[20])",
	"locals": "array_fill('Ada'::text, array[20])", "local_nulls": "array_fill(false, array[20])",
	"remotes": "array_fill('Bob'::text, array[20])", "remote_nulls": "array_fill(false, array[20])", "causes": "array_fill('lost_event'::text, array[20])",
}

// firstRows is for a page of a list.
func firstRows(n string) map[string]string { return map[string]string{"max_rows": n} }

// ofCustomers is for what is asked of some customers at once.
func ofCustomers() map[string]string {
	return map[string]string{
		"ids": someCustomers, "customer_ids": someCustomers, "local_user_ids": someUsers, "bases": "array_fill('external_id'::text, array[64])",
		"checkout_ids": someCheckouts, "reasons": "array_fill('unlinked'::text, array[64])", "actor": "'truenorth'", "note": "''", "ended_by": "'truenorth'", "end_note": "''",
	}
}

// views are what apps ask, on connections of their own.
const views = "Views"

// planCases are what the programs ask often, and what a person waits for.
var planCases = slices.Concat(
	grouped("Receive", []planCase{
		{query: "EventInsert", values: map[string]string{
			"webhook_id": "gen_random_uuid()", "type": "'customer.updated'", "object_id": oneCustomer, "occurred_at": "now()",
			"body": "(select body from polar.event_log order by seq limit 1)", "body_bytes": "''::bytea", "notify": "false", "metadata": "'{}'",
		}},
		{query: "EventInsertMany", name: "64 at once", values: delivered},
		{query: "EventListUnknown", values: map[string]string{"webhook_ids": "array(select l.webhook_id from polar.event_log l order by l.seq desc limit 100)"}},
	}),
	grouped("Apply", []planCase{
		{query: "EventTakeMany", before: arrived, values: map[string]string{"jobs": "64", "room": "448", "batch": lastBatch, "worker": "'w'"}},
		{query: "EventListByBatch", before: arrived, values: map[string]string{"batch": lastBatch}},
		{query: "EventListBySeq", before: arrived, values: map[string]string{"seqs": "array(select seq from polar.event_log order by seq desc limit 64)"}},
		{query: "MirrorObjects", name: "64 customers", inside: true, values: versions("customer")},
		{query: "MirrorObjects", name: "64 checkouts", inside: true, values: versions("checkout")},
		{query: "MirrorObjects", name: "64 grants", inside: true, values: versions("benefit_grant")},
		{query: "MirrorCustomerStates", name: "64", inside: true, values: versions("customer")},
		{query: "OverlayCustomerStates", name: "64", inside: true, values: versions("customer")},
		{query: "CheckoutRequestFollow", values: ofCustomers()},
		{query: "CheckoutRequestDuplicateSessions", values: ofCustomers()},
		{query: "DriftEndDuplicates", values: ofCustomers()},
		{query: "EventOutcomeUpsertMany", name: "512", values: map[string]string{
			"seqs": "array(select (select swept_seq from polar.event_sweep) + n from generate_series(1, 512) n)", "errors": "array_fill(''::text, array[512])",
		}},
	}),
	grouped("Link", []planCase{
		{query: "LinkSubjectList", values: ofCustomers()},
		{query: "LinkEvidenceList", values: ofCustomers()},
		{query: "LinkConflictList", values: ofCustomers()},
		{query: "LocalUserListAlive", values: map[string]string{"ids": someUsers}},
		{query: "CustomerLinkListByUser", values: ofCustomers()},
		{query: "LinkClaimantList", values: ofCustomers()},
		{query: "CustomerLinkUpsertMany", values: ofCustomers()},
		{query: "CustomerLinkHistoryOpenMany", values: ofCustomers()},
		{query: "CustomerLinkHistoryEndMany", values: ofCustomers()},
		{name: "polar.link_user", inside: true, sql: "select polar.link_user(@id)", values: map[string]string{"id": oneUser}},
	}),
	grouped("Upkeep, every five seconds", []planCase{
		{query: "EventSweep", before: arrivedAndApplied, values: map[string]string{"grace": "interval '1 minute'", "window_size": "5000"}},
		{query: "CheckoutRequestSweep", values: map[string]string{"grace": "interval '1 minute'"}},
		{query: "CheckoutListDue", values: map[string]string{"grace": "interval '15 minutes'", "max_rows": "50"}},
		{query: "RelinkDue", values: map[string]string{"times": "25", "at_most": "interval '15 s'"}},
		{query: "LinkWaitingList", values: firstRows("1000")},
		{query: "LinkOrphanList", values: firstRows("1000")},
		{query: "RiverJobReturnDead", before: arrived, values: map[string]string{"dead_after": "interval '15 s'"}},
	}),
	grouped("Checkouts", []planCase{
		{query: "CheckoutRequestCreate", inside: true, values: map[string]string{
			"params": `'{"products": ["397a17aa-15cf-4cb4-9333-18040203cf98"], "external_customer_id": "acct_7"}'::jsonb`, "key": "'a key'",
		}},
		{query: "CheckoutRequestClaim", values: map[string]string{"id": oneRequest, "lease": "interval '30 s'", "patience": "interval '30 min'", "job_id": "1"}},
		{query: "CheckoutRequestGet", values: map[string]string{"id": oneRequest}},
		{query: "CheckoutGetByRequest", values: map[string]string{"request_id": oneRequest}},
	}),
	grouped("Reconcile", []planCase{
		{query: "ObjectsCompare", name: "100 customers", inside: true, values: read("customer")},
		{query: "ObjectsCompare", name: "100 orders", inside: true, values: read(`"order"`)},
		{query: "ObjectsListUnseen", name: "customers", inside: true, values: unseen("customer", "created_at")},
		{query: "ObjectsListUnseen", name: "checkouts", inside: true, values: unseen("checkout", "created_at")},
		{query: "ObjectsListUnseen", name: "subscriptions", inside: true, values: unseen("subscription", "started_at")},
		{query: "ObjectVersionList", inside: true, values: read("customer")},
		{query: "CheckoutListUnfinishedBefore", values: map[string]string{"before": aMonthAgo, "after_id": noUUID, "max_rows": "100"}},
		{query: "CheckoutOldestUnfinished", values: map[string]string{"since": aMonthAgo}},
		{query: "CheckoutNewest"},
		{query: "OrderListUnfinishedBefore", values: map[string]string{"before": aMomentAgo, "after_id": noUUID, "max_rows": "100"}},
		{query: "SubscriptionListUnfinishedBefore", values: map[string]string{"before": aMomentAgo, "after_id": noUUID, "max_rows": "100"}},
		{query: "SeatHolderList", values: map[string]string{"after_id": noUUID, "max_rows": "100"}},
		{query: "CustomerSeatListUnseen", values: map[string]string{"holder_id": oneCustomer, "seen": "'{}'::uuid[]"}},
		{query: "TombstoneListLiftable", name: "members", values: map[string]string{"object_type": "'member'", "ids": "array(select id from polar.member order by id limit 100)", "read_at": "now()"}},
		{query: "DriftFactsList", values: map[string]string{
			"ids": someCustomers, "stored_ats": "array_fill(now(), array[64])", "from_ats": "array_fill(" + aMonthAgo + ", array[64])", "until_ats": "array_fill(now(), array[64])",
		}},
		{query: "DriftRecordMany", values: drifted},
		{query: "DriftSettle", values: drifted},
		{query: "DriftSettleRest", values: drifted},
		{query: "DriftAnyOpen", values: drifted},
		{query: "ReconcileSuspectCount", name: "members", values: map[string]string{"run_id": aRun, "object_type": "'member'"}},
		{query: "ReconcileRunLastFinished", values: map[string]string{"object_type": "'customer'", "full_only": "true"}},
	}),
	grouped("Replay and forget", []planCase{
		{query: "EventReplayCount", name: "all", values: with(replayed, "after", "0")},
		{query: "EventSeqSince", values: map[string]string{"since": "now() - interval '1 day'"}},
		{query: "EventReplayCount", name: "of a day", values: with(with(replayed, "after", dayAgo), "since", "now() - interval '1 day'")},
		{query: "EventReplayCountFailed", values: with(replayed, "after", "0")},
		{query: "EventReplayWindow", values: replayed},
		{query: "EventReplayList", values: replayed},
		{query: "EventReplayListFailed", values: replayed},
		{query: "EventListApplied", values: replayed},
		{query: "EventListOfSeqs", values: map[string]string{"seqs": "array(select n from generate_series(" + halfway + ", " + halfway + " + 100) n)", "max_bytes": "16777216"}},
		{query: "EventCountKept"},
		{query: "CustomerForgettable", values: map[string]string{"customer_id": oneCustomer}},
		{query: "EventListByObject", values: map[string]string{"object_ids": "array[" + oneCustomer + "::text]", "after": "0", "max_rows": "512", "max_bytes": "16777216"}},
		{query: "EventListStray", values: map[string]string{"customer_id": oneCustomer, "after": "0", "max_rows": "512", "max_bytes": "16777216"}},
		{query: "CustomerForget", inside: true, values: map[string]string{"customer_id": oneCustomer, "actor": "'an operator'", "reason": "'asked'"}},
	}),
	grouped("Prune", []planCase{
		{query: "EventPrune", name: "1,000", values: map[string]string{"age": "interval '90 days'", "max_rows": "1000"}},
		{query: "EventPruneBodies", name: "1,000", values: map[string]string{"age": "interval '30 days'", "max_rows": "1000"}},
		{query: "EventPruneOutcomes", values: firstRows("1000")},
	}),
	grouped("Status, metrics and console", []planCase{
		{query: "StatusCounts"},
		{query: "StatusCountsOpen"},
		{query: "ChangeDueCount"},
		{query: "EventCountByState", before: arrived, values: firstRows("100000")},
		{query: "EventLastReceivedAt"},
		{query: "EventOldestReceivedAt"},
		{query: "QueueDepth", before: arrived},
		{query: "ReconcileRunListLast"},
		{query: "CheckoutRequestPage", values: page()},
		{query: "CheckoutRequestPageOfState", values: page("state", "'failed'")},
		{query: "CheckoutRequestPageStuck", values: page()},
		{query: "CheckoutRequestFind", values: page("id", "null::uuid", "text", "'usr_1'")},
		{query: "CustomerPage", values: page()},
		{query: "CustomerPageUnlinked", values: page()},
		{query: "CustomerFind", values: page("id", "null::uuid", "text", "'nobody@example.com'")},
		{query: "LocalUserPage", values: page("after_id", "''")},
		{query: "LocalUserFind", values: page("id", "null::uuid", "text", "'usr_1'")},
		{query: "DriftPage", values: page("before_id", "9223372036854775807")},
		{query: "DriftPageOpen", values: page("before_id", "9223372036854775807")},
		{query: "LinkConflictPage", values: page("before_id", "9223372036854775807")},
		{query: "LinkConflictPageOpen", values: page("after_id", "0")},
		{query: "CustomerLinkListRecent", values: firstRows("50")},
		{query: "EventPage", values: eventPage()},
		{query: "EventPageOfType", values: eventPage("type", "'refund.created'")},
		{query: "EventPageFailed", values: eventPage("type", "''")},
		{query: "EventPageReceived", values: eventPage("type", "''")},
		{query: "LinkConflictListByCustomer", values: map[string]string{"customer_id": oneCustomer}},
		{query: "CustomerGetForPeople", values: map[string]string{"id": oneCustomer}},
		{query: "CustomerListByEmail", values: map[string]string{"email": oneUser + " || '@example.com'"}},
		{query: "CheckoutListForPeople", values: map[string]string{"customer_id": oneCustomer, "max_rows": "100"}},
		{query: "PurchaseGet", values: map[string]string{"checkout_id": "(select id from polar.checkout order by id limit 1)"}},
	}),
	grouped(views, []planCase{
		{name: "user_access of one user", sql: "select * from polar.user_access where local_user_id = @id", values: map[string]string{"id": oneUser}},
		{name: "user_billing of one user", sql: "select * from polar.user_billing where local_user_id = @id", values: map[string]string{"id": oneUser}},
		{name: "user_order of one user", sql: "select * from polar.user_order where local_user_id = @id", values: map[string]string{"id": oneUser}},
		{name: "user_subscription of one user", sql: "select * from polar.user_subscription where local_user_id = @id", values: map[string]string{"id": oneUser}},
		{name: "stuck_checkout", sql: "select * from polar.stuck_checkout order by since limit 50"},
		{name: "unlinked_customer, first page", sql: "select * from polar.unlinked_customer limit 50"},
		{name: "unlinked_customer, one", sql: "select * from polar.unlinked_customer where customer_id = @id", values: map[string]string{"id": oneCustomer}},
		{name: "open_drift", sql: "select * from polar.open_drift order by detected_at limit 50"},
		{name: "last_reconcile", sql: "select * from polar.last_reconcile"},
		{name: "mirror_lag", sql: "select * from polar.mirror_lag"},
		{name: "mirror_lag while events wait", before: arrived, sql: "select * from polar.mirror_lag"},
		{name: "event of an object", sql: "select * from polar.event where object_id = @id order by seq desc limit 50", values: map[string]string{"id": oneCustomer + "::text"}},
	}),
)

func grouped(name string, cases []planCase) []planCase {
	for i := range cases {
		cases[i].group = name
	}
	return cases
}

// with is a case's values with another one.
func with(values map[string]string, name, value string) map[string]string {
	values = maps.Clone(values)
	values[name] = value
	return values
}
