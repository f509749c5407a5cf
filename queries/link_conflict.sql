-- name: LinkConflictGet :one
select f.id, f.customer_id, f.local_user_id, f.kind, coalesce(f.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as checkout_id,
       f.detail, f.detected_at, f.resolved_at, coalesce(f.resolution, '')::text as resolution,
       coalesce(f.resolved_by, '')::text as resolved_by, coalesce(f.note, '')::text as note, f.lifted_at
  from polar.link_conflict f
 where f.id = @id;

-- name: LinkConflictInsertMany :exec
insert into polar.link_conflict (customer_id, local_user_id, kind, checkout_id, detail)
select g.customer_id, g.local_user_id, g.kind, nullif(g.checkout_id, '00000000-0000-0000-0000-000000000000'), g.detail
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@local_user_ids::text[]) as local_user_id,
               unnest(@kinds::text[]) as kind,
               unnest(@checkout_ids::uuid[]) as checkout_id,
               unnest(@details::text[]) as detail) g
on conflict do nothing;

-- name: LinkConflictInsertUnlinked :exec
insert into polar.link_conflict (customer_id, local_user_id, kind, checkout_id, detail, resolved_at, resolution, resolved_by, note)
values (@customer_id, @local_user_id, 'unlinked', nullif(@checkout_id::uuid, '00000000-0000-0000-0000-000000000000'), @detail,
        now(), 'dismissed', @resolved_by::text, nullif(@note::text, ''));

-- name: LinkConflictLift :exec
-- A person links the two after all.
update polar.link_conflict f
   set lifted_at = now()
 where f.customer_id = @customer_id and f.local_user_id = @local_user_id and f.resolution = 'dismissed' and f.lifted_at is null;

-- name: LinkConflictList :many
-- Conflicts of these customers that count: the open ones, and those that a person has dismissed.
select f.id, f.customer_id, f.local_user_id, f.kind, coalesce(f.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as checkout_id,
       (f.resolved_at is null)::boolean as open
  from polar.link_conflict f
 where f.customer_id = any (@customer_ids::uuid[])
   and (f.resolved_at is null or (f.resolution = 'dismissed' and f.lifted_at is null))
 order by f.id;

-- name: LinkConflictListByCustomer :many
select f.id, f.customer_id, f.local_user_id, f.kind, coalesce(f.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as checkout_id,
       f.detail, f.detected_at, f.resolved_at, coalesce(f.resolution, '')::text as resolution,
       coalesce(f.resolved_by, '')::text as resolved_by, coalesce(f.note, '')::text as note, f.lifted_at
  from polar.link_conflict f
 where f.customer_id = @customer_id
 order by f.id;

-- name: LinkConflictResolveMany :exec
update polar.link_conflict f
   set resolved_at = now(), resolution = @resolution::text, resolved_by = @resolved_by::text, note = nullif(@note::text, '')
 where f.id = any (@ids::bigint[]) and f.resolved_at is null;
