-- name: APIBudgetBlock :exec
update polar.api_budget b
   set blocked_until = now() + make_interval(secs => @seconds::float8)
 where b.blocked_until is null or b.blocked_until < now() + make_interval(secs => @seconds::float8);

-- name: APIBudgetTake :one
-- Takes some of the requests that all processes share, if that leaves the reserve that this caller must not touch. A clock that
-- has gone back takes nothing away.
update polar.api_budget b
   set tokens = least(@capacity::float8, b.tokens + greatest(extract(epoch from now() - b.refilled_at), 0)::float8 * @per_second::float8) - @amount::float8,
       refilled_at = now()
 where coalesce(b.blocked_until < now(), true)
   and least(@capacity::float8, b.tokens + greatest(extract(epoch from now() - b.refilled_at), 0)::float8 * @per_second::float8) - @amount::float8 >= @reserve::float8
returning b.tokens;

-- name: APIBudgetGet :one
select b.tokens,
       greatest(extract(epoch from now() - b.refilled_at), 0)::float8 as age_seconds,
       coalesce(extract(epoch from b.blocked_until - now()), 0)::float8 as blocked_seconds
  from polar.api_budget b;

-- name: RiverJobReturnDead :execrows
-- What a dead process held goes to another at once. River's own rescuer would take a minute and more.
update polar.river_job j
   set state = 'available', scheduled_at = now()
 where j.state = 'running'
   and j.attempted_at < now() - @dead_after::interval
   and not exists (
           select from polar.worker_process p
            where p.id = j.attempted_by[array_upper(j.attempted_by, 1)] and p.seen_at > now() - @dead_after::interval);

-- name: RiverJobReturnLost :execrows
-- What a living worker took, and never heard of: the connection broke in between. A job that has just ended is at work
-- no more, and may wait for River to write that down; to work it again is harmless.
update polar.river_job j
   set state = 'available', scheduled_at = now()
 where j.state = 'running'
   and j.attempted_at < now() - @lost_after::interval
   and j.attempted_by[array_upper(j.attempted_by, 1)] = @worker_id::text
   and j.id <> all (@at_work::bigint[]);

-- name: RiverJobMakeDue :execrows
-- A worker whose clock is ahead gives jobs times that are an hour away, also those of others: River's leader takes them for stuck
-- ones. What is available is due, and what an event, a buyer or a link waits for comes within minutes; for a 429 the budget makes
-- them wait again.
update polar.river_job j
   set scheduled_at = now()
 where j.id in (
           select w.id
             from (values ('available', interval '10 seconds'), ('retryable', @longest::interval), ('scheduled', @longest::interval)) s(state, longest),
                  unnest(@queues::text[]) q(name), generate_series(1, 4) p(priority),
                  lateral (select a.id from polar.river_job a -- by River's index for fetching, from its far end
                            where a.state = s.state::polar.river_job_state and a.queue = q.name and a.priority = p.priority and a.scheduled_at > now() + s.longest
                              and (s.state = 'available' or a.kind = any (@kinds::text[]))
                              -- What an app has scheduled comes then; what a worker has put off bears how often.
                              and (s.state <> 'scheduled' or a.kind <> 'create_checkout' or a.metadata ? 'snoozes')
                            order by a.scheduled_at desc
                            limit 1000
                              for update skip locked) w);

-- name: UpkeepLock :one
-- One process keeps house at a time; the lock goes with the transaction.
select pg_try_advisory_xact_lock(hashtextextended('polar:upkeep', 0)) as locked;

-- name: WorkerProcessBeat :exec
insert into polar.worker_process as p (id) values (@id) on conflict (id) do update set seen_at = now();

-- name: ClockLook :one
-- The time, and by how much any worker's last sign of life is later than it: an hour's step back, or a standby with another clock.
select clock_timestamp()::timestamptz as now, coalesce(extract(epoch from max(p.seen_at) - now()), 0)::float8 as sign_seconds_ahead from polar.worker_process p;

-- name: ClockMendRequests :execrows
-- After the clock has gone back, how long ago a session may have been made is as long ago as before: a look for one that stops
-- short makes a second. Looking further back than needed is harmless, so it may be done twice. Not so for first_tried_at: from it
-- on, patience is counted, which may become longer, but must not end before its time. None is passed over because it is locked.
update polar.checkout_request r
   set posted_at = r.posted_at - @went_back::interval, updated_at = least(r.updated_at, now()),
       first_tried_at = case when r.first_tried_at > now() then now() else r.first_tried_at end, -- and null stays null, which least takes for nothing
       leased_until = case when r.leased_until > now() + @checkout_lease::interval then now() + @checkout_lease::interval else r.leased_until end
 where r.id in (select w.id from polar.checkout_request w
                 where w.state in ('queued', 'creating')
                   and (w.posted_at is not null or greatest(w.first_tried_at, w.updated_at) > now() or w.leased_until > now() + @checkout_lease::interval)
                 order by w.id
                   for update);

