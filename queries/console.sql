-- Pages of the console's lists. Each begins after the last row of the page before, by the columns of an index, so that the
-- hundredth page costs what the first one does. What filters finds little in much has a query of its own.

-- name: CheckoutRequestPage :many
select r.id, coalesce(r.external_customer_id, '')::text as external_customer_id, coalesce(r.key, '')::text as key, r.state, coalesce(r.url, '')::text as url,
       r.expires_at, coalesce(r.error, '')::text as error, r.attempt, r.created_at
  from polar.checkout_request r
 where (r.created_at, r.id) < (@before_at::timestamptz, @before_id::uuid)
 order by r.created_at desc, r.id desc
 limit @max_rows::integer;

-- name: CheckoutRequestPageOfState :many
select r.id, coalesce(r.external_customer_id, '')::text as external_customer_id, coalesce(r.key, '')::text as key, r.state, coalesce(r.url, '')::text as url,
       r.expires_at, coalesce(r.error, '')::text as error, r.attempt, r.created_at
  from polar.checkout_request r
 where r.state = @state::text and (r.created_at, r.id) < (@before_at::timestamptz, @before_id::uuid)
 order by r.created_at desc, r.id desc
 limit @max_rows::integer;

-- name: CheckoutRequestPageStuck :many
-- Few are stuck, which a planner cannot know.
with stuck as materialized (select s.request_id from polar.stuck_checkout s)
select r.id, coalesce(r.external_customer_id, '')::text as external_customer_id, coalesce(r.key, '')::text as key, r.state, coalesce(r.url, '')::text as url,
       r.expires_at, coalesce(r.error, '')::text as error, r.attempt, r.created_at
  from stuck k
  join polar.checkout_request r on r.id = k.request_id
 where (r.created_at, r.id) < (@before_at::timestamptz, @before_id::uuid)
 order by r.created_at desc, r.id desc
 limit @max_rows::integer;

-- name: CheckoutRequestFind :many
-- By the request's id, its key, Polar's checkout or the local user, newest first.
select r.id, coalesce(r.external_customer_id, '')::text as external_customer_id, coalesce(r.key, '')::text as key, r.state, coalesce(r.url, '')::text as url,
       r.expires_at, coalesce(r.error, '')::text as error, r.attempt, r.created_at
  from polar.checkout_request r
 where r.id in (select q.id from polar.checkout_request q where q.id = sqlc.narg(id)::uuid
                 union all select q.id from polar.checkout_request q where q.checkout_id = sqlc.narg(id)::uuid
                 union all (select q.id from polar.checkout_request q where q.key = @text::text order by q.created_at desc, q.id desc limit 1000)
                 union all (select q.id from polar.checkout_request q where q.external_customer_id = @text::text order by q.created_at desc, q.id desc limit 1000))
   and (r.created_at, r.id) < (@before_at::timestamptz, @before_id::uuid)
 order by r.created_at desc, r.id desc
 limit @max_rows::integer;

-- name: CustomerPage :many
-- A customer of whom nobody has said when it was created is found by looking for it.
select c.id, coalesce(c.email, '')::text as email, coalesce(c.name, '')::text as name, coalesce(c.external_id, '')::text as external_id,
       c.created_at::timestamptz as at, c.deleted_at, coalesce(l.local_user_id, '')::text as local_user_id, coalesce(l.basis, '')::text as basis, ''::text as reason
  from polar.customer c
  left join polar.customer_link l on l.customer_id = c.id
 where (c.created_at, c.id) < (@before_at::timestamptz, @before_id::uuid)
 order by c.created_at desc, c.id desc
 limit @max_rows::integer;

-- name: CustomerPageUnlinked :many
select c.id, coalesce(c.email, '')::text as email, coalesce(c.name, '')::text as name, coalesce(c.external_id, '')::text as external_id,
       w.since as at, c.deleted_at, ''::text as local_user_id, ''::text as basis, u.reason::text as reason
  from polar.link_waiting w
  join polar.customer c on c.id = w.customer_id
  join polar.unlinked_customer u on u.customer_id = w.customer_id
 where (w.since, w.customer_id) < (@before_at::timestamptz, @before_id::uuid)
 order by w.since desc, w.customer_id desc
 limit @max_rows::integer;

