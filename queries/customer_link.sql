-- name: LockKeys :exec
-- Taken in one order by everyone and held to the end of the transaction.
select pg_advisory_xact_lock(hashtextextended(k.key, 0))
  from (select distinct unnest(@keys::text[]) as key order by 1) k;

-- name: LinkSubjectList :many
-- What is known of customers that may be linked: each with its present link and with the live user whose id it bears.
select c.id,
       coalesce(c.external_id, '')::text as external_id,
       (c.deleted_at is not null)::boolean as deleted,
       coalesce(l.local_user_id, '')::text as linked_user_id,
       coalesce(l.basis, '')::text as linked_basis
  from polar.customer c
  left join polar.customer_link l on l.customer_id = c.id
 where c.id = any (@ids::uuid[])
 order by c.id;

-- name: LinkEvidenceList :many
-- Succeeded checkouts of these customers that truenorth created for a user. by_customer: the session was created
-- with this customer. no_older: the customer is no older than the session (both times are of Polar's clock), and no
-- guest's checkout may have made it instead: a session kept open until a stranger has become a customer, then paid
-- with the stranger's e-mail address, proves nothing either. The guest's payment need not have succeeded: a session
-- older than its customer got it when the guest pressed pay. A customer that bears the user's id is beyond that doubt:
-- Polar gave it the id of the session that made it.
select k.customer_id::uuid as customer_id,
       k.id as checkout_id,
       r.external_customer_id::text as local_user_id,
       coalesce(r.customer_id = k.customer_id, false)::boolean as by_customer,
       (c.created_at >= k.created_at and (c.external_id is not distinct from r.external_customer_id or not exists (
            select from polar.checkout g
              left join polar.checkout_request q on q.id = g.request_id
             where g.customer_id = c.id and g.id <> k.id
               and g.created_at <= c.created_at
               and q.external_customer_id is null
       )))::boolean as no_older
  from polar.checkout k
  join polar.checkout_request r on r.id = k.request_id
  join polar.customer c on c.id = k.customer_id
 where k.customer_id = any (@ids::uuid[])
   and k.status = 'succeeded'
   and r.external_customer_id is not null
   and c.created_at is not null
   and k.created_at is not null
 order by k.customer_id, k.version_modified_at, k.id;

-- name: LocalUserListAlive :many
select u.id::text as id from polar.local_user u where u.id = any (@ids::text[]) and u.deleted_at is null;

-- name: LocalUserAny :one
select exists (select from polar.local_user) as present;

-- name: CustomerLinkListByUser :many
select l.customer_id, l.local_user_id from polar.customer_link l where l.local_user_id = any (@local_user_ids::text[]);

-- name: CustomerLinkUpsertMany :exec
insert into polar.customer_link as o (customer_id, local_user_id, basis, checkout_id)
select g.customer_id, g.local_user_id, g.basis, nullif(g.checkout_id, '00000000-0000-0000-0000-000000000000')
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@local_user_ids::text[]) as local_user_id,
               unnest(@bases::text[]) as basis,
               unnest(@checkout_ids::uuid[]) as checkout_id) g
 order by g.customer_id
on conflict (customer_id) do update
   set local_user_id = excluded.local_user_id, basis = excluded.basis, checkout_id = excluded.checkout_id,
       linked_at = case when o.local_user_id = excluded.local_user_id then o.linked_at else excluded.linked_at end;

-- name: CustomerLinkDeleteMany :exec
delete from polar.customer_link l where l.customer_id = any (@customer_ids::uuid[]);

-- name: CustomerLinkHistoryOpenMany :exec
insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at, actor)
select g.customer_id, g.local_user_id, g.basis, now(), @actor::text
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@local_user_ids::text[]) as local_user_id,
               unnest(@bases::text[]) as basis) g;

-- name: CustomerLinkHistoryEndMany :exec
update polar.customer_link_history h
   set ended_at = now(), end_reason = g.reason
  from (select unnest(@customer_ids::uuid[]) as customer_id, unnest(@reasons::text[]) as reason) g
 where h.customer_id = g.customer_id and h.ended_at is null;

-- name: LinkConflictList :many
-- Conflicts of these customers that count: the open ones, and those that a person has settled.
select f.id, f.customer_id, f.local_user_id, f.kind, (f.resolved_at is null)::boolean as open,
       (f.resolution is not distinct from 'dismissed')::boolean as dismissed
  from polar.link_conflict f
 where f.customer_id = any (@customer_ids::uuid[])
   and (f.resolved_at is null or f.resolved_by <> 'truenorth')
 order by f.id;

-- name: LinkConflictInsertMany :exec
insert into polar.link_conflict (customer_id, local_user_id, kind, checkout_id, detail)
select g.customer_id, g.local_user_id, g.kind, nullif(g.checkout_id, '00000000-0000-0000-0000-000000000000'), g.detail
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@local_user_ids::text[]) as local_user_id,
               unnest(@kinds::text[]) as kind,
               unnest(@checkout_ids::uuid[]) as checkout_id,
               unnest(@details::text[]) as detail) g
on conflict do nothing;

-- name: LinkConflictResolveMany :exec
update polar.link_conflict f
   set resolved_at = now(), resolution = @resolution::text, resolved_by = @resolved_by::text
 where f.id = any (@ids::bigint[]) and f.resolved_at is null;

-- name: LinkConflictListOpen :many
select f.id, f.customer_id, f.local_user_id, f.kind, f.detail, f.detected_at
  from polar.link_conflict f
 where f.resolved_at is null
 order by f.id
 limit @max_rows::integer;

-- name: LinkConflictGetOpen :one
select f.id, f.customer_id, f.local_user_id, f.kind, f.detail, f.detected_at
  from polar.link_conflict f
 where f.id = @id and f.resolved_at is null
   for update;

-- name: LinkClaimantList :many
-- Customers that may claim a user who has just become free.
select c.id from polar.customer c
 where c.external_id = any (@local_user_ids::text[]) and c.deleted_at is null
union
select f.customer_id from polar.link_conflict f
 where f.resolved_at is null and f.local_user_id = any (@local_user_ids::text[]);

-- name: LinkWaitingList :many
-- Customers without a link for whom evidence names a user who is alive by now, unless a conflict about the two says
-- why not; and those that waited for a user to become free, who is.
select w.id::uuid as id from (
    select c.id, u.id as local_user_id
      from polar.customer c
      join polar.local_user u on u.id = c.external_id and u.deleted_at is null
     where c.deleted_at is null
    union
    select c.id, u.id
      from polar.checkout k
      join polar.checkout_request r on r.id = k.request_id
      join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
      join polar.customer c on c.id = k.customer_id and c.deleted_at is null
     where k.status = 'succeeded' and (r.customer_id = c.id or c.created_at >= k.created_at)
) w
 where not exists (select from polar.customer_link l where l.customer_id = w.id)
   and not exists (select from polar.link_conflict f where f.customer_id = w.id and f.local_user_id = w.local_user_id and (f.resolved_at is null or f.resolved_by <> 'truenorth'))
union
select f.customer_id
  from polar.link_conflict f
 where f.resolved_at is null and f.kind = 'user_claimed'
   and not exists (select from polar.customer_link l where l.local_user_id = f.local_user_id)
 limit @max_rows::integer;

-- name: LinkOrphanList :many
-- Links to users who are deleted or gone.
select l.customer_id
  from polar.customer_link l
 where not exists (select from polar.local_user u where u.id = l.local_user_id and u.deleted_at is null)
 limit @max_rows::integer;
