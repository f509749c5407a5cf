-- name: EventInsertMany :one
-- Stores deliveries and, in the same statement, the job that applies them. An event seen before is left
-- alone, but one whose last try failed is tried again; not without a body, though: EventRestoreMany gives it one. Zero
-- times, empty ids and empty bytes stand for null.
with batch as materialized (
    select nextval('polar.event_batch') as number
), given as (
    select unnest(@webhook_ids::text[]) as webhook_id,
           unnest(@types::text[]) as type,
           unnest(@object_ids::text[]) as object_id,
           unnest(@occurred_ats::timestamptz[]) as occurred_at,
           unnest(@bodies::text[]) as body,
           unnest(@body_bytes::bytea[]) as body_bytes
), stored as (
    insert into polar.event_log (webhook_id, type, object_id, occurred_at, batch, body, body_bytes)
    select g.webhook_id, g.type, nullif(g.object_id, ''), nullif(g.occurred_at, '0001-01-01 00:00:00+00'), b.number, g.body, nullif(g.body_bytes, '')
      from given g, batch b
    on conflict (webhook_id) do nothing
    returning seq, webhook_id
), known as materialized ( -- hardly ever any, and then nothing is looked for
    select g.webhook_id
      from given g
     where (select count(*) from stored) < cardinality(@webhook_ids::text[])
       and not exists (select from stored s where s.webhook_id = g.webhook_id)
), waited as materialized (
    -- What is known may have been committed on this server alone, while a synchronous standby was away: the answer must not
    -- promise more than that. A transaction that writes nothing waits for nobody, so this one writes a word to the log.
    select pg_logical_emit_message(true, 'truenorth', '') as at where exists (select from known)
), again as (
    select distinct l.seq, l.webhook_id, not polar.event_has_body(l.seq) as bodiless
      from known k
      join polar.event_log l on l.webhook_id = k.webhook_id
      join polar.event_outcome o on o.seq = l.seq and o.state = 'failed'
), job as (
    insert into polar.river_job (kind, args, queue, max_attempts, metadata)
    select 'apply_events', jsonb_build_object('batch', b.number, 'size', greatest((select count(*) from stored), (select sum(octet_length(g.body)) / 16384 from given g))), 'events', 1000, @metadata::jsonb
      from batch b
     where exists (select from stored)
    union all
    select 'apply_events', jsonb_build_object('events', jsonb_agg(a.seq)), 'events', 1000, @metadata::jsonb
      from again a
     where not a.bodiless
    having count(*) > 0
    returning id
), woken as materialized (
    select pg_notify('polar.river_insert', '{"queue":"events"}')::text as done
     where @notify::boolean and exists (select from job)
)
select (select count(*) from stored)::bigint as stored,
       array(select a.webhook_id from again a where not a.bodiless)::text[] as again,
       array(select a.webhook_id from again a where a.bodiless)::text[] as bodiless,
       array(select k.webhook_id from known k)::text[] as known,
       (select count(*) from woken)::bigint as woken,
       (select count(*) from waited)::bigint as waited;

-- name: EventInsert :one
-- EventInsertMany for one delivery that was not seen before; one that was is left to it. It takes half the time.
with stored as (
    insert into polar.event_log (webhook_id, type, object_id, occurred_at, batch, body, body_bytes)
    values (@webhook_id::text, @type::text, nullif(@object_id::text, ''), nullif(@occurred_at::timestamptz, '0001-01-01 00:00:00+00'),
            nextval('polar.event_batch'), @body::text, nullif(@body_bytes::bytea, ''))
    on conflict (webhook_id) do nothing
    returning batch
), job as (
    insert into polar.river_job (kind, args, queue, max_attempts, metadata)
    select 'apply_events', jsonb_build_object('batch', s.batch, 'size', greatest(1, octet_length(@body::text) / 16384)), 'events', 1000, @metadata::jsonb
      from stored s
    returning case when @notify::boolean then pg_notify('polar.river_insert', '{"queue":"events"}')::text end as woken
)
select count(*)::bigint as stored from job;

-- name: EventListByBatch :many
select l.seq, l.webhook_id, l.type, l.occurred_at, l.body::text as body, extract(epoch from clock_timestamp() - l.received_at)::float8 as waited_seconds
  from polar.event_log l
  left join polar.event_outcome o on o.seq = l.seq
 where l.batch = @batch and o.state is distinct from 'applied' and l.body is not null
 order by l.seq;

