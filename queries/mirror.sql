-- name: MirrorObjects :one
select m.written::uuid[] as written, m.tied::uuid[] as tied
  from polar.mirror_objects(
           @object_type::text, @ids::uuid[], @docs::jsonb[], @tombstones::boolean[], @version_ats::timestamptz[],
           @version_from::text, @webhook_ids::text[], @lift::boolean, @target::text) as m;

-- name: MirrorCustomerStates :exec
select polar.mirror_customer_states(@ids::uuid[], @docs::jsonb[], @version_ats::timestamptz[], @webhook_ids::text[], @target::text);

-- name: OverlayCustomerStates :exec
select polar.overlay_customer_states(@ids::uuid[], @target::text);

-- name: CustomerListExisting :many
select c.id from polar.customer c where c.id = any (@ids::uuid[]);

-- name: CustomerGet :one
select c.id, c.external_id, c.deleted_at from polar.customer c where c.id = @id;

-- name: CustomerListByExternalID :many
select c.id from polar.customer c where c.external_id = @external_id and c.deleted_at is null order by c.id;

-- name: OrganizationPin :one
-- The organization that this database mirrors; the first one given is kept. The row is locked, so that two
-- transactions that meet an empty table agree.
insert into polar.mirrored_organization as m (organization_id) values (@organization_id)
on conflict (only_row) do update set only_row = true
returning m.organization_id;

-- name: OrganizationPinned :one
select m.organization_id from polar.mirrored_organization m;
