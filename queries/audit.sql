-- name: AuditInsert :exec
insert into polar.audit (actor, door, action, subject, reason, detail)
values (@actor, @door, @action, @subject, nullif(@reason::text, ''), @detail);

-- name: AuditPage :many
select a.id, a.at, a.actor, a.door, a.action, a.subject, coalesce(a.reason, '')::text as reason, a.detail
  from polar.audit a
 where a.id < @before_id::bigint
 order by a.id desc
 limit @max_rows::integer;

-- name: AuditListOf :many
select a.id, a.at, a.actor, a.door, a.action, a.subject, coalesce(a.reason, '')::text as reason, a.detail
  from polar.audit a
 where a.subject = any (@subjects::text[])
 order by a.id desc
 limit @max_rows::integer;
