-- name: ObjectsCompare :many
-- An empty field means that only the rest of the document differs. The zero time stands for none.
select c.id::uuid as id, c.state::text as state, coalesce(c.field, '')::text as field,
       coalesce(c.local, '')::text as local, (c.local is null)::boolean as local_null,
       coalesce(c.remote, '')::text as remote, (c.remote is null)::boolean as remote_null,
       coalesce(c.local_changed_at, '0001-01-01 00:00:00+00')::timestamptz as local_changed_at,
       coalesce(c.remote_changed_at, '0001-01-01 00:00:00+00')::timestamptz as remote_changed_at
  from polar.compare_objects(@object_type::text, @ids::uuid[], @docs::jsonb[], @read_at::timestamptz) as c
 order by c.id, c.field;

-- name: ObjectsListUnseen :many
select u::uuid as id
  from polar.unseen_objects(@object_type::text, @sort_key::text, sqlc.narg('from_key')::timestamptz, sqlc.narg('until_key')::timestamptz,
                            @seen::uuid[], @run_id::bigint, @after_id::uuid, @max_rows::integer) as u;

-- name: ObjectsBury :many
select b::uuid as id from polar.bury_objects(@object_type::text, @ids::uuid[], @buried_at::timestamptz) as b;

-- name: CheckoutListUnfinishedBefore :many
-- Sessions that are not over and so old that paging from them would list everything.
select c.id
  from polar.checkout c
 where c.status in ('open', 'confirmed') and c.deleted_at is null and c.created_at < @before and c.id > @after_id
 order by c.id
 limit @max_rows::integer;

-- name: CheckoutOldestUnfinished :one
-- Of those created since.
select coalesce(min(c.created_at), '0001-01-01 00:00:00+00')::timestamptz as created_at
  from polar.checkout c
 where c.status in ('open', 'confirmed') and c.deleted_at is null and c.created_at >= @since;

-- name: OrderListUnfinishedBefore :many
select o.id
  from polar."order" o
 where o.status in ('draft', 'pending') and o.deleted_at is null and o.created_at < @before and o.id > @after_id
 order by o.id
 limit @max_rows::integer;

-- name: SubscriptionListUnfinishedBefore :many
-- Those that run, and whose period should have ended: the event of what came then is missing.
select s.id
  from polar.subscription s
 where s.status not in ('canceled', 'incomplete_expired') and s.deleted_at is null
   and s.current_period_end < @before and s.id > @after_id
 order by s.id
 limit @max_rows::integer;

-- name: SeatHolderList :many
-- Subscriptions and orders that have seats, in one order.
with h as (
    select s.id, false as is_order from polar.subscription s where s.seats is not null and s.deleted_at is null
    union all
    select o.id, true as is_order from polar."order" o where o.seats is not null and o.subscription_id is null and o.deleted_at is null
)
select h.id::uuid as id, h.is_order::boolean as is_order
  from h
 where h.id > @after_id::uuid
 order by h.id
 limit @max_rows::integer;

-- name: CustomerSeatListUnseen :many
-- Living seats of one subscription or order that its list does not show. A seat that was revoked is not missed.
select c.id
  from polar.customer_seat c
 where (c.subscription_id = @holder_id::uuid or c.order_id = @holder_id::uuid)
   and c.deleted_at is null
   and c.status is distinct from 'revoked'
   and c.id <> all (@seen::uuid[])
 order by c.id;

-- name: TombstoneListLiftable :many
-- Tombstones among these objects, and whether a list read at this time is proof that they live: so long after the
-- deletion that the answer cannot be older than it.
with o as (
    select m.id, m.version_at, m.version_from from polar.member m where @object_type::text = 'member' and m.tombstone
    union all
    select g.id, g.version_at, g.version_from from polar.benefit_grant g where @object_type::text = 'benefit_grant' and g.tombstone
    union all
    select r.id, r.version_at, r.version_from from polar.refund r where @object_type::text = 'refund' and r.tombstone
    union all
    select c.id, c.version_at, c.version_from from polar.customer_seat c where @object_type::text = 'customer_seat' and c.tombstone
)
select o.id::uuid as id
  from o
 where o.id = any (@ids::uuid[])
   and coalesce(o.version_at + case o.version_from when 'read' then interval '0' else interval '1 minute' end, '-infinity') < (@read_at::timestamptz);

