-- name: ConsoleRecentEvents :many
select e.webhook_id, e.type, e.state, e.received_at, coalesce(e.error, '')::text as error
  from polar.event e
 order by e.seq desc
 limit @max_rows::integer;

-- name: ConsoleRecentLinks :many
select l.customer_id, coalesce(c.email, '')::text as email, l.local_user_id, l.basis, l.linked_at
  from polar.customer_link l
  left join polar.customer c on c.id = l.customer_id
 order by l.linked_at desc, l.customer_id
 limit @max_rows::integer;

-- name: ConsoleRecentRequests :many
select r.id, r.key, r.external_customer_id, r.params, r.state, r.checkout_id, r.url, r.expires_at, r.error, r.created_at, r.updated_at
  from polar.checkout_request r
 order by r.created_at desc, r.id
 limit @max_rows::integer;

-- name: ConsoleLocalUsers :many
select u.id::text as id, coalesce(u.email, '')::text as email
  from polar.local_user u
 where u.deleted_at is null
 order by u.id
 limit @max_rows::integer;