-- name: CustomerFind :many
-- By id, external id or e-mail address, whatever the case of its letters.
select c.id, coalesce(c.email, '')::text as email, coalesce(c.name, '')::text as name, coalesce(c.external_id, '')::text as external_id,
       coalesce(c.created_at, c.synced_at)::timestamptz as at, c.deleted_at, coalesce(l.local_user_id, '')::text as local_user_id, coalesce(l.basis, '')::text as basis, ''::text as reason
  from polar.customer c
  left join polar.customer_link l on l.customer_id = c.id
 where c.id in (select q.id from polar.customer q where q.id = sqlc.narg(id)::uuid
                 union all (select q.id from polar.customer q where q.external_id = @text::text limit 1000)
                 union all (select q.id from polar.customer q where lower(q.email) = lower(@text::text) limit 1000)
                 union all (select k.customer_id from polar.customer_link k where k.local_user_id = @text::text limit 1000)
                 union all select s.customer_id from polar.subscription s where s.id = sqlc.narg(id)::uuid
                 union all select o.customer_id from polar."order" o where o.id = sqlc.narg(id)::uuid
                 union all select k.customer_id from polar.checkout k where k.id = sqlc.narg(id)::uuid)
 order by at desc, c.id desc
 limit @max_rows::integer;

-- name: CustomerLinkListRecent :many
select l.customer_id, coalesce(c.email, '')::text as email, l.local_user_id, l.basis, l.linked_at
  from polar.customer_link l
  left join polar.customer c on c.id = l.customer_id
 order by l.linked_at desc, l.customer_id
 limit @max_rows::integer;

-- name: DriftGet :one
select d.id, d.run_id, d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolved_at, coalesce(d.resolution, '')::text as resolution
  from polar.drift d
 where d.id = @id;

-- name: DriftOfObject :many
select d.id, d.run_id, d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolved_at, coalesce(d.resolution, '')::text as resolution
  from polar.drift d
 where d.object_id = @object_id::text and d.object_type = @object_type::text
 order by d.resolved_at is null desc, d.id desc
 limit @max_rows::integer;

-- name: DriftPage :many
select d.id, d.run_id, d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolved_at, coalesce(d.resolution, '')::text as resolution
  from polar.drift d
 where d.id < @before_id::bigint
 order by d.id desc
 limit @max_rows::integer;

-- name: DriftPageOpen :many
select d.id, d.run_id, d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolved_at, coalesce(d.resolution, '')::text as resolution
  from polar.drift d
 where d.resolved_at is null and d.id < @before_id::bigint
 order by d.id desc
 limit @max_rows::integer;

-- name: DriftPageOpenOfCause :many
select d.id, d.run_id, d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolved_at, coalesce(d.resolution, '')::text as resolution
  from polar.drift d
 where d.resolved_at is null and d.cause = @cause::text and d.id < @before_id::bigint
 order by d.id desc
 limit @max_rows::integer;

-- name: DriftResolve :execrows
-- Of one object all that is open: the sweep that finds it again writes it anew.
update polar.drift d
   set resolved_at = now(), resolution = @resolution::text
 where d.resolved_at is null
   and (d.object_type, d.object_id) = (select o.object_type, o.object_id from polar.drift o where o.id = @id);

-- name: EventPage :many
-- Neither body nor error of any list: both may quote what Polar sent.
-- The outcomes are looked up one by one: both tables are in order, and a planner might read one from its end to get to the other.
with listed as materialized (
    select l.seq, l.webhook_id, l.type, l.object_id, l.received_at
      from polar.event_log l
     where l.seq < @before_seq::bigint and l.seq >= @from_seq::bigint
     order by l.seq desc
     limit @max_rows::integer
)
select e.seq, e.webhook_id, e.type, coalesce(e.object_id, '')::text as object_id, coalesce(o.state, 'received')::text as state, coalesce(o.tries, 0)::integer as tries, e.received_at
  from listed e
  left join lateral (select w.state, w.tries from polar.event_outcome w where w.seq = e.seq limit 1) o on true
 order by e.seq desc;

