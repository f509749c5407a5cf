-- name: CheckoutRequestClaim :one
-- Takes the request for one try, unless another holds it; attempt is that try's fence.
update polar.checkout_request r
   set state = 'creating', attempt = r.attempt + 1, first_tried_at = coalesce(r.first_tried_at, now()), leased_until = now() + @lease::interval, job_id = @job_id::bigint, updated_at = now()
 where r.id = @id
   and r.state in ('queued', 'creating')
   and (r.leased_until is null or r.leased_until < now())
returning r.attempt, r.params, r.posted_at, r.customer_id, (r.first_tried_at < now() - @patience::interval)::boolean as overdue, coalesce(r.error, '')::text as last_error,
          extract(epoch from now() - coalesce(r.posted_at, now()))::float8 as posted_seconds_ago;

-- name: CheckoutRequestCreate :one
-- The three doors' way in: validated where it comes from, and again by the worker. A key may be known to this server alone, its
-- commit having waited in vain for a synchronous standby; a transaction that writes nothing waits for nobody, so this one writes.
select polar.create_checkout(@params::jsonb, sqlc.narg('key')::text)::uuid as id, pg_logical_emit_message(true, 'truenorth', '')::text as written_at;

-- name: CheckoutRequestCarryTrace :exec
-- Has the jobs that are written by SQL in this transaction bear its trace; see the default of river_job.metadata.
select set_config('polar.traceparent', @traceparent::text, true);

-- name: CheckoutRequestDoubt :execrows
-- Polar may have made sessions for those that wait since the moment that the database was restored to.
update polar.checkout_request r
   set posted_at = r.created_at, leased_until = null, updated_at = now()
 where r.state in ('queued', 'creating');

-- name: CheckoutRequestFail :execrows
update polar.checkout_request r
   set state = 'failed', error = @error::text, leased_until = null, posted_at = null, updated_at = now()
 where r.id = @id and r.attempt = @attempt and r.state = 'creating';

-- name: CheckoutRequestFollow :many
-- Brings the requests of these checkouts to what the mirror says. Should a request have several sessions, the
-- one that succeeded counts, else the oldest. A request that had been given up comes back to life with its
-- session, without its key where another request bears it by now.
update polar.checkout_request r
   set state = k.state,
       checkout_id = k.id,
       url = k.url,
       expires_at = k.expires_at,
       error = case when k.gone then 'Polar has no such checkout any more' when k.state = 'failed' then 'Polar reports the checkout as failed' end,
       key = case when r.state in ('failed', 'expired') and k.state not in ('failed', 'expired')
                       and exists (select from polar.checkout_request x where x.key = r.key and x.id <> r.id and x.state not in ('failed', 'expired'))
                  then null else r.key end,
       leased_until = null, posted_at = null, updated_at = now()
  from (select distinct on (c.request_id) c.request_id, c.id, c.url, c.expires_at,
               -- Polar's list of expired sessions is up to 15 minutes late; its clock is not.
               case when c.tombstone and c.status in ('open', 'confirmed') then 'failed'
                    when c.status = 'open' and c.version_at > c.expires_at then 'expired'
                    else c.status end as state,
               c.tombstone and c.status in ('open', 'confirmed') as gone
          from polar.checkout c
         where c.request_id in (select i.request_id from polar.checkout i where i.id = any (@checkout_ids::uuid[]) and i.request_id is not null)
           and c.status in ('open', 'confirmed', 'succeeded', 'expired', 'failed')
           and c.url is not null
         order by c.request_id, (c.status = 'succeeded') desc, c.tombstone, c.created_at, c.id) k
 where r.id = k.request_id
   and (r.state, r.checkout_id, r.url, r.expires_at) is distinct from (k.state, k.id, k.url, k.expires_at)
returning r.id;

-- name: CheckoutRequestDuplicateSessions :exec
-- Records every session but the one kept as drift, once: what was settled comes again only if the session lives again.
insert into polar.drift (object_type, object_id, field, local, remote, cause)
select 'checkout', c.id::text, 'request_id', r.checkout_id::text, c.id::text, 'duplicate_session'
  from polar.checkout_request r
  join polar.checkout c on c.request_id = r.id and c.id <> r.checkout_id
 where r.id in (select i.request_id from polar.checkout i where i.id = any (@checkout_ids::uuid[]))
   and not exists (
       select from polar.drift d
        where d.object_type = 'checkout' and d.object_id = c.id::text and d.cause = 'duplicate_session'
          and (d.resolution is distinct from 'ended' or c.tombstone or c.status in ('expired', 'failed')))
on conflict do nothing;

-- name: CheckoutRequestGet :one
select r.id, r.key, r.external_customer_id, r.params, r.state, r.checkout_id, r.url, r.expires_at, r.error, r.created_at, r.updated_at
  from polar.checkout_request r
 where r.id = @id;

-- name: CheckoutRequestHeldFor :one
-- What keeps a request from being claimed: its state, and how long another try still holds it.
select r.state, greatest(extract(epoch from r.leased_until - now()), 0)::float8 as seconds
  from polar.checkout_request r
 where r.id = @id;

