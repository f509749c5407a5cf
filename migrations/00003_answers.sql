-- +goose Up
-- +goose StatementBegin
create index order_subscription_id_idx on polar."order" using btree (subscription_id);
create index order_product_id_idx on polar."order" using btree (product_id);
create index subscription_product_id_idx on polar.subscription using btree (product_id);
create index refund_customer_id_idx on polar.refund using btree (customer_id);
create index benefit_grant_member_id_idx on polar.benefit_grant using btree (member_id);
create index benefit_grant_subscription_id_idx on polar.benefit_grant using btree (subscription_id);
create index benefit_grant_order_id_idx on polar.benefit_grant using btree (order_id);
create index benefit_grant_memberless_idx on polar.benefit_grant using btree (customer_id) where member_id is null;
create index member_owner_idx on polar.member using btree (customer_id) where role = 'owner';
create index customer_seat_subscription_id_idx on polar.customer_seat using btree (subscription_id);
create index customer_seat_order_id_idx on polar.customer_seat using btree (order_id);
create index customer_seat_memberless_idx on polar.customer_seat using btree (customer_id) where member_id is null;
create index checkout_request_failed_idx on polar.checkout_request (updated_at) where state = 'failed';
create index reconcile_run_finished_idx on polar.reconcile_run (object_type, finished_at desc) where state = 'finished';
create index event_log_object_id_idx on polar.event_log using hash (object_id);

-- ---------------------------------------------------------------------------------------------
-- Answers: views for the questions that products have, each made for a plain `where local_user_id = '...'`.
--
-- What makes a thing a user's; a user who is deleted counts as no user:
--   checkout      it was bought in the user's own checkout (a checkout_request for the user), whichever customer Polar
--                 put it on. It is then that user's alone, also where the customer is linked to another: the one paid,
--                 the other was only named by an e-mail address that somebody typed. Nothing is anybody's twice.
--   link          its customer is linked to the user (customer_link). Of a team, that user is the owner.
--   seat, member  a member of its customer who is the user holds it (user_member).

create view polar.user_member as
    select u.id as local_user_id, m.id as member_id, m.customer_id, m.role, 'external_id' as basis
      from polar.member m
      join polar.local_user u on u.id = m.external_id and u.deleted_at is null
     where m.deleted_at is null
    union all
    select u.id, m.id, m.customer_id, m.role, 'link'
      from polar.customer_link l
      join polar.local_user u on u.id = l.local_user_id and u.deleted_at is null
      join polar.member m on m.customer_id = l.customer_id and m.role = 'owner' and m.deleted_at is null
     where not exists (select from polar.local_user w where w.id = m.external_id and w.deleted_at is null);
comment on view polar.user_member is 'Which members of Polar''s customers are which living local user. A member''s external id is unique within its customer only: a user may be a member of several.';
comment on column polar.user_member.local_user_id is 'The local user.';
comment on column polar.user_member.member_id is 'The member.';
comment on column polar.user_member.customer_id is 'The customer whose member it is.';
comment on column polar.user_member.role is 'owner, billing_manager or member.';
comment on column polar.user_member.basis is 'external_id: the member bears the user''s id. link: it is the owner, bears no living user''s id, and the customer is linked to the user.';