-- name: EventPageOfType :many
with listed as materialized (
    select l.seq, l.webhook_id, l.type, l.object_id, l.received_at
      from polar.event_log l
     where l.type = @type::text and l.seq < @before_seq::bigint and l.seq >= @from_seq::bigint
     order by l.seq desc
     limit @max_rows::integer
)
select e.seq, e.webhook_id, e.type, coalesce(e.object_id, '')::text as object_id, coalesce(o.state, 'received')::text as state, coalesce(o.tries, 0)::integer as tries, e.received_at
  from listed e
  left join lateral (select w.state, w.tries from polar.event_outcome w where w.seq = e.seq limit 1) o on true
 order by e.seq desc;

-- name: EventPageFailed :many
select l.seq, l.webhook_id, l.type, coalesce(l.object_id, '')::text as object_id, o.state, o.tries, l.received_at
  from polar.event_outcome o
  join polar.event_log l on l.seq = o.seq
 where o.state = 'failed' and o.seq < @before_seq::bigint and o.seq >= @from_seq::bigint
   and (@type::text = '' or l.type = @type::text)
 order by o.seq desc
 limit @max_rows::integer;

-- name: EventPageReceived :many
-- All events up to swept_seq have an outcome.
select l.seq, l.webhook_id, l.type, coalesce(l.object_id, '')::text as object_id, 'received'::text as state, 0::integer as tries, l.received_at
  from polar.event_log l
 where l.seq > (select s.swept_seq from polar.event_sweep s) and l.seq < @before_seq::bigint and l.seq >= @from_seq::bigint
   and (select o.seq from polar.event_outcome o where o.seq = l.seq) is null
   and (@type::text = '' or l.type = @type::text)
 order by l.seq desc
 limit @max_rows::integer;

-- name: EventFind :many
-- By webhook-id, or by the object that it speaks of.
select e.seq, e.webhook_id, e.type, coalesce(e.object_id, '')::text as object_id, e.state, e.tries, e.received_at
  from polar.event e
 where e.seq in (select q.seq from polar.event_log q where q.webhook_id = @text::text
                  union all select q.seq from polar.event_log q where q.object_id = @text::text)
   and e.seq < @before_seq::bigint
 order by e.seq desc
 limit @max_rows::integer;

-- name: EventGet :one
select e.seq, e.webhook_id, e.type, coalesce(e.object_id, '')::text as object_id, e.state, e.tries, coalesce(e.error, '')::text as error,
       e.occurred_at, e.received_at, e.applied_at, (e.body is not null)::boolean as has_body
  from polar.event e
 where e.seq = @seq;

-- name: EventGetMasked :one
-- The event without what is personal. Fails for a body that jsonb refuses.
select jsonb_pretty(polar.redacted(polar.redacted_event(l.body::jsonb)))::text as body
  from polar.event_log l
 where l.seq = @seq and l.body is not null;

-- name: EventGetBody :one
select l.body::text as body from polar.event_log l where l.seq = @seq and l.body is not null;

-- name: EventListOfAnyState :many
select l.seq, l.webhook_id, l.type, l.occurred_at, l.body::text as body
  from polar.event_log l
 where l.seq = any (@seqs::bigint[]) and l.body is not null
 order by l.seq;

-- name: EventListFailedSeqs :many
-- Those tried least come first: who asks again and again comes through all.
select o.seq
  from polar.event_outcome o
  join polar.event_log l on l.seq = o.seq
 where o.state = 'failed' and l.body is not null
   and (@type::text = '' or l.type = @type::text)
 order by o.tries, o.seq
 limit @max_rows::integer;

-- name: EventRates :many
-- How many events were received in each of the hours that end with the present one. The bounds are found by halving, so the
-- log is counted by its primary key alone.
with hours as (
    select (s.n - 1)::integer as hour, s.seq as first_seq, lead(s.seq, 1, 9223372036854775807) over (order by s.n) as next_seq
      from unnest(@seqs::bigint[]) with ordinality as s(seq, n)
)
select h.hour, (select count(*) from polar.event_log l where l.seq >= h.first_seq and l.seq < h.next_seq)::bigint as events
  from hours h
 order by h.hour;

