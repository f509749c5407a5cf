-- Old events go a bounded number at a time, in order. polar.event_prune says how far that came, and which were passed
-- over, to be looked at again. Rows that others hold are passed over too, so nothing here waits for a writer. Sets of seq
-- are arrays: a plan that guesses their size wrong still begins at the index.

-- name: EventPruneLock :many
-- One process prunes at a time; the lock goes with the transaction. The marks are taken in a statement of their own, so
-- that the next one sees what the last holder did.
select p.what from polar.event_prune p where pg_try_advisory_xact_lock(hashtextextended('polar:prune', 0)) for update;

-- name: EventPrune :one
-- Deletes events older than an age, with their outcomes; not those without one, nor failed ones whose job is alive.
with mark as materialized (
    select p.seq, p.left_over from polar.event_prune p where p.what = 'event'
), next as materialized (
    select l.seq, l.received_at < now() - @age::interval as old
      from polar.event_log l
     where l.seq > (select m.seq from mark m where cardinality(m.left_over) < @max_rows::integer)
     order by l.seq
     limit @max_rows::integer
), reached as materialized (
    select max(n.seq) as seq from next n where n.old
), due as materialized (
    select n.seq from next n where n.seq <= (select r.seq from reached r)
    union all
    select unnest(m.left_over) from mark m
), going as materialized (
    select l.seq, o.state
      from polar.event_log l
      join polar.event_outcome o on o.seq = l.seq
     where l.seq = any (array(select d.seq from due d))
       and o.seq = any (array(select d.seq from due d))
       and l.received_at < now() - @age::interval
       and (o.state = 'applied' or not exists (
               select from polar.river_job j
                where j.kind = 'apply_events'
                  and j.state in ('available', 'pending', 'retryable', 'running', 'scheduled')
                  and (j.args @> jsonb_build_object('batch', l.batch)
                       or j.args @> jsonb_build_object('events', jsonb_build_array(l.seq)))))
     order by l.seq
     limit @max_rows::integer
       for update of l, o skip locked
), deleted as (
    delete from polar.event_log l where l.seq = any (array(select g.seq from going g))
), deleted_outcome as (
    delete from polar.event_outcome o where o.seq = any (array(select g.seq from going g))
), moved as (
    update polar.event_prune p
       set seq = greatest(p.seq, (select r.seq from reached r)),
           left_over = array(
               select l.seq from polar.event_log l where l.seq = any (array(select d.seq from due d))
               except
               select g.seq from going g
               order by 1)
     where p.what = 'event'
    returning cardinality(p.left_over) as left_over
)
select (select count(*) from going)::bigint as events,
       (select count(*) from going g where g.state = 'failed')::bigint as failed,
       (select m.left_over from moved m)::bigint as left_over,
       (exists (select from reached r where r.seq is not null)
        or (select count(*) from going) = @max_rows::integer)::boolean as more;

-- name: EventPruneBodies :one
-- Leaves events older than an age without their bodies, by the same rule.
with mark as materialized (
    select p.seq, p.left_over from polar.event_prune p where p.what = 'body'
), next as materialized (
    select l.seq, l.received_at < now() - @age::interval as old
      from polar.event_log l
     where l.seq > (select m.seq from mark m where cardinality(m.left_over) < @max_rows::integer)
     order by l.seq
     limit @max_rows::integer
), reached as materialized (
    select max(n.seq) as seq from next n where n.old
), due as materialized (
    select n.seq from next n where n.seq <= (select r.seq from reached r)
    union all
    select unnest(m.left_over) from mark m
), going as materialized (
    select l.seq, o.state
      from polar.event_log l
      join polar.event_outcome o on o.seq = l.seq
     where l.seq = any (array(select d.seq from due d))
       and o.seq = any (array(select d.seq from due d))
       and l.body is not null
       and l.received_at < now() - @age::interval
       and (o.state = 'applied' or not exists (
               select from polar.river_job j
                where j.kind = 'apply_events'
                  and j.state in ('available', 'pending', 'retryable', 'running', 'scheduled')
                  and (j.args @> jsonb_build_object('batch', l.batch)
                       or j.args @> jsonb_build_object('events', jsonb_build_array(l.seq)))))
     order by l.seq
     limit @max_rows::integer
       for update of l, o skip locked
), blanked as (
    update polar.event_log l set body = null, body_bytes = null where l.seq = any (array(select g.seq from going g))
), moved as (
    update polar.event_prune p
       set seq = greatest(p.seq, (select r.seq from reached r)),
           left_over = array(
               select l.seq from polar.event_log l where l.seq = any (array(select d.seq from due d)) and l.body is not null
               except
               select g.seq from going g
               order by 1)
     where p.what = 'body'
    returning cardinality(p.left_over) as left_over
)
select (select count(*) from going)::bigint as events,
       (select count(*) from going g where g.state = 'failed')::bigint as failed,
       (select m.left_over from moved m)::bigint as left_over,
       (exists (select from reached r where r.seq is not null)
        or (select count(*) from going) = @max_rows::integer)::boolean as more;

-- name: EventPruneOutcomes :execrows
-- Outcomes below the log's first event: a replay may write one for an event that is being deleted.
delete from polar.event_outcome
 where seq = any (array(
           select o.seq from polar.event_outcome o
            where o.seq < (select coalesce(min(l.seq), 9223372036854775807) from polar.event_log l)
            order by o.seq
            limit @max_rows::integer));

-- name: EventRestoreMany :one
-- Gives failed events that are no longer kept whole the bodies of their redeliveries, and a job.
select polar.restore_events(@webhook_ids::text[], @bodies::text[], @body_bytes::bytea[], @notify::boolean)::bigint as restored;