-- name: CheckoutRequestInsert :execrows
-- For a job that an app enqueued by River itself, without the request's row.
insert into polar.checkout_request (id, key, params, job_id)
values (@id, sqlc.narg('key')::text, @params, @job_id::bigint)
on conflict do nothing;

-- name: CheckoutRequestInsertFailed :exec
insert into polar.checkout_request (id, params, state, error, job_id)
values (@id, @params, 'failed', @error::text, @job_id::bigint)
on conflict do nothing;

-- name: CheckoutRequestPosting :execrows
-- Marks that a session may come to be from now on, before the call that creates it. A lease that ran out is renewed
-- too: whoever had taken the request since would have raised attempt.
update polar.checkout_request r
   set posted_at = coalesce(r.posted_at, now()), customer_id = @customer_id, leased_until = now() + @lease::interval, updated_at = now()
 where r.id = @id and r.attempt = @attempt and r.state = 'creating' and r.leased_until is not null;

-- name: CheckoutRequestRenew :execrows
update polar.checkout_request r
   set leased_until = now() + @lease::interval
 where r.id = @id and r.attempt = @attempt and r.state = 'creating' and r.leased_until is not null;

-- name: CheckoutRequestRetryLater :execrows
-- Gives the request back after a try that failed. posted_at stays only where the outcome is not known.
update polar.checkout_request r
   set error = @error::text, leased_until = null, posted_at = case when @outcome_unknown::boolean then r.posted_at end, updated_at = now()
 where r.id = @id and r.attempt = @attempt and r.state = 'creating';

-- name: CheckoutRequestSessionCustomer :exec
-- The customer that Polar says the session was created with.
update polar.checkout_request r set customer_id = @customer_id::uuid where r.id = @id and r.customer_id is null;

-- name: CheckoutRequestSweep :one
-- Gives a new job to requests whose job is gone.
with forgotten as (
    select r.id
      from polar.checkout_request r
     where r.state in ('queued', 'creating')
       and r.updated_at < now() - @grace::interval
       and (r.leased_until is null or r.leased_until < now())
       and not exists (select from polar.river_job j where j.id = r.job_id and j.state in ('available', 'pending', 'retryable', 'running', 'scheduled'))
     order by r.updated_at
     limit 500
       for update skip locked
), job as (
    insert into polar.river_job (kind, args, queue, max_attempts)
    select 'create_checkout', jsonb_build_object('request_id', f.id), 'checkouts', 1000
      from forgotten f
    returning id, (args ->> 'request_id')::uuid as request_id
), requeued as (
    update polar.checkout_request r set job_id = j.id, updated_at = now() from job j where r.id = j.request_id returning r.id
)
select count(*)::bigint as requeued from requeued;

-- name: CheckoutFieldAllow :exec
insert into polar.checkout_field (name, extra) select unnest(@names::text[]), true on conflict do nothing;

-- name: CheckoutFieldForget :exec
delete from polar.checkout_field f where f.extra and not f.name = any (@names::text[]);

-- name: CheckoutGetByRequest :one
select c.id from polar.checkout c where c.request_id = @request_id order by (c.status = 'succeeded') desc, c.created_at, c.id limit 1;

-- name: CheckoutListDue :many
-- Sessions of ours whose end was not heard of though it is past by the local clock: only Polar knows, so it is asked.
select c.id
  from polar.checkout_request r
  join polar.checkout c on c.id = r.checkout_id
 where r.state in ('open', 'confirmed')
   and r.expires_at < now() - @grace::interval
   and c.synced_at < now() - interval '1 minute'
   and not c.tombstone
 order by r.expires_at
 limit @max_rows::integer;

-- name: CheckoutNewest :one
select coalesce(max(c.created_at), '0001-01-01 00:00:00+00')::timestamptz as created_at from polar.checkout c where c.deleted_at is null;

-- name: Notify :exec
select pg_notify(@channel::text, @payload::text);

-- name: CheckoutRequestIsNew :one
-- Whether this very transaction wrote it.
select (r.created_at = now())::boolean as is_new from polar.checkout_request r where r.id = @id;

-- name: CheckoutRequestWakeJob :execrows
update polar.river_job j
   set state = 'available', scheduled_at = now()
  from polar.checkout_request r
 where r.id = @id and j.id = r.job_id and j.state in ('retryable', 'scheduled');

-- name: CheckoutRequestLockRetried :one
with held as materialized (
    select r.id from polar.checkout_request r where r.id = @id for update
)
select coalesce((select n.id from polar.audit a join polar.checkout_request n on n.id = polar.json_uuid(a.detail, 'request_id')
                  where a.subject = 'checkout_request ' || (select h.id from held h) and a.action = 'retry_checkout' and n.state not in ('failed', 'expired')
                  order by a.id desc limit 1), '00000000-0000-0000-0000-000000000000')::uuid as again;