create view polar.user_subscription as
    select b.local_user_id,
           b.via,
           s.id as subscription_id,
           s.customer_id,
           s.checkout_id,
           s.product_id,
           coalesce(p.name, s.doc #>> '{product,name}') as product_name,
           s.status,
           s.seats,
           s.amount,
           s.currency,
           s.recurring_interval,
           s.recurring_interval_count,
           coalesce(s.started_at, s.created_at) as starts_at,
           coalesce(s.ended_at, s.ends_at, case when s.cancel_at_period_end or polar.json_bool(s.doc, 'pause_at_period_end') then s.current_period_end end) as until,
           case when s.status in ('active', 'trialing') and s.ends_at is null
                 and not coalesce(s.cancel_at_period_end or polar.json_bool(s.doc, 'pause_at_period_end'), false) then s.current_period_end end as renews_at,
           s.past_due_at
      from (select u.id as local_user_id, 'checkout' as via, s.id as subscription_id
              from polar.checkout_request r
              join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
              join polar.subscription s on s.checkout_id = r.checkout_id
            union all
            select u.id, 'link', s.id
              from polar.customer_link l
              join polar.local_user u on u.id = l.local_user_id and u.deleted_at is null
              join polar.subscription s on s.customer_id = l.customer_id
             where not exists (select from polar.checkout_request r
                                 join polar.local_user w on w.id = r.external_customer_id and w.deleted_at is null
                                where r.checkout_id = s.checkout_id)) b
      join polar.subscription s on s.id = b.subscription_id and s.deleted_at is null
      left join polar.product p on p.id = s.product_id;
comment on view polar.user_subscription is 'Which subscriptions are which living local user''s, of whatever status; each is one user''s at most. Who may use one now stands in user_access.';
comment on column polar.user_subscription.local_user_id is 'The local user.';
comment on column polar.user_subscription.via is 'checkout: bought in the user''s own checkout, whichever customer Polar put it on. link: its customer is linked to the user.';
comment on column polar.user_subscription.subscription_id is 'Polar''s subscription.';
comment on column polar.user_subscription.customer_id is 'The customer that Polar put it on.';
comment on column polar.user_subscription.checkout_id is 'The checkout it came from.';
comment on column polar.user_subscription.product_id is 'The product.';
comment on column polar.user_subscription.product_name is 'The product''s name.';
comment on column polar.user_subscription.status is 'incomplete, incomplete_expired, trialing, active, past_due, canceled, unpaid or paused.';
comment on column polar.user_subscription.seats is 'Seats bought; null where it is not sold by the seat.';
comment on column polar.user_subscription.amount is 'Price of a period, in the currency''s minor unit.';
comment on column polar.user_subscription.currency is 'ISO 4217 code in lower case.';
comment on column polar.user_subscription.recurring_interval is 'day, week, month or year.';
comment on column polar.user_subscription.recurring_interval_count is 'Intervals in a period.';
comment on column polar.user_subscription.starts_at is 'When it began.';
comment on column polar.user_subscription.until is 'When it ends or is paused, or did; null while it is to go on.';
comment on column polar.user_subscription.renews_at is 'When the next period begins, where it is to go on.';
comment on column polar.user_subscription.past_due_at is 'Since when a payment is missing.';

create view polar.user_order as
    select b.local_user_id,
           b.via,
           o.id as order_id,
           o.customer_id,
           o.checkout_id,
           o.subscription_id,
           o.product_id,
           coalesce(p.name, o.doc #>> '{product,name}', o.description) as product_name,
           o.billing_reason,
           o.status,
           o.status in ('paid', 'partially_refunded') and o.paid is not false as paid,
           o.seats,
           o.total_amount,
           coalesce(o.refunded_amount, 0) + coalesce(o.refunded_tax_amount, 0) as refunded_amount,
           o.currency,
           o.created_at
      from (select u.id as local_user_id, 'checkout' as via, o.id as order_id
              from polar.checkout_request r
              join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
              join polar."order" o on o.checkout_id = r.checkout_id
            union all
            select u.id, 'checkout', o.id
              from polar.checkout_request r
              join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
              join polar.subscription s on s.checkout_id = r.checkout_id
              join polar."order" o on o.subscription_id = s.id
             where not exists (select from polar.checkout_request q
                                 join polar.local_user w on w.id = q.external_customer_id and w.deleted_at is null
                                where q.checkout_id = o.checkout_id)
            union all
            select u.id, 'link', o.id
              from polar.customer_link l
              join polar.local_user u on u.id = l.local_user_id and u.deleted_at is null
              join polar."order" o on o.customer_id = l.customer_id
              left join polar.subscription s on s.id = o.subscription_id
             where not exists (select from polar.checkout_request q
                                 join polar.local_user w on w.id = q.external_customer_id and w.deleted_at is null
                                where q.checkout_id in (o.checkout_id, s.checkout_id))) b
      join polar."order" o on o.id = b.order_id and o.deleted_at is null
      left join polar.product p on p.id = o.product_id;
comment on view polar.user_order is 'Which orders are which living local user''s, of whatever status; each is one user''s at most. An order of a later period goes with its subscription.';
comment on column polar.user_order.local_user_id is 'The local user.';
comment on column polar.user_order.via is 'checkout: bought, or its subscription was, in the user''s own checkout, whichever customer Polar put it on. link: its customer is linked to the user.';
comment on column polar.user_order.order_id is 'Polar''s order.';
comment on column polar.user_order.customer_id is 'The customer that Polar put it on.';
comment on column polar.user_order.checkout_id is 'The checkout it came from.';
comment on column polar.user_order.subscription_id is 'The subscription it pays for; null for what is bought once.';
comment on column polar.user_order.product_id is 'The product.';
comment on column polar.user_order.product_name is 'The product''s name.';
comment on column polar.user_order.billing_reason is 'purchase, subscription_create, subscription_cycle, subscription_update or subscription_meter_cycle.';
comment on column polar.user_order.status is 'draft, pending, paid, refunded, partially_refunded or void.';
comment on column polar.user_order.paid is 'Whether it is paid and not wholly refunded.';
comment on column polar.user_order.seats is 'Seats bought; null where it is not sold by the seat.';
comment on column polar.user_order.total_amount is 'Total with tax, in the currency''s minor unit.';
comment on column polar.user_order.refunded_amount is 'Refunded with tax, in the minor unit.';
comment on column polar.user_order.currency is 'ISO 4217 code in lower case.';
comment on column polar.user_order.created_at is 'When Polar created it.';

-- Every row is a yes: `exists (select from polar.user_access where ...)` is the whole question.
--   A subscription  active or trialing, to its end where it is to end. Past due or unpaid: for the grace that the
--                   organization has set at Polar (none by default), as long as Polar itself leaves the benefits.
--   Bought once     paid, not wholly refunded, and not refunded so that its benefits were revoked.
--   By the seat     for who holds a claimed seat of either. The buyer who holds none has what there is to manage in
--                   user_subscription and user_order, and nothing here: so does Polar grant.
--   A benefit       granted by Polar and not revoked, not beyond the end of its subscription. It is the member's whom the
--                   grant names. But what is not sold by the seat, Polar grants to the owner of the customer that it
--                   put the purchase on: there the user's own checkout decides. Where no member is named, or none is
--                   mirrored and the customer is no team, the link decides.
-- Of a customer that was deleted at Polar, nothing: Polar revokes all of it.
create view polar.user_access as
    select x.local_user_id,
           x.kind,
           x.object_id,
           x.status,
           x.product_id,
           x.product_name,
           x.benefit_id,
           x.benefit_type,
           x.benefit_description,
           x.via,
           x.customer_id,
           x.subscription_id,
           x.order_id,
           x.starts_at,
           x.until,
           case when x.until is null then x.current_period_end end as renews_at,
           case x.kind when 'benefit' then 'benefit granted'
                       when 'product' then 'bought once'
                       else case when x.status in ('past_due', 'unpaid') then 'subscription with a payment overdue, in its grace'
                                 when x.until is not null then 'subscription that goes on no longer, to its end'
                                 when x.status = 'trialing' then 'trial'
                                 else 'subscription' end end
           || case x.via when 'checkout' then ', through the user''s own checkout'
                         when 'link' then ', through the customer linked to the user'
                         when 'seat' then ', through a seat held by a member who is the user'
                         else ', through a member who is the user' end as reason
      from (select a.local_user_id,
                   a.kind,
                   case a.kind when 'benefit' then a.grant_id when 'product' then a.order_id else a.subscription_id end as object_id,
                   case a.kind when 'benefit' then 'granted' else coalesce(s.status, o.status) end as status,
                   coalesce(s.product_id, o.product_id) as product_id,
                   coalesce(p.name, s.doc #>> '{product,name}', o.doc #>> '{product,name}', o.description) as product_name,
                   g.benefit_id,
                   coalesce(b.type, g.doc #>> '{benefit,type}') as benefit_type,
                   coalesce(b.description, g.doc #>> '{benefit,description}') as benefit_description,
                   a.via,
                   coalesce(g.customer_id, s.customer_id, o.customer_id) as customer_id,
                   a.subscription_id,
                   a.order_id,
                   case a.kind when 'benefit' then g.granted_at else coalesce(s.started_at, s.created_at, o.created_at) end as starts_at,
                   least(coalesce(s.ended_at, s.ends_at, case when s.cancel_at_period_end or polar.json_bool(s.doc, 'pause_at_period_end') then s.current_period_end end),
                         case when a.kind = 'subscription' and s.status in ('past_due', 'unpaid') then coalesce(s.past_due_at, '-infinity') + (
                              select make_interval(days => least(greatest(max(polar.json_int(n.doc -> 'subscription_settings', 'benefit_revocation_grace_period')), 0), 3650)::integer)
                                from polar.organization n) end) as until,
                   case when s.status in ('active', 'trialing') then s.current_period_end end as current_period_end
              from (select r.external_customer_id as local_user_id, 'subscription' as kind, 'checkout' as via, false as yields, s.id as subscription_id, null::uuid as order_id, null::uuid as grant_id
                      from polar.checkout_request r
                      join polar.subscription s on s.checkout_id = r.checkout_id
                    union all
                    select l.local_user_id, 'subscription', 'link', true, s.id, null, null
                      from polar.customer_link l
                      join polar.subscription s on s.customer_id = l.customer_id
                    union all
                    select r.external_customer_id, 'product', 'checkout', false, null, o.id, null
                      from polar.checkout_request r
                      join polar."order" o on o.checkout_id = r.checkout_id and o.subscription_id is null
                    union all
                    select l.local_user_id, 'product', 'link', true, null, o.id, null
                      from polar.customer_link l
                      join polar."order" o on o.customer_id = l.customer_id and o.subscription_id is null
                    union all
                    select distinct t.local_user_id, case when t.subscription_id is null then 'product' else 'subscription' end, 'seat', false,
                           t.subscription_id, case when t.subscription_id is null then t.order_id end, null::uuid
                      from (select m.local_user_id, t.subscription_id, t.order_id
                              from polar.user_member m
                              join polar.customer_seat t on t.member_id = m.member_id and t.status = 'claimed' and t.deleted_at is null
                            union all
                            select l.local_user_id, t.subscription_id, t.order_id
                              from polar.customer_link l
                              join polar.customer_seat t on t.customer_id = l.customer_id and t.member_id is null and t.status = 'claimed' and t.deleted_at is null) t
                    union all
                    select m.local_user_id, 'benefit',
                           case when m.role = 'owner' and exists (select from polar.customer_link l where l.customer_id = m.customer_id and l.local_user_id = m.local_user_id)
                                then 'link' else 'member' end,
                           coalesce(m.role = 'owner', false), g.subscription_id, g.order_id, g.id
                      from polar.user_member m
                      join polar.benefit_grant g on g.member_id = m.member_id
                    union all
                    select l.local_user_id, 'benefit', 'link', true, g.subscription_id, g.order_id, g.id
                      from polar.customer_link l
                      join polar.benefit_grant g on g.customer_id = l.customer_id and g.member_id is null
                    union all
                    select l.local_user_id, 'benefit', 'link', true, g.subscription_id, g.order_id, g.id
                      from polar.customer_link l
                      join polar.customer c on c.id = l.customer_id and c.type is distinct from 'team'
                      join polar.benefit_grant g on g.customer_id = c.id and g.member_id is not null
                     where not exists (select from polar.member m where m.id = g.member_id)
                    union all
                    select r.external_customer_id, 'benefit', 'checkout', false, g.subscription_id, g.order_id, g.id
                      from polar.checkout_request r
                      join polar.subscription s on s.checkout_id = r.checkout_id and s.seats is null
                      join polar.benefit_grant g on g.subscription_id = s.id
                     where not exists (select from polar.member m where m.id = g.member_id and m.role is distinct from 'owner')
                    union all
                    select r.external_customer_id, 'benefit', 'checkout', false, g.subscription_id, g.order_id, g.id
                      from polar.checkout_request r
                      join polar."order" o on o.checkout_id = r.checkout_id and o.seats is null
                      join polar.benefit_grant g on g.order_id = o.id
                     where not exists (select from polar.member m where m.id = g.member_id and m.role is distinct from 'owner')) a
              join polar.local_user u on u.id = a.local_user_id and u.deleted_at is null
              left join polar.subscription s on s.id = a.subscription_id
              left join polar."order" o on o.id = a.order_id
              left join polar.benefit_grant g on g.id = a.grant_id
              left join polar.benefit b on b.id = g.benefit_id
              left join polar.product p on p.id = coalesce(s.product_id, o.product_id)
             where case a.kind
                       when 'subscription' then s.status in ('active', 'trialing', 'past_due', 'unpaid') and s.deleted_at is null
                       when 'product' then o.status in ('paid', 'partially_refunded') and o.paid is not false and o.deleted_at is null
                            and not exists (select from polar.refund d where d.order_id = o.id and d.revoke_benefits and d.status = 'succeeded' and d.deleted_at is null)
                       else g.is_granted and g.is_revoked is not true and g.deleted_at is null and b.deleted_at is null and b.is_deleted is not true
                   end
               and case when coalesce(s.seats, o.seats) is not null then a.kind = 'benefit' or a.via = 'seat'
                        else not (a.yields and exists (select from polar.checkout_request r
                                                         join polar.local_user w on w.id = r.external_customer_id and w.deleted_at is null
                                                        where r.checkout_id = coalesce(s.checkout_id, o.checkout_id)))
                   end
               and not exists (select from polar.customer c where c.id = coalesce(g.customer_id, s.customer_id, o.customer_id) and c.deleted_at is not null)) x
     where x.until is null or x.until > now();
comment on view polar.user_access is 'What each living local user may use now, and why; every row is a yes. One row per subscription, purchase and granted benefit.';
comment on column polar.user_access.local_user_id is 'The local user.';
comment on column polar.user_access.kind is 'subscription, product (bought once) or benefit.';
comment on column polar.user_access.object_id is 'Polar''s subscription, order or benefit grant.';
comment on column polar.user_access.status is 'Of a subscription: active or trialing; past_due or unpaid while in the organization''s grace. Of an order: paid or partially_refunded. Of a benefit: granted.';
comment on column polar.user_access.product_id is 'The product; of a benefit, the one that it came with, if any.';
comment on column polar.user_access.product_name is 'The product''s name.';
comment on column polar.user_access.benefit_id is 'The benefit; null where kind is another.';
comment on column polar.user_access.benefit_type is 'Kind of benefit, such as license_keys.';
comment on column polar.user_access.benefit_description is 'The benefit in words.';
comment on column polar.user_access.via is 'checkout: bought in the user''s own checkout, whichever customer Polar put it on. link: its customer is linked to the user. seat: a member who is the user holds a seat of it. member: it was granted to a member who is the user.';
comment on column polar.user_access.customer_id is 'The customer at Polar.';
comment on column polar.user_access.subscription_id is 'The subscription that gives it; null where there is none.';
comment on column polar.user_access.order_id is 'The order that gives it; null where there is none.';
comment on column polar.user_access.starts_at is 'Since when.';
comment on column polar.user_access.until is 'When it ends as matters stand; null while it is to go on.';
comment on column polar.user_access.renews_at is 'When the next period of its subscription begins; null where it has none.';
comment on column polar.user_access.reason is 'Why, in words.';

create view polar.user_billing as
    select b.local_user_id,
           b.customer_id,
           c.external_id as customer_external_id,
           c.email as customer_email,
           l.basis as link_basis,
           l.linked_at,
           k.checkout_id as last_checkout_id,
           k.state as last_checkout_state,
           k.created_at as last_checkout_at,
           coalesce(n.subscriptions, 0) as live_subscriptions,
           coalesce(t.orders, 0) as orders,
           t.last_order_id,
           t.last_order_at,
           coalesce(t.paid, '{}') as paid_totals,
           coalesce(t.refunded, '{}') as refunded_totals,
           coalesce(t.open_refunds, 0) as open_refunds
      from (select u.id as local_user_id, l.customer_id
              from polar.customer_link l
              join polar.local_user u on u.id = l.local_user_id and u.deleted_at is null
            union
            select o.local_user_id, o.customer_id from polar.user_order o
            union
            select s.local_user_id, s.customer_id from polar.user_subscription s
            union
            select u.id, coalesce(h.customer_id, r.customer_id)
              from polar.checkout_request r
              join polar.local_user u on u.id = r.external_customer_id and u.deleted_at is null
              left join polar.checkout h on h.id = r.checkout_id) b
      left join polar.customer c on c.id = b.customer_id
      left join polar.customer_link l on l.customer_id = b.customer_id and l.local_user_id = b.local_user_id
      left join (select distinct on (r.external_customer_id, coalesce(h.customer_id, r.customer_id))
                        r.external_customer_id as local_user_id, coalesce(h.customer_id, r.customer_id) as customer_id,
                        r.checkout_id, r.state, r.created_at
                   from polar.checkout_request r
                   left join polar.checkout h on h.id = r.checkout_id
                  order by r.external_customer_id, coalesce(h.customer_id, r.customer_id), r.created_at desc, r.id) k
             on k.local_user_id = b.local_user_id and k.customer_id is not distinct from b.customer_id
      left join (select s.local_user_id, s.customer_id, count(*) as subscriptions
                   from polar.user_subscription s
                  where s.status in ('active', 'trialing', 'past_due', 'unpaid')
                  group by s.local_user_id, s.customer_id) n
             on n.local_user_id = b.local_user_id and n.customer_id is not distinct from b.customer_id
      left join (select w.local_user_id, w.customer_id,
                        sum(w.orders)::bigint as orders,
                        (array_agg(w.last_order_id order by w.last_order_at desc nulls last))[1] as last_order_id,
                        max(w.last_order_at) as last_order_at,
                        jsonb_object_agg(w.currency, w.paid) filter (where w.paid > 0) as paid,
                        jsonb_object_agg(w.currency, w.refunded) filter (where w.refunded > 0) as refunded,
                        sum(w.open_refunds)::bigint as open_refunds
                   from (select o.local_user_id, o.customer_id, coalesce(o.currency, '') as currency,
                                count(*) as orders,
                                (array_agg(o.order_id order by o.created_at desc nulls last, o.order_id))[1] as last_order_id,
                                max(o.created_at) as last_order_at,
                                sum(o.total_amount) filter (where o.status in ('paid', 'partially_refunded', 'refunded')) as paid,
                                sum(o.refunded_amount) as refunded,
                                sum((select count(*) from polar.refund d where d.order_id = o.order_id and d.status = 'pending' and d.deleted_at is null)) as open_refunds
                           from polar.user_order o
                          group by o.local_user_id, o.customer_id, coalesce(o.currency, '')) w
                  group by w.local_user_id, w.customer_id) t
             on t.local_user_id = b.local_user_id and t.customer_id is not distinct from b.customer_id;
comment on view polar.user_billing is 'What each living local user has to do with each customer: link, last checkout, orders, refunds. A row without a customer holds the checkouts that have none yet.';
comment on column polar.user_billing.local_user_id is 'The local user.';
comment on column polar.user_billing.customer_id is 'The customer; null for checkouts that nobody has pressed pay in yet.';
comment on column polar.user_billing.customer_external_id is 'The local user''s id that the customer bears at Polar, if any.';
comment on column polar.user_billing.customer_email is 'The customer''s e-mail address.';
comment on column polar.user_billing.link_basis is 'Why the customer is linked to the user: external_id, checkout or manual. Null where it is not: the user only bought in a checkout of their own that Polar put on it.';
comment on column polar.user_billing.linked_at is 'Since when it is linked.';
comment on column polar.user_billing.last_checkout_id is 'Session of the user''s newest checkout request with this customer.';
comment on column polar.user_billing.last_checkout_state is 'State of that request: queued, creating, open, confirmed, succeeded, expired or failed.';
comment on column polar.user_billing.last_checkout_at is 'When it was asked for.';
comment on column polar.user_billing.live_subscriptions is 'How many of the user''s subscriptions are active, trialing, past due or unpaid.';
comment on column polar.user_billing.orders is 'How many orders are the user''s.';
comment on column polar.user_billing.last_order_id is 'The newest of them.';
comment on column polar.user_billing.last_order_at is 'When it was made.';
comment on column polar.user_billing.paid_totals is 'What was paid with tax, by currency, in minor units: {"eur": 1500}. What was refunded later is in it.';
comment on column polar.user_billing.refunded_totals is 'What was refunded with tax, by currency, in minor units.';
comment on column polar.user_billing.open_refunds is 'How many refunds of them are pending.';

create view polar.stuck_checkout as
    select r.id as request_id,
           r.external_customer_id as local_user_id,
           r.key,
           r.state,
           r.checkout_id,
           r.since,
           now() - r.since as waiting,
           case r.state
               when 'queued' then 'no worker has taken it up'
               when 'creating' then case when r.posted_at is null then 'no session at Polar yet' else 'Polar was asked for a session, and what came of it is not known' end
               when 'open' then 'it should have expired, and Polar has not said so'
               when 'confirmed' then 'the buyer pressed pay, and Polar has not said what became of it'
               else 'it failed' end as why,
           case r.state
               when 'queued' then 'See that a worker runs (polar.worker_process) and what its log says.'
               when 'creating' then 'Read error. It is tried again for 30 minutes from the first try, and no second session is made.'
               when 'open' then 'See that a worker runs, which asks Polar about it, and that events arrive (polar.mirror_lag).'
               when 'confirmed' then 'Look the session up at Polar: some ways of paying take days. See that events arrive (polar.mirror_lag).'
               else 'Read error, correct what it names, and ask for a new checkout; the same key may be used again.' end as what_to_do,
           r.error
      from (select q.id, q.external_customer_id, q.key, q.state, q.checkout_id, q.posted_at, q.error,
                   case when q.state in ('queued', 'creating') then q.created_at when q.state = 'open' then q.expires_at else q.updated_at end as since
              from polar.checkout_request q
             where (q.state in ('queued', 'creating') and q.created_at < now() - interval '1 minute')
                or (q.state = 'confirmed' and q.updated_at < now() - interval '15 minutes')
                or (q.state = 'open' and q.expires_at < now() - interval '30 minutes')
                or (q.state = 'failed' and q.updated_at > now() - interval '1 day')) r;
comment on view polar.stuck_checkout is 'Checkout requests that somebody should look at: not made after a minute, paying for over 15 minutes, open over 30 minutes past their expiry (Polar takes up to 15), or failed within a day.';
comment on column polar.stuck_checkout.request_id is 'The checkout request.';
comment on column polar.stuck_checkout.local_user_id is 'The local user it is for.';
comment on column polar.stuck_checkout.key is 'The caller''s idempotency key.';
comment on column polar.stuck_checkout.state is 'queued, creating, open, confirmed or failed.';
comment on column polar.stuck_checkout.checkout_id is 'Polar''s session, once there is one.';
comment on column polar.stuck_checkout.since is 'Since when it waits: since it was asked for, confirmed, or failed, or since it should have expired.';
comment on column polar.stuck_checkout.waiting is 'For how long.';
comment on column polar.stuck_checkout.why is 'What it waits for, in words.';
comment on column polar.stuck_checkout.what_to_do is 'What a person can do about it.';
comment on column polar.stuck_checkout.error is 'What the last try met, in Polar''s own words where it has some.';

create view polar.open_drift as
    select d.id as drift_id,
           d.run_id,
           d.object_type,
           d.object_id,
           d.field,
           d.local,
           d.remote,
           d.cause,
           starts_with(d.cause, 'benign_') as is_benign,
           d.detected_at,
           now() - d.detected_at as age
      from polar.drift d
     where d.resolved_at is null;
comment on view polar.open_drift is 'Differences between Polar and the mirror that are not resolved.';
comment on column polar.open_drift.drift_id is 'Number of the difference.';
comment on column polar.open_drift.run_id is 'The reconcile_run that found it; null where the worker met it in passing.';
comment on column polar.open_drift.object_type is 'Type of the object, such as checkout.';
comment on column polar.open_drift.object_id is 'Polar''s id of the object.';
comment on column polar.open_drift.field is 'The column that differs.';
comment on column polar.open_drift.local is 'Its value here.';
comment on column polar.open_drift.remote is 'Its value at Polar.';
comment on column polar.open_drift.cause is 'Why, as far as can be told.';
comment on column polar.open_drift.is_benign is 'Whether the cause is one that needs nobody, such as an abandoned checkout.';
comment on column polar.open_drift.detected_at is 'When it was found.';
comment on column polar.open_drift.age is 'How long ago.';

create view polar.last_reconcile as
    select distinct on (r.object_type)
           r.object_type,
           r.id as run_id,
           r.started_at,
           r.finished_at,
           now() - r.finished_at as age,
           r.seen,
           r.drifted,
           r.repaired,
           r.full_sweep
      from polar.reconcile_run r
     where r.state = 'finished' and not r.dry_run and r.since is null
     order by r.object_type, r.finished_at desc, r.id desc;
comment on view polar.last_reconcile is 'The last comparison of each of Polar''s lists that ended well; dry runs, and those of only a part (since), aside.';
comment on column polar.last_reconcile.object_type is 'What was compared, such as customer.';
comment on column polar.last_reconcile.run_id is 'The reconcile_run.';
comment on column polar.last_reconcile.started_at is 'When it began: what came or was not over at Polar before is in the mirror and, after a full sweep, whatever changed.';
comment on column polar.last_reconcile.finished_at is 'When it ended.';
comment on column polar.last_reconcile.age is 'How long ago it ended.';
comment on column polar.last_reconcile.seen is 'Objects compared.';
comment on column polar.last_reconcile.drifted is 'Differences found.';
comment on column polar.last_reconcile.repaired is 'Differences repaired.';
comment on column polar.last_reconcile.full_sweep is 'Whether every object was compared, not only new ones and those that were not over.';

-- As cheap with ten million events as with ten: every event up to event_sweep.swept_seq has an outcome, of those after it
-- the 4,000 oldest and newest are looked at, and times are those of the last 1,000. An event that waits for more than a
-- minute is among the oldest, since swept_seq does not pass it. The look-up of an outcome is no join, since a planner
-- that does not know how little is left would read all outcomes for it.
create view polar.mirror_lag as
    select q.waiting,
           now() - q.oldest_received_at as waiting_for,
           f.failed,
           a.last_received_at,
           a.last_occurred_at,
           p.last_applied_at,
           p.apply_p50,
           p.apply_p99,
           a.receive_p50,
           a.receive_p99,
           x.began_at as outage_since,
           x.reason as outage_reason
      from (select count(*) as waiting, min(w.received_at) as oldest_received_at
              from (select h.seq, h.received_at
                      from (select l.seq, l.received_at from polar.event_log l
                             where l.seq > (select e.swept_seq from polar.event_sweep e) order by l.seq limit 4000) h
                    union
                    select t.seq, t.received_at
                      from (select l.seq, l.received_at from polar.event_log l
                             where l.seq > (select e.swept_seq from polar.event_sweep e) order by l.seq desc limit 4000) t) w
             where (select o.seq from polar.event_outcome o where o.seq = w.seq) is null) q
     cross join (select count(*) as failed from (select from polar.event_outcome o where o.state = 'failed' limit 10000) w) f
     cross join (select max(w.received_at) as last_received_at,
                        max(w.occurred_at) as last_occurred_at,
                        percentile_disc(0.5) within group (order by w.received_at - w.occurred_at) as receive_p50,
                        percentile_disc(0.99) within group (order by w.received_at - w.occurred_at) as receive_p99
                   from (select l.received_at, l.occurred_at from polar.event_log l order by l.seq desc limit 1000) w) a
     cross join (select max(w.applied_at) as last_applied_at,
                        percentile_disc(0.5) within group (order by w.applied_at - l.received_at) as apply_p50,
                        percentile_disc(0.99) within group (order by w.applied_at - l.received_at) as apply_p99
                   from (select o.seq, o.applied_at from polar.event_outcome o order by o.seq desc limit 1000) w
                   join polar.event_log l on l.seq = w.seq) p
      left join polar.endpoint_outage x on x.ended_at is null;
comment on view polar.mirror_lag is 'How far the mirror is behind Polar''s events: one row. What Polar never sent shows in last_reconcile and open_drift.';
comment on column polar.mirror_lag.waiting is 'Events received and not tried yet; where there are thousands, at least so many.';
comment on column polar.mirror_lag.waiting_for is 'How long the oldest of them waits; null where there is none.';
comment on column polar.mirror_lag.failed is 'Events whose last try failed, counted up to 10,000.';
comment on column polar.mirror_lag.last_received_at is 'When the last event was received.';
comment on column polar.mirror_lag.last_occurred_at is 'Up to when Polar''s events are here, by Polar''s clock.';
comment on column polar.mirror_lag.last_applied_at is 'When the last event was applied.';
comment on column polar.mirror_lag.apply_p50 is 'From receiving to applying, half of the last 1,000 events took at most this.';
comment on column polar.mirror_lag.apply_p99 is 'And 99 of 100 of them at most this.';
comment on column polar.mirror_lag.receive_p50 is 'From happening at Polar to being received, half of the last 1,000 events took at most this; two clocks, so it may be off by what they differ.';
comment on column polar.mirror_lag.receive_p99 is 'And 99 of 100 of them at most this.';
comment on column polar.mirror_lag.outage_since is 'Since when Polar does not send what it should; null while it does. Then the mirror is behind, however little waits.';
comment on column polar.mirror_lag.outage_reason is 'What is wrong with the endpoint then.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop view polar.mirror_lag, polar.last_reconcile, polar.open_drift, polar.stuck_checkout, polar.user_billing, polar.user_access, polar.user_order, polar.user_subscription, polar.user_member;
drop index polar.order_subscription_id_idx, polar.order_product_id_idx, polar.subscription_product_id_idx, polar.refund_customer_id_idx;
drop index polar.benefit_grant_member_id_idx, polar.benefit_grant_subscription_id_idx, polar.benefit_grant_order_id_idx, polar.benefit_grant_memberless_idx;
drop index polar.member_owner_idx, polar.customer_seat_subscription_id_idx, polar.customer_seat_order_id_idx, polar.customer_seat_memberless_idx;
drop index polar.checkout_request_failed_idx, polar.reconcile_run_finished_idx, polar.event_log_object_id_idx;
-- +goose StatementEnd