-- name: DriftFactsList :many
-- What tells why an object differs: an event of it, newer than what is stored, that is not applied; an outage of the
-- endpoint when it changed, which was somewhere between two times. The zero time stands for none.
select g.id::uuid as id,
       (exists (select from polar.event_log l
                  join polar.event_outcome o on o.seq = l.seq and o.state = 'failed'
                 where l.object_id = g.id::text and coalesce(l.occurred_at, 'infinity') > g.stored_at)
        or exists (select from polar.event_log l
                    where l.seq > (select w.swept_seq from polar.event_sweep w)
                      and l.object_id = g.id::text
                      and coalesce(l.occurred_at, 'infinity') > g.stored_at
                      and not exists (select from polar.event_outcome o where o.seq = l.seq and o.state = 'applied')))::boolean as unapplied,
       exists (select from polar.endpoint_outage e
                where e.began_at <= g.until_at and coalesce(e.ended_at, 'infinity') >= g.from_at)::boolean as dark
  from (select unnest(@ids::uuid[]) as id, unnest(@stored_ats::timestamptz[]) as stored_at,
               unnest(@from_ats::timestamptz[]) as from_at, unnest(@until_ats::timestamptz[]) as until_at) g;

-- name: ObjectVersionList :many
select v.id::uuid as id, coalesce(v.version_at, '0001-01-01 00:00:00+00')::timestamptz as version_at
  from polar.object_versions(@object_type::text, @ids::uuid[]) as v;

-- name: DriftRecordMany :exec
-- Records differences. Those that are repaired close what was open of the same objects; the others stay open.
with given as (
    select unnest(@object_ids::text[]) as object_id,
           unnest(@fields::text[]) as field,
           unnest(@locals::text[]) as local,
           unnest(@local_nulls::boolean[]) as local_null,
           unnest(@remotes::text[]) as remote,
           unnest(@remote_nulls::boolean[]) as remote_null,
           unnest(@causes::text[]) as cause
), closed as (
    update polar.drift d
       set resolved_at = now(), resolution = 'repaired', run_id = @run_id::bigint, cause = g.cause,
           local = case when not g.local_null then g.local end, remote = case when not g.remote_null then g.remote end
      from given g
     where @repaired::boolean
       and d.object_type = @object_type::text
       and d.object_id = g.object_id and d.field = g.field
       and d.resolved_at is null
       and d.cause <> 'duplicate_session'
    returning d.object_id, d.field
), ended as (
    update polar.drift d
       set resolved_at = now(), resolution = 'repaired'
     where @repaired::boolean
       and d.object_type = @object_type::text
       and d.object_id = any (@object_ids::text[])
       and d.resolved_at is null
       and d.cause <> 'duplicate_session'
       and not exists (select from given g where g.object_id = d.object_id and g.field = d.field)
)
insert into polar.drift as o (run_id, object_type, object_id, field, local, remote, cause, resolved_at, resolution)
select @run_id::bigint, @object_type::text, g.object_id, g.field,
       case when not g.local_null then g.local end, case when not g.remote_null then g.remote end, g.cause,
       case when @repaired::boolean then now() end, case when @repaired::boolean then 'repaired' end
  from given g
 where not exists (select from closed c where c.object_id = g.object_id and c.field = g.field)
on conflict (object_type, object_id, field, (cause = 'duplicate_session')) where resolved_at is null
do update set local = excluded.local, remote = excluded.remote, run_id = excluded.run_id, cause = excluded.cause;

-- name: DriftSettleRest :exec
-- At the end of a sweep that looked at everything, what was open before and was not found again is in step.
update polar.drift d
   set resolved_at = now(), resolution = 'in_step'
 where d.object_type = @object_type::text
   and d.resolved_at is null
   and d.cause <> 'duplicate_session'
   and d.run_id is distinct from @run_id::bigint;

-- name: DriftSettle :exec
-- Closes what is open of objects that were looked at and are in step.
update polar.drift d
   set resolved_at = now(), resolution = 'in_step'
 where d.object_type = @object_type::text
   and d.object_id = any (@object_ids::text[])
   and d.resolved_at is null
   and d.cause <> 'duplicate_session';

