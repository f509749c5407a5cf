-- A person as the console shows one: local users and customers of Polar that are the same, by link.

-- name: PersonAccessList :many
-- The zero time stands for null.
select a.kind, a.object_id::uuid as object_id, coalesce(a.product_name, a.benefit_description, '')::text as name, a.status::text as status, a.via,
       coalesce(a.until, '0001-01-01 00:00:00+00')::timestamptz as until, coalesce(a.renews_at, '0001-01-01 00:00:00+00')::timestamptz as renews_at, a.reason::text as reason
  from polar.user_access a
 where a.local_user_id = @local_user_id::text
 order by a.kind desc, a.starts_at
 limit @max_rows::integer;

-- name: PersonSubscriptionList :many
-- Those of the customers, and those bought in the users' own checkouts, whichever customer Polar put them on. buyer is whose
-- checkout it was, where it was one's: theirs it is.
select s.id, coalesce(s.status, '')::text as status, coalesce(p.name, s.doc #>> '{product,name}', '')::text as product_name, coalesce(s.amount, 0)::bigint as amount, coalesce(s.currency, '')::text as currency,
       coalesce(s.recurring_interval, '')::text as recurring_interval, s.current_period_end, coalesce(s.cancel_at_period_end, false)::boolean as cancel_at_period_end, s.ended_at, s.created_at,
       coalesce((select r.external_customer_id from polar.checkout_request r where r.checkout_id = s.checkout_id and r.external_customer_id is not null limit 1), '')::text as buyer
  from polar.subscription s
  left join polar.product p on p.id = s.product_id
 where s.id in (select o.id from polar.subscription o where o.customer_id = any (@customer_ids::uuid[])
                 union all select o.id from polar.checkout_request r join polar.subscription o on o.checkout_id = r.checkout_id where r.external_customer_id = any (@local_user_ids::text[]))
   and s.deleted_at is null
 order by s.created_at desc nulls last
 limit @max_rows::integer;

-- name: PersonOrderList :many
-- As PersonSubscriptionList.
select o.id, coalesce(o.status, '')::text as status, coalesce(o.description, p.name, '')::text as product_name, coalesce(o.total_amount, 0)::bigint as total_amount,
       (coalesce(o.refunded_amount, 0) + coalesce(o.refunded_tax_amount, 0))::bigint as refunded_amount, coalesce(o.currency, '')::text as currency, coalesce(o.invoice_number, '')::text as invoice_number, o.created_at,
       coalesce((select r.external_customer_id from polar.checkout_request r where r.checkout_id = o.checkout_id and r.external_customer_id is not null limit 1), '')::text as buyer
  from polar."order" o
  left join polar.product p on p.id = o.product_id
 where o.id in (select n.id from polar."order" n where n.customer_id = any (@customer_ids::uuid[])
                 union all select n.id from polar.checkout_request r join polar."order" n on n.checkout_id = r.checkout_id where r.external_customer_id = any (@local_user_ids::text[]))
   and o.deleted_at is null
 order by o.created_at desc nulls last
 limit @max_rows::integer;

-- name: PersonLinkHistoryList :many
select h.id, h.customer_id, h.local_user_id, h.basis, h.linked_at, h.actor, coalesce(h.note, '')::text as note, h.ended_at, coalesce(h.end_reason, '')::text as end_reason,
       coalesce(h.ended_by, '')::text as ended_by, coalesce(h.end_note, '')::text as end_note
  from polar.customer_link_history h
 where h.customer_id = any (@customer_ids::uuid[]) or h.local_user_id = any (@local_user_ids::text[])
 order by h.id desc
 limit @max_rows::integer;

-- name: PersonEventList :many
-- Events of whatever is the customers': of the 2,000 things that Polar made last. Neither bodies nor errors.
with things as materialized (
    select t.id
      from (select unnest(@customer_ids::uuid[])::text as id, 'infinity'::timestamptz as made_at
            union all select s.id::text, s.created_at from polar.subscription s where s.customer_id = any (@customer_ids::uuid[])
            union all select o.id::text, o.created_at from polar."order" o where o.customer_id = any (@customer_ids::uuid[])
            union all select k.id::text, k.created_at from polar.checkout k where k.customer_id = any (@customer_ids::uuid[])
            union all select s.id::text, s.created_at from polar.checkout_request r join polar.subscription s on s.checkout_id = r.checkout_id where r.external_customer_id = any (@local_user_ids::text[])
            union all select o.id::text, o.created_at from polar.checkout_request r join polar."order" o on o.checkout_id = r.checkout_id where r.external_customer_id = any (@local_user_ids::text[])
            union all select k.checkout_id::text, k.created_at from polar.checkout_request k where k.external_customer_id = any (@local_user_ids::text[]) and k.checkout_id is not null
            union all select f.id::text, f.created_at from polar.refund f where f.customer_id = any (@customer_ids::uuid[])
            union all select g.id::text, g.created_at from polar.benefit_grant g where g.customer_id = any (@customer_ids::uuid[])
            union all select m.id::text, m.created_at from polar.member m where m.customer_id = any (@customer_ids::uuid[])
            union all select c.id::text, c.created_at from polar.customer_seat c where c.customer_id = any (@customer_ids::uuid[])) t
     group by t.id
     order by max(t.made_at) desc nulls last
     limit 2000
)
select e.seq, e.type, coalesce(e.object_id, '')::text as object_id, e.state, e.received_at as at
  from (select l.seq from things t join polar.event_log l on l.object_id = t.id
         where l.seq < @before_seq::bigint order by l.seq desc limit @max_rows::integer) n
  join polar.event e on e.seq = n.seq
 order by e.seq desc;
