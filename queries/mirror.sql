-- name: MirrorObjects :one
select m.written::uuid[] as written, m.tied::uuid[] as tied
  from polar.mirror_objects(
           @object_type::text, @ids::uuid[], @docs::jsonb[], @tombstones::boolean[], @version_ats::timestamptz[],
           @version_from::text, @webhook_ids::text[], @lift::boolean) as m;

-- name: CustomerStateUpsertMany :many
-- Keeps the newest customer.state_changed of each customer; the ids of those that were newer.
insert into polar.customer_state as o (customer_id, doc, active_subscriptions, granted_benefits, active_meters, version_at, version_modified_at, version_webhook_id)
select g.customer_id,
       g.doc - 'active_subscriptions' - 'granted_benefits' - 'active_meters',
       coalesce(g.doc -> 'active_subscriptions', '[]'),
       coalesce(g.doc -> 'granted_benefits', '[]'),
       coalesce(g.doc -> 'active_meters', '[]'),
       g.version_at,
       coalesce(polar.json_time(g.doc, 'modified_at'), polar.json_time(g.doc, 'created_at'), '-infinity'),
       g.webhook_id
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@docs::jsonb[]) as doc,
               unnest(@version_ats::timestamptz[]) as version_at,
               unnest(@webhook_ids::text[]) as webhook_id) g
 order by g.customer_id
on conflict (customer_id) do update
   set doc = excluded.doc, active_subscriptions = excluded.active_subscriptions, granted_benefits = excluded.granted_benefits,
       active_meters = excluded.active_meters, version_at = excluded.version_at,
       version_modified_at = excluded.version_modified_at, version_webhook_id = excluded.version_webhook_id, synced_at = now()
 where polar.is_newer('event', false, excluded.version_at, excluded.version_modified_at, 0, excluded.version_webhook_id,
                      'event', false, o.version_at, o.version_modified_at, 0, o.version_webhook_id)
returning customer_id;

-- name: CustomerInsertFromState :exec
-- A customer of which only its state is known: an empty full document, older than any other.
insert into polar.customer (id, doc, base, version_from)
select s.customer_id, s.doc, '{}', 'event'
  from polar.customer_state s
 where s.customer_id = any (@ids::uuid[])
 order by s.customer_id
on conflict (id) do nothing;

-- name: CustomerOverlayState :exec
-- Lays the newest state's fields over the newest full document, where the state is the newer of the two.
update polar.customer c
   set base = n.full_doc,
       doc = n.full_doc || s.doc,
       deleted_at = polar.json_time(s.doc, 'deleted_at'),
       synced_at = now()
  from polar.customer_state s,
       lateral (select coalesce(f.base, f.doc) as full_doc from polar.customer f where f.id = s.customer_id) n
 where s.customer_id = c.id
   and c.id = any (@ids::uuid[])
   and not c.tombstone
   and polar.is_newer('event', false, s.version_at, s.version_modified_at, 0, s.version_webhook_id,
                      c.version_from, false, c.version_at, c.version_modified_at, 0, c.version_webhook_id)
   and c.doc is distinct from (n.full_doc || s.doc);

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
