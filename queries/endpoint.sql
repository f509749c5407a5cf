-- name: EndpointOutageClose :execrows
update polar.endpoint_outage o set ended_at = greatest(@ended_at::timestamptz, o.began_at) where o.ended_at is null;

-- name: EndpointOutageInsert :execrows
-- A null end: it goes on. Only one can go on at a time.
insert into polar.endpoint_outage (reason, began_at, ended_at)
values (@reason, @began_at, sqlc.narg('ended_at'))
on conflict ((true)) where ended_at is null do nothing;

-- name: EndpointWatchGet :one
select w.state, w.findings, w.endpoint_id, w.checked_at, w.since, w.last_ok_at, w.alarmed_at, w.reenabled_at, w.catch_up,
       extract(epoch from now() - w.checked_at)::float8 as age_seconds
  from polar.endpoint_watch w;

-- name: EndpointWatchLock :exec
select pg_advisory_xact_lock(hashtextextended('polar:endpoint_watch', 0));

-- name: EndpointWatchReenabled :exec
update polar.endpoint_watch w set reenabled_at = now();

-- name: EndpointWatchUpsert :exec
insert into polar.endpoint_watch as w (state, findings, endpoint_id, last_ok_at, alarmed_at, catch_up)
values (@state, @findings, sqlc.narg('endpoint_id'), sqlc.narg('last_ok_at'), case when @alarmed::boolean then now() end, @catch_up)
on conflict (only_row) do update
   set state = excluded.state, findings = excluded.findings, endpoint_id = excluded.endpoint_id, checked_at = now(),
       since = case when w.state = excluded.state then w.since else now() end,
       last_ok_at = coalesce(excluded.last_ok_at, w.last_ok_at),
       alarmed_at = coalesce(excluded.alarmed_at, w.alarmed_at),
       catch_up = excluded.catch_up;
