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
       coalesce(l.basis, '')::text as linked_basis,
       coalesce(l.checkout_id, '00000000-0000-0000-0000-000000000000')::uuid as linked_checkout_id
  from polar.customer c
  left join polar.customer_link l on l.customer_id = c.id
 where c.id = any (@ids::uuid[])
 order by c.id;

-- name: LinkEvidenceList :many
select e.customer_id::uuid as customer_id, e.checkout_id, e.local_user_id::text as local_user_id, e.proves::boolean as proves
  from polar.link_evidence e
 where e.customer_id = any (@ids::uuid[])
 order by e.customer_id, e.succeeded_at, e.checkout_id;

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
insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at, actor, note)
select g.customer_id, g.local_user_id, g.basis, now(), @actor::text, nullif(@note::text, '')
  from (select unnest(@customer_ids::uuid[]) as customer_id,
               unnest(@local_user_ids::text[]) as local_user_id,
               unnest(@bases::text[]) as basis) g;

-- name: CustomerLinkHistoryEndMany :exec
update polar.customer_link_history h
   set ended_at = now(), end_reason = g.reason, ended_by = @ended_by::text, end_note = nullif(@end_note::text, '')
  from (select unnest(@customer_ids::uuid[]) as customer_id, unnest(@reasons::text[]) as reason) g
 where h.customer_id = g.customer_id and h.ended_at is null;

-- name: LinkClaimantList :many
-- Customers that may claim one of these users.
select c.id from polar.customer c
 where c.external_id = any (@local_user_ids::text[]) and c.deleted_at is null
union
select e.customer_id::uuid from polar.link_evidence e where e.local_user_id = any (@local_user_ids::text[])
union
select f.customer_id from polar.link_conflict f
 where f.resolved_at is null and f.local_user_id = any (@local_user_ids::text[]);

-- name: LinkWaitingList :many
-- Customers for whom evidence names a user who is alive by now, though neither a link to that user nor a conflict about
-- the two says what became of it; and those that waited for a user to become free, who is. First go the many who are
-- linked; whether a checkout proves anything is looked at last, as it costs the most.
with named as materialized (
    -- What a person has linked is weighed against nothing.
    select c.id, c.external_id as local_user_id, false as by_checkout
      from polar.customer c
     where c.deleted_at is null and c.external_id is not null
       and not exists (select from polar.customer_link l where l.customer_id = c.id and l.local_user_id = c.external_id)
       and not exists (select from polar.customer_link l where l.customer_id = c.id and l.basis = 'manual')
    union all
    select c.id, r.external_customer_id, true
      from polar.checkout k
      join polar.checkout_request r on r.id = k.request_id
      join polar.customer c on c.id = k.customer_id and c.deleted_at is null
     where k.status = 'succeeded' and r.external_customer_id is not null and (r.customer_id = c.id or c.created_at >= k.created_at)
       and not exists (select from polar.customer_link l where l.customer_id = k.customer_id and l.local_user_id = r.external_customer_id)
       and not exists (select from polar.customer_link l where l.customer_id = k.customer_id and l.basis = 'manual')
), undecided as materialized (
    select n.id, n.local_user_id, n.by_checkout
      from named n
      join polar.local_user u on u.id = n.local_user_id and u.deleted_at is null
     where not exists (
               select from polar.link_conflict f
                where f.customer_id = n.id and f.local_user_id = n.local_user_id
                  and case when f.resolved_at is null then f.kind in ('evidence_disagrees', 'user_claimed')
                           else f.resolution = 'dismissed' and f.lifted_at is null
                                and (f.kind in ('evidence_disagrees', 'user_claimed')
                                     or (f.kind = 'unlinked' and (f.checkout_id is not null or not n.by_checkout))) end)
)
select w.id::uuid as id
  from undecided w
  left join lateral (
           select true as given from polar.link_evidence e
            where e.customer_id = w.id and e.local_user_id = w.local_user_id and e.proves
            limit 1) proof on w.by_checkout
 where not w.by_checkout or proof.given
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

-- name: RelinkDue :one
-- Whether the two above are to be asked again: at once where they cost next to nothing, else after many times as long as
-- they took.
select (r.took < interval '50 ms' or r.done_at < now() - least(r.took * @times::integer, @at_most::interval))::boolean as due from polar.relink r;

-- name: RelinkDone :exec
update polar.relink r set done_at = now(), took = @took::interval;

-- name: CustomerLinkHistoryListByCustomer :many
select h.local_user_id, h.basis, h.linked_at, h.actor, coalesce(h.note, '')::text as note,
       h.ended_at, coalesce(h.end_reason, '')::text as end_reason, coalesce(h.ended_by, '')::text as ended_by, coalesce(h.end_note, '')::text as end_note
  from polar.customer_link_history h
 where h.customer_id = @customer_id
 order by h.id;

-- name: CustomerGetForPeople :one
select c.id, coalesce(c.external_id, '')::text as external_id, coalesce(c.email, '')::text as email, coalesce(c.name, '')::text as name,
       c.created_at, c.deleted_at,
       coalesce(l.local_user_id, '')::text as linked_user_id, coalesce(l.basis, '')::text as linked_basis, l.linked_at as linked_at
  from polar.customer c
  left join polar.customer_link l on l.customer_id = c.id
 where c.id = @id;

-- name: CustomerListByEmail :many
-- For a person who types an address: never evidence.
select c.id, coalesce(c.external_id, '')::text as external_id
  from polar.customer c
 where lower(c.email) = lower(@email::text) and c.deleted_at is null
 order by c.created_at, c.id;

-- name: CheckoutListForPeople :many
-- The checkouts of a customer that speak for or against a link: its own sessions made for a local user, and those of
-- guests that may have made it.
select k.id as checkout_id, coalesce(k.status, '')::text as status, coalesce(r.external_customer_id, '')::text as local_user_id,
       k.created_at as session_created_at, c.created_at as customer_created_at,
       coalesce(r.customer_id = c.id, false)::boolean as by_customer,
       coalesce(e.proves, false)::boolean as proves
  from polar.customer c
  join polar.checkout k on k.customer_id = c.id
  left join polar.checkout_request r on r.id = k.request_id
  left join polar.link_evidence e on e.checkout_id = k.id
 where c.id = @customer_id
   and (r.external_customer_id is not null or k.created_at <= c.created_at)
 order by k.created_at, k.id
 limit @max_rows::integer;

-- name: LocalUserListForPeople :many
-- Each of these ids, whether or not there is such a user.
select g.id::text as id, (u.id is not null)::boolean as known, coalesce(u.email, '')::text as email, u.created_at, u.deleted_at
  from (select distinct unnest(@ids::text[]) as id) g
  left join polar.local_user u on u.id = g.id
 order by g.id;

-- name: LinkWaitingPut :exec
-- Who is linked to nobody, and who is no longer.
with gone as (
    delete from polar.link_waiting w where w.customer_id = any (@gone::uuid[])
)
insert into polar.link_waiting (customer_id)
select unnest(@come::uuid[])
on conflict do nothing;

-- name: LinkWaitingHeal :execrows
-- Lists whom nobody has listed: those who came by a program older than the list.
insert into polar.link_waiting (customer_id, since)
select c.id, coalesce(c.created_at, now())
  from polar.customer c
 where c.deleted_at is null
   and not exists (select from polar.customer_link l where l.customer_id = c.id)
   and not exists (select from polar.link_waiting w where w.customer_id = c.id)
on conflict do nothing;
