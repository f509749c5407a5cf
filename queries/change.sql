-- name: ChangesTell :one
select t.told::integer as told, t.more::boolean as more from polar.tell_changes(@max_users::integer, @walk_every::interval) t;

-- name: ChangeList :one
-- The next changes after one, each as an object with the table's column names; the id of the last of them, up to which they
-- are kept no more, and the newest there is, unless this is a standby, which lags.
select n.changes, n.last, t.removed_until,
       case when pg_is_in_recovery() then @after_id::bigint else greatest(t.removed_until, (select max(m.id) from polar.change m)) end::bigint as newest
  from polar.change_teller t
 cross join (select coalesce(jsonb_agg(to_jsonb(c) order by c.id), '[]')::jsonb as changes, coalesce(max(c.id), @after_id::bigint)::bigint as last
               from (select * from polar.change o where o.id > @after_id::bigint order by o.id limit @max_rows::integer) c) n;

-- name: ChangeLeap :one
-- Ids go on far beyond all that were ever given, and cursors before that are told that they have missed something. Nobody tells
-- meanwhile.
with held as materialized (
    select pg_advisory_xact_lock(hashtextextended('polar:tell', 0))
), far as materialized (
    select greatest(t.removed_until, (select max(c.id) from polar.change c)) + @leap::bigint as id from held cross join polar.change_teller t
), leapt as materialized (
    select setval(pg_get_serial_sequence('polar.change', 'id'), f.id) as id from far f
)
update polar.change_teller t set removed_until = l.id from leapt l
returning t.removed_until;

-- name: ChangeDueCount :one
select count(*)::bigint as changes, coalesce(extract(epoch from now() - min(n.due_at)), 0)::float8 as oldest_seconds
  from (select d.due_at from polar.change_due d limit 10000) n;

-- name: ChangePrune :one
-- Removes changes older than an age, the oldest first, and remembers how far.
with next as materialized (
    select c.id, c.at from polar.change c order by c.id limit @max_rows::integer
), removed as (
    delete from polar.change c using next n where c.id = n.id and n.at < now() - @age::interval returning c.id
), moved as (
    update polar.change_teller t
       set removed_until = greatest(t.removed_until, (select max(r.id) from removed r))
     where exists (select from removed)
)
select count(*)::bigint as removed from removed;

-- name: ChangeDueOfGoneUsers :exec
-- Users who were told of an access and are deleted or gone, in whosever table: no trigger of ours sees that.
insert into polar.change_due (what, users)
select 'life', array_agg(g.local_user_id)
  from (select distinct t.local_user_id
          from polar.told_access t
         where not exists (select from polar.local_user u where u.id = t.local_user_id and u.deleted_at is null)
         limit @max_rows::integer) g
having count(*) > 0;
