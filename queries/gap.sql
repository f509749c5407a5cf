-- name: EventListUnknown :many
-- Those of the given events that neither arrived nor were dealt with otherwise.
select g.webhook_id::text
  from (select unnest(@webhook_ids::text[]) as webhook_id) g
 where not exists (select from polar.event_log l where l.webhook_id = g.webhook_id)
   and not exists (select from polar.gap_filled f where f.webhook_id = g.webhook_id);

-- name: GapFillGet :one
select f.filled_until, f.ran_at, f.error from polar.gap_fill f;

-- name: GapFillUpsert :exec
-- A null time leaves the one that stands; an empty error is none.
insert into polar.gap_fill as f (filled_until, error)
values (sqlc.narg('filled_until'), nullif(@error::text, ''))
on conflict (only_row) do update
   set filled_until = greatest(excluded.filled_until, f.filled_until), ran_at = now(), error = excluded.error;

-- name: GapFilledInsert :exec
insert into polar.gap_filled (webhook_id, how) values (@webhook_id, @how) on conflict (webhook_id) do nothing;

-- name: GapFilledInsertStored :execrows
-- Notes those of the given events that this very transaction stored: others came by themselves meanwhile.
insert into polar.gap_filled (webhook_id, how)
select l.webhook_id, 'stored'
  from polar.event_log l
 where l.webhook_id = any (@webhook_ids::text[]) and l.received_at = now()
on conflict (webhook_id) do nothing;