-- name: DriftAnyOpen :one
select exists (select from polar.drift d where d.object_type = @object_type::text and d.resolved_at is null and d.cause <> 'duplicate_session')::boolean as any_open;

-- name: DriftListByRun :many
select d.object_type, d.object_id, d.field, d.local, d.remote, d.cause, d.detected_at, d.resolution
  from polar.drift d
 where d.run_id = @run_id::bigint
 order by d.id
 limit @max_rows::integer;

-- name: DriftEndDuplicates :exec
-- A second session that is over without a payment, or is the one kept by now, hurts nobody any more.
update polar.drift d
   set resolved_at = now(), resolution = 'ended'
  from polar.checkout c
 where d.cause = 'duplicate_session' and d.resolved_at is null
   and d.object_type = 'checkout' and d.object_id = c.id::text
   and c.request_id in (select i.request_id from polar.checkout i where i.id = any (@checkout_ids::uuid[]))
   and (c.tombstone or c.status in ('expired', 'failed')
        or exists (select from polar.checkout_request r where r.id = c.request_id and r.checkout_id = c.id));

-- name: ReconcileLeaseTake :one
-- Takes the place, or keeps it.
update polar.reconcile_lease l
   set holder = @holder::text, until = now() + @lease::interval
 where l.until is null or l.until < now() or l.holder = @holder::text
returning l.holder;

-- name: ReconcileLeaseKeep :execrows
update polar.reconcile_lease l set until = now() + @lease::interval where l.holder = @holder::text and l.until > now();

-- name: ReconcileLeaseRelease :exec
update polar.reconcile_lease l set holder = null, until = null where l.holder = @holder::text;

-- name: ReconcileMarkAdd :exec
insert into polar.reconcile_mark (run_id, kind, object_id)
select @run_id::bigint, @kind::text, unnest(@object_ids::uuid[])
on conflict do nothing;

-- name: ReconcileMarkRemove :exec
delete from polar.reconcile_mark m where m.run_id = @run_id::bigint and m.kind = @kind::text and m.object_id = any (@object_ids::uuid[]);

-- name: ReconcileMarkClear :exec
delete from polar.reconcile_mark m where m.run_id = @run_id::bigint and m.kind = @kind::text;

-- name: ReconcileMarkForget :exec
-- Marks of runs that are over.
delete from polar.reconcile_mark m
 where not exists (select from polar.reconcile_run r where r.id = m.run_id and r.state = 'running');

-- name: ReconcileMarkList :many
select m.object_id
  from polar.reconcile_mark m
 where m.run_id = @run_id::bigint and m.kind = @kind::text and m.object_id > @after_id
 order by m.object_id
 limit @max_rows::integer;

-- name: ReconcileRunInsert :one
insert into polar.reconcile_run (object_type, dry_run, full_sweep, since, job_id)
values (@object_type, @dry_run, @full_sweep, sqlc.narg('since')::timestamptz, sqlc.narg('job_id')::bigint)
returning *;

-- name: ReconcileRunOfJob :one
-- The last run of this type that the job began, and how many there were.
select sqlc.embed(r), count(*) over ()::bigint as runs
  from polar.reconcile_run r
 where r.job_id = @job_id::bigint and r.object_type = @object_type
 order by r.id desc
 limit 1;

-- name: ReconcileRunResumable :one
-- A run of the command line whose process died a while ago at most, and that asked for just the same. It will not see
-- what changes behind it, so one that had not come far is not worth it.
select r.* from polar.reconcile_run r
 where r.state = 'running' and r.job_id is null
   and r.object_type = @object_type and r.dry_run = @dry_run and r.full_sweep = @full_sweep
   and (r.since is null) = (sqlc.narg('since')::timestamptz is null)
   and coalesce(abs(extract(epoch from r.since - sqlc.narg('since')::timestamptz)) < 3600, true) -- "so long ago" moves
   and r.updated_at > now() - @within::interval
   and r.seen >= @worth::bigint
 order by r.id desc
 limit 1;