-- name: JobRates :many
select (extract(epoch from date_trunc('hour', j.finalized_at, 'UTC') - @first_at::timestamptz) / 3600)::integer as hour, (j.state = 'completed')::boolean as completed, count(*)::bigint as jobs
  from polar.river_job j
 where j.state in ('completed', 'cancelled', 'discarded') and j.finalized_at >= @first_at::timestamptz
 group by 1, 2
 order by 1, 2;

-- name: LinkConflictPage :many
select f.id, f.customer_id, f.local_user_id, f.kind, coalesce(f.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as checkout_id,
       f.detail, f.detected_at, f.resolved_at, coalesce(f.resolution, '')::text as resolution,
       coalesce(f.resolved_by, '')::text as resolved_by, coalesce(f.note, '')::text as note, f.lifted_at
  from polar.link_conflict f
 where f.id < @before_id::bigint
 order by f.id desc
 limit @max_rows::integer;

-- name: LinkConflictPageOpen :many
-- Oldest first: that one waits longest.
select f.id, f.customer_id, f.local_user_id, f.kind, coalesce(f.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as checkout_id,
       f.detail, f.detected_at, f.resolved_at, coalesce(f.resolution, '')::text as resolution,
       coalesce(f.resolved_by, '')::text as resolved_by, coalesce(f.note, '')::text as note, f.lifted_at
  from polar.link_conflict f
 where f.resolved_at is null and f.id > @after_id::bigint
 order by f.id
 limit @max_rows::integer;

-- name: LocalUserPage :many
select u.id::text as id, coalesce(u.email, '')::text as email, u.deleted_at,
       array(select l.customer_id from polar.customer_link l where l.local_user_id = u.id::text order by l.linked_at limit 3)::uuid[] as customers
  from polar.local_user u
 where u.id > @after_id::text
 order by u.id
 limit @max_rows::integer;

-- name: LocalUserFind :many
-- By id, or by what links to it.
select u.id::text as id, coalesce(u.email, '')::text as email, u.deleted_at,
       array(select l.customer_id from polar.customer_link l where l.local_user_id = u.id::text order by l.linked_at limit 3)::uuid[] as customers
  from polar.local_user u
 where u.id = any (array(select @text::text
                         union select l.local_user_id from polar.customer_link l where l.customer_id = sqlc.narg(id)::uuid
                         union (select l.local_user_id from polar.customer c join polar.customer_link l on l.customer_id = c.id
                                 where lower(c.email) = lower(@text::text) limit 100)))
 order by u.id
 limit @max_rows::integer;

-- name: LocalUserFindByEmail :many
-- How fast depends on the product's own table, where that is behind the view.
select u.id::text as id, coalesce(u.email, '')::text as email, u.deleted_at,
       array(select l.customer_id from polar.customer_link l where l.local_user_id = u.id::text order by l.linked_at limit 3)::uuid[] as customers
  from polar.local_user u
 where lower(u.email) = lower(@email::text)
 limit @max_rows::integer;

-- name: LocalUserList :many
select u.id::text as id, coalesce(u.email, '')::text as email
  from polar.local_user u
 where u.deleted_at is null
 order by u.id
 limit @max_rows::integer;

-- name: MirrorLagGet :one
-- Seconds; -1 where there is none.
select coalesce(g.waiting, 0)::bigint as waiting,
       coalesce(extract(epoch from g.waiting_for), -1)::float8 as waiting_seconds,
       coalesce(extract(epoch from g.apply_p50), -1)::float8 as apply_p50,
       coalesce(extract(epoch from g.apply_p99), -1)::float8 as apply_p99
  from polar.mirror_lag g;

-- name: PurchaseGet :one
select r.id as request_id, r.state, coalesce(r.external_customer_id, '')::text as external_customer_id, c.customer_id,
       coalesce(l.local_user_id, '')::text as linked_user_id, coalesce(l.basis, '')::text as linked_basis,
       exists (select from polar.link_conflict f where f.customer_id = c.customer_id and f.resolved_at is null) as in_conflict,
       r.updated_at
  from polar.checkout_request r
  left join polar.checkout c on c.id = r.checkout_id
  left join polar.customer_link l on l.customer_id = c.customer_id
 where r.checkout_id = @checkout_id::uuid
 order by r.created_at
 limit 1;