-- name: EventTakeMany :many
-- The events of a batch that are not applied, and with them those of other batches whose jobs wait for a worker, as many as
-- there is room for. Those jobs are completed here, so that they are done if and when this transaction commits. The first few
-- tell whether the rest are small too: few more jobs are locked than are taken.
with head as (
    select j.id, (j.args ->> 'batch')::bigint as batch, (j.args ->> 'size')::bigint as size
      from polar.river_job j
     where j.state = 'available' and j.queue = 'events' and j.kind = 'apply_events' and j.scheduled_at <= now() and j.args ? 'size'
       and @room::bigint > 0
     order by j.priority, j.scheduled_at, j.id
     limit 16
       for update skip locked
), rest as (
    select j.id, (j.args ->> 'batch')::bigint as batch, (j.args ->> 'size')::bigint as size
      from polar.river_job j
     where j.state = 'available' and j.queue = 'events' and j.kind = 'apply_events' and j.scheduled_at <= now() and j.args ? 'size'
       and j.id <> all (array(select h.id from head h))
       and (select count(*) = 16 and sum(h.size) <= 2 * 16 from head h)
     order by j.priority, j.scheduled_at, j.id
     limit @jobs::bigint
       for update skip locked
), summed as (
    select w.id, w.batch, sum(w.size) over (order by w.id) as events
      from (select h.id, h.batch, h.size from head h union all select r.id, r.batch, r.size from rest r) w
), taken as (
    update polar.river_job j
       set state = 'completed', finalized_at = now(), attempt = j.attempt + 1, attempted_at = now(),
           attempted_by = array_append(j.attempted_by, @worker::text)
      from summed s
     where j.id = s.id and s.events <= @room::bigint
    returning s.batch
)
select l.seq, l.webhook_id, l.type, l.occurred_at, l.body::text as body, extract(epoch from clock_timestamp() - l.received_at)::float8 as waited_seconds
  from polar.event_log l
  left join polar.event_outcome o on o.seq = l.seq
 where l.batch = any (array(select t.batch from taken t) || @batch::bigint) and o.state is distinct from 'applied' and l.body is not null
 order by l.seq;

-- name: EventListTakenTraces :many
-- The traces in which those jobs were inserted that this transaction has completed in EventTakeMany.
select (j.metadata ->> 'traceparent')::text as traceparent
  from polar.river_job j
 where j.state = 'completed' and j.finalized_at = now() and j.kind = 'apply_events' and @worker::text = any (j.attempted_by)
   and j.metadata ? 'traceparent';

-- name: EventListBySeq :many
select l.seq, l.webhook_id, l.type, l.occurred_at, l.body::text as body, extract(epoch from clock_timestamp() - l.received_at)::float8 as waited_seconds
  from polar.event_log l
  left join polar.event_outcome o on o.seq = l.seq
 where l.seq = any (@seqs::bigint[]) and o.state is distinct from 'applied' and l.body is not null
 order by l.seq;

-- name: EventSweep :one
-- Proves that every event older than a minute has an outcome or a live job, a window at a time, and gives a
-- new job to those that have neither.
with watermark as (
    select swept_seq from polar.event_sweep for update
), considered as (
    select l.seq, l.received_at < now() - @grace::interval as due
      from polar.event_log l
     where l.seq > (select w.swept_seq from watermark w)
     order by l.seq
     limit @window_size::integer
), pending as (
    select c.seq, l.batch
      from considered c
      join polar.event_log l on l.seq = c.seq
     where c.due
       and not exists (select from polar.event_outcome o where o.seq = c.seq)
), forgotten as (
    select p.seq
      from pending p
     where not exists (
               select from polar.river_job j
                where j.kind = 'apply_events'
                  and j.state in ('available', 'pending', 'retryable', 'running', 'scheduled')
                  and (j.args @> jsonb_build_object('batch', p.batch)
                       or j.args @> jsonb_build_object('events', jsonb_build_array(p.seq))))
     order by p.seq
     limit 500
), job as (
    insert into polar.river_job (kind, args, queue, max_attempts)
    select 'apply_events', jsonb_build_object('events', jsonb_agg(f.seq)), 'events', 1000
      from forgotten f
    having count(*) > 0
    returning id
), moved as (
    update polar.event_sweep s
       set swept_seq = greatest(s.swept_seq, coalesce(
               least((select min(p.seq) - 1 from pending p),
                     (select min(c.seq) - 1 from considered c where not c.due)),
               (select max(c.seq) from considered c),
               s.swept_seq))
    returning s.swept_seq
)
select (select count(*) from forgotten)::bigint as requeued,
       (select count(*) from considered where due)::bigint as considered,
       (select count(*) from pending)::bigint as pending,
       (select m.swept_seq from moved m)::bigint as swept_seq;

-- name: EventCountByState :many
-- Only what is not applied is counted, and of that at most so many: the applied ones may be millions. Outcomes are looked
-- up one by one: a planner that does not know how little is left would read all of them for a join.
select 'failed'::text as state, count(*)::bigint as events
  from (select from polar.event_outcome o where o.state = 'failed' limit @max_rows::integer) f
union all
select 'received'::text, count(*)::bigint
  from (select l.seq
          from polar.event_log l
         where l.seq > (select s.swept_seq from polar.event_sweep s)
           and (select o.seq from polar.event_outcome o where o.seq = l.seq) is null
         order by l.seq
         limit @max_rows::integer) w;

-- name: EventLastReceivedAt :one
select l.received_at from polar.event_log l order by l.seq desc limit 1;

-- name: EventOldestReceivedAt :one
select l.received_at from polar.event_log l order by l.seq limit 1;

-- name: EventOutcomeUpsertMany :one
-- An empty error means applied. Says whether any customer is forgotten, so that nobody has to ask for itself.
with given as (
    select unnest(@seqs::bigint[]) as seq, unnest(@errors::text[]) as error
), written as (
    insert into polar.event_outcome as o (seq, state, applied_at, error)
    select g.seq,
           case when g.error = '' then 'applied' else 'failed' end,
           case when g.error = '' then now() end,
           nullif(g.error, '')
      from given g
     order by g.seq
    on conflict (seq) do update
       set state = excluded.state, applied_at = excluded.applied_at, error = excluded.error,
           tries = o.tries + 1, tried_at = now()
     where o.state <> 'applied'
)
select exists (select from polar.forgotten_customer) as forgotten;
