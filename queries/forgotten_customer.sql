-- name: CustomerForget :one
select polar.forget_customer(@customer_id::uuid, @actor::text, @reason::text)::jsonb as counts;

-- name: CustomerForgettable :one
-- What is known of a customer that is to be forgotten: a document names it, though it may have none of its own.
select (exists (select from polar.customer c where c.id = g.id)
        or exists (select from polar.customer_state s where s.customer_id = g.id)
        or exists (select from polar.checkout k where k.customer_id = g.id)
        or exists (select from polar."order" o where o.customer_id = g.id)
        or exists (select from polar.subscription s where s.customer_id = g.id)
        or exists (select from polar.member m where m.customer_id = g.id)
        or exists (select from polar.event_log l where l.object_id = g.id::text)
        or exists (select from polar.forgotten_customer f where f.customer_id = g.id))::boolean as known,
       c.deleted_at, f.forgotten_at
  from (select @customer_id::uuid as id) g
  left join polar.customer c on c.id = g.id
  left join polar.forgotten_customer f on f.customer_id = g.id;

-- name: CustomerListEverByExternalID :many
select c.id from polar.customer c where c.external_id = @external_id order by c.id;

-- name: ForgottenObjectList :many
select polar.forgotten_objects(@customer_id::uuid)::text as object_id;

-- name: ForgottenList :many
-- Which of these events speak of forgotten customers, by the ids that they name.
select distinct g.seq::bigint as seq
  from (select unnest(@seqs::bigint[]) as seq, unnest(@ids::uuid[]) as id) g
 where exists (select from polar.forgotten_customer f where f.customer_id = g.id)
    or exists (select from polar.forgotten_checkout k where k.checkout_id = g.id);

-- name: ForgottenCheckoutNote :many
-- Of these checkouts, those of forgotten customers; all of their versions count from now on.
with given as (
    select c.id, c.customer_id from polar.checkout c where c.id = any (@ids::uuid[])
), noted as (
    insert into polar.forgotten_checkout (checkout_id, customer_id)
    select g.id, g.customer_id from given g join polar.forgotten_customer f on f.customer_id = g.customer_id
     order by g.id
    on conflict do nothing
    returning checkout_id
)
select n.checkout_id from noted n
union
select k.checkout_id from polar.forgotten_checkout k where k.checkout_id = any (@ids::uuid[]);

-- name: EventBlankMany :one
-- Takes the personal data out of events, given as documents, and out of what was said of their failure. A body that
-- went meanwhile stays away.
with given as (
    select unnest(@seqs::bigint[]) as seq, unnest(@docs::jsonb[]) as doc
), blanked as (
    update polar.event_log l
       set body = b.body, body_bytes = null
      from (select g.seq, polar.redacted_event(g.doc)::text as body from given g) b
     where l.seq = b.seq and (l.body <> b.body or l.body_bytes is not null)
    returning l.seq
), silenced as (
    update polar.event_outcome o
       set error = 'not shown: it may quote a customer who was forgotten (truenorth replay --failed tells it anew)'
      from given g
     where o.seq = g.seq and o.state = 'failed'
)
select count(*)::bigint as blanked from blanked;

-- name: EventListByObject :many
-- Events of these objects, however many; one that nobody reads as JSON is there too.
select b.seq, b.webhook_id, b.type, b.occurred_at, b.body::text as body
  from (select e.seq, e.webhook_id, e.type, e.occurred_at, e.body,
               sum(octet_length(e.body)) over (order by e.seq) - octet_length(e.body) as bytes_before
          from (select l.seq, l.webhook_id, l.type, l.occurred_at, l.body
                  from polar.event_log l
                 where l.object_id = any (@object_ids::text[]) and l.seq > @after and l.body is not null
                 order by l.seq
                 limit @max_rows::integer) e) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;

-- name: EventListStray :many
-- Events that name a customer though the mirror does not tell so: of types without a table, failed, or not tried yet.
-- What is sold is nobody's. Only these bodies are looked into, each by itself (offset 0), not the whole log.
with stray as materialized (
    select u.seq
      from polar.event_log u
     where split_part(u.type, '.', 1) not in ('organization', 'product', 'discount', 'benefit', 'customer', 'member', 'checkout', 'subscription', 'order', 'refund', 'benefit_grant', 'customer_seat')
       and u.seq > @after
    union
    select o.seq from polar.event_outcome o where o.state = 'failed' and o.seq > @after
    union
    select p.seq
      from polar.event_log p
     where p.seq > (select s.swept_seq from polar.event_sweep s)
       and p.seq > @after
       and not exists (select from polar.event_outcome o where o.seq = p.seq offset 0)
), named as (
    select l.seq, l.webhook_id, l.type, l.occurred_at, l.object_id, l.body
      from (select s.seq from stray s order by s.seq) s
     cross join lateral (
           select e.seq, e.webhook_id, e.type, e.occurred_at, e.object_id, e.body
             from polar.event_log e
            where e.seq = s.seq
              and split_part(e.type, '.', 1) not in ('organization', 'product', 'discount', 'benefit')
              and strpos(lower(e.body), @customer_id::text) > 0
           offset 0) l
     limit @max_rows::integer
)
select b.seq, b.webhook_id, b.type, b.occurred_at, b.object_id, b.body::text as body
  from (select n.seq, n.webhook_id, n.type, n.occurred_at, n.object_id, n.body,
               sum(octet_length(n.body)) over (order by n.seq) - octet_length(n.body) as bytes_before
          from named n) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;
