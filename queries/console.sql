-- name: CheckoutRequestListRecent :many
select r.id, coalesce(r.external_customer_id, '')::text as external_customer_id, r.state, coalesce(r.url, '')::text as url, r.expires_at,
       coalesce(r.error, '')::text as error, r.created_at
  from polar.checkout_request r
 order by r.created_at desc, r.id
 limit @max_rows::integer;

-- name: CustomerLinkListRecent :many
select l.customer_id, coalesce(c.email, '')::text as email, l.local_user_id, l.basis, l.linked_at
  from polar.customer_link l
  left join polar.customer c on c.id = l.customer_id
 order by l.linked_at desc, l.customer_id
 limit @max_rows::integer;

-- name: EventListRecent :many
-- Neither body nor error: both may quote what Polar sent.
select e.webhook_id, e.type, e.state, e.received_at
  from polar.event e
 order by e.seq desc
 limit @max_rows::integer;

-- name: LocalUserList :many
select u.id::text as id, coalesce(u.email, '')::text as email
  from polar.local_user u
 where u.deleted_at is null
 order by u.id
 limit @max_rows::integer;

-- name: PurchaseGet :one
select r.id as request_id, r.state, coalesce(r.external_customer_id, '')::text as external_customer_id, c.customer_id,
       coalesce(l.local_user_id, '')::text as linked_user_id, coalesce(l.basis, '')::text as linked_basis,
       exists (select from polar.link_conflict f where f.customer_id = c.customer_id and f.resolved_at is null) as in_conflict,
       r.updated_at
  from polar.checkout_request r
  left join polar.checkout c on c.id = r.checkout_id
  left join polar.customer_link l on l.customer_id = c.customer_id
 where r.checkout_id = @checkout_id::uuid
 order by r.created_at
 limit 1;