-- name: ReconcileRunAbandon :exec
-- Ends runs that nobody goes on with. The caller holds the place, so no run of the command line but its own is alive; the
-- command line ends those that it does not go on with, and a worker leaves it the time to do so.
update polar.reconcile_run r
   set state = 'failed', finished_at = now(), error = coalesce(r.error || '; ', '') || 'its process ended'
 where r.state = 'running'
   and r.id <> @keep_id::bigint
   and case when r.job_id is null then r.object_type = @object_type
                                       and (r.updated_at <= now() - @within::interval or @of_command_line::boolean and r.dry_run = @dry_run)
            else not exists (select from polar.river_job j where j.id = r.job_id and j.state in ('available', 'pending', 'retryable', 'running', 'scheduled')) end;

-- name: ReconcileRunStep :execrows
-- Only for whoever has the place: the step of one who lost it is rolled back.
update polar.reconcile_run r
   set cursor = @cursor, seen = r.seen + @seen::bigint, drifted = r.drifted + @drifted::bigint, repaired = r.repaired + @repaired::bigint,
       benign = r.benign + @benign::bigint, refreshed = r.refreshed + @refreshed::bigint, total = coalesce(sqlc.narg('total')::bigint, r.total),
       listed_until = coalesce(sqlc.narg('listed_until')::timestamptz, r.listed_until), error = null, updated_at = now()
 where r.id = @id and r.state = 'running'
   and exists (select from polar.reconcile_lease l where l.holder = @holder::text and l.until > now());

-- name: ReconcileRunTried :exec
update polar.reconcile_run r set error = @error::text, updated_at = now() where r.id = @id and r.state = 'running';

-- name: ReconcileRunEnd :one
update polar.reconcile_run r
   set state = case when @error::text = '' then 'finished' else 'failed' end, error = nullif(@error::text, ''), finished_at = now(), updated_at = now(),
       reached_end = @reached_end::boolean
 where r.id = @id and r.state = 'running'
returning *;

-- name: ReconcileRunLastFinished :one
-- The newest run that looked at all there is and repaired, of any kind or only of full sweeps.
select r.* from polar.reconcile_run r
 where r.object_type = @object_type and r.reached_end and not r.dry_run and r.since is null and (r.full_sweep or not @full_only::boolean)
 order by r.id desc
 limit 1;

-- name: ReconcileRunGet :one
select r.* from polar.reconcile_run r where r.id = @id;

-- name: ReconcileRunListLast :many
-- The newest run of each type.
select distinct on (r.object_type) r.* from polar.reconcile_run r order by r.object_type, r.id desc;

-- name: ReconcileRunForget :exec
-- Runs that nobody looks at any more, but for the newest of each type, and drift resolved as long ago.
with old as (
    delete from polar.reconcile_run r
     where r.finished_at < now() - @keep::interval
       and exists (select from polar.reconcile_run n where n.object_type = r.object_type and n.id > r.id and n.reached_end and n.full_sweep and not n.dry_run)
    returning r.id
)
delete from polar.drift d where d.resolved_at < now() - @keep::interval;

-- name: ReconcileSuspectCount :one
-- Only for types that Polar does not serve by id.
select (select count(*) from polar.reconcile_mark m where m.run_id = @run_id::bigint and m.kind = 'suspect')::bigint as missed,
       (case @object_type::text
            when 'member' then (select count(*) from polar.member o where o.deleted_at is null)
            when 'refund' then (select count(*) from polar.refund o where o.deleted_at is null)
            when 'benefit_grant' then (select count(*) from polar.benefit_grant o where o.deleted_at is null)
        end)::bigint as living;

-- name: DriftCountByCause :many
select d.cause, count(*)::bigint as open from polar.drift d where d.resolved_at is null group by d.cause order by d.cause;

-- name: LastReconcileAges :many
select l.object_type, extract(epoch from l.age)::float8 as seconds from polar.last_reconcile l;

-- name: ReconcileRunLastEnded :many
-- How the newest comparison of each whole list ended.
select distinct on (r.object_type) r.object_type, r.state
  from polar.reconcile_run r
 where r.state <> 'running' and not r.dry_run and r.since is null
 order by r.object_type, r.id desc;