-- name: ClockMendFeed :exec
-- The walk over all users would rest until then.
update polar.change_teller t set walked_at = now() where t.walked_at > now();

-- name: ClockMend :one
-- After the clock has gone back, what was written by the clock of before would wait as long. Whatever waits is due now, and
-- whatever was to last ends when it would if it had been written now: earlier than meant is harmless, an hour late is not.
with jobs as (
    update polar.river_job j set scheduled_at = now()
     where j.id in (select w.id from polar.river_job w
                     where w.state in ('available', 'retryable', 'scheduled') and w.scheduled_at > now()
                     order by w.id
                       for update skip locked)
    returning 1
), running as (
    update polar.river_job j set attempted_at = now()
     where j.id in (select w.id from polar.river_job w where w.state = 'running' and w.attempted_at > now() order by w.id for update skip locked)
    returning 1
), budget as (
    update polar.api_budget b
       set refilled_at = least(b.refilled_at, now()),
           blocked_until = case when b.blocked_until > now() + @longest_block::interval then now() + @longest_block::interval else b.blocked_until end
), reconciler as (
    update polar.reconcile_lease l set until = now() + @reconcile_lease::interval where l.until > now() + @reconcile_lease::interval
), relinked as (
    update polar.relink r set done_at = now() where r.done_at > now()
), leader as ( -- of River's, which holds its place for seconds
    delete from polar.river_leader l where l.expires_at > now() + interval '1 minute'
), living as ( -- and those who died are seen to be dead
    update polar.worker_process p set seen_at = now()
     where p.id in (select w.id from polar.worker_process w where w.seen_at > now() order by w.id for update skip locked)
)
select ((select count(*) from jobs) + (select count(*) from running))::bigint as mended;

-- name: WorkerProcessForget :exec
delete from polar.worker_process p where p.id = @id or p.seen_at < now() - interval '1 hour';

-- name: QueueDepth :many
select j.queue, j.kind, j.state::text as state, count(*)::bigint as jobs, coalesce(extract(epoch from now() - min(j.scheduled_at)), 0)::float8 as oldest_seconds
  from polar.river_job j
 where j.state in ('available', 'retryable', 'running', 'scheduled', 'discarded')
 group by j.queue, j.kind, j.state
 order by j.queue, j.kind, j.state;

-- name: StatusCounts :one
-- What grows with a product's users. Customers are read once: this is most of what it costs.
with customers as materialized (
    select count(*) as living, count(*) filter (where l.customer_id is null) as unlinked
      from polar.customer c
      left join polar.customer_link l on l.customer_id = c.id
     where c.deleted_at is null
)
select (select c.living from customers c)::bigint as customers,
       (select count(*) from polar.customer_link)::bigint as linked,
       (select c.unlinked from customers c)::bigint as unlinked,
       (select count(*) from polar.checkout_request r where r.state = 'succeeded')::bigint as requests_succeeded;

-- name: StatusCountsOpen :one
-- What waits for somebody or something: each by an index of little else.
select (select count(*) from polar.link_conflict f where f.resolved_at is null)::bigint as open_conflicts,
       (select count(*) from polar.open_drift d where not d.is_benign)::bigint as open_drift,
       (select count(*) from polar.checkout_request r where r.state in ('queued', 'creating'))::bigint as requests_waiting,
       coalesce((select extract(epoch from now() - min(r.created_at)) from polar.checkout_request r where r.state in ('queued', 'creating')), 0)::float8 as oldest_waiting_seconds,
       (select count(*) from polar.checkout_request r where r.state = 'open')::bigint as requests_open,
       (select count(*) from polar.checkout_request r where r.state = 'failed')::bigint as requests_failed,
       (select count(*) from polar.worker_process p where p.seen_at > now() - interval '15 seconds')::bigint as workers_alive;

-- name: RiverIsOwned :one
-- Only an owner may rebuild indexes.
select pg_has_role(c.relowner, 'usage')::boolean as owned from pg_catalog.pg_class c where c.oid = 'polar.river_job'::regclass;

-- name: ReadsDrop :exec
-- Jobs that would compare what is here with what is at Polar.
delete from polar.river_job j
 where j.kind in ('reconcile', 'refresh_object', 'fill_gaps', 'watch_endpoint') and j.state <> 'completed';
