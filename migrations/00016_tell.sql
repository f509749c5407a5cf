-- +goose Up
-- +goose StatementBegin
-- What is so already is no news. The triggers of the feed are there since the step before: whatever commits after this has looked
-- is due. No table is locked, as nobody tells anything before the function is there.
insert into polar.told_access (local_user_id, kind, object_id, product_id, benefit_id, customer_id, subscription_id, order_id, until)
    select distinct on (a.local_user_id, a.kind, a.object_id)
           a.local_user_id, a.kind, a.object_id, a.product_id, a.benefit_id, a.customer_id, a.subscription_id, a.order_id, a.until
      from polar.user_access a
     order by a.local_user_id, a.kind, a.object_id, a.until desc
on conflict do nothing;

-- Who may be concerned by what was touched, found from both ends of every tie; then each of them is compared with what they
-- were told. A few users too many cost a look; one too few would cost a customer.
create or replace function polar.tell_changes(max_users integer, walk_every interval, out told integer, out more boolean)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    users          text[]; -- to be compared
    lives          text[]; -- who came or went
    linked         uuid[]; -- customers who have become
    linked_users   text[]; -- these users
    succeeded      uuid[]; -- checkout requests
    subscriptions  uuid[];
    orders         uuid[];
    refunds        uuid[];
    grants         uuid[];
    seats          uuid[];
    members        uuid[];
    customers      uuid[]; -- all of whose things are concerned
    owners         uuid[]; -- customers whose user is concerned
    sessions       uuid[]; -- checkouts whose user is concerned
    benefits       uuid[];
    gone           uuid[]; -- objects that were somebody's
    grace          boolean;
    walked         polar.change_teller;
    walk_users     text[];
    walk_ids       uuid[];
    n              integer;
begin
    told := 0;
    more := false;
    if not exists (select from polar.change_due)
       and not exists (select from polar.told_access t where t.until <= now())
       and exists (select from polar.change_teller w where w.walked_at > now() - walk_every) then
        return;
    end if;
    -- Released after the commit is visible: whoever has it next sees all that was told, and gives greater ids.
    if not pg_try_advisory_xact_lock(hashtextextended('polar:tell', 0)) then
        return;
    end if;

    -- Each statement from here on sees all that was committed before it, so users are compared as they are after what is taken.
    with near as (
        select d.ctid as place, coalesce(cardinality(d.ids), 0) + coalesce(cardinality(d.users), 0) as size from polar.change_due d limit 1000
    ), counted as (
        select c.place, sum(c.size) over (rows unbounded preceding) - c.size as before from near c
    ), taken as (
        delete from polar.change_due d
         where d.ctid = any (array(select c.place from counted c where c.before < max_users))
        returning d.what, d.ids, d.users
    ), x as (
        select t.what, u.id, u.name from taken t cross join lateral unnest(t.ids, t.users) as u (id, name)
    )
    select array_agg(distinct x.name) filter (where x.what in ('user', 'session')), array_agg(distinct x.name) filter (where x.what = 'life'),
           array_agg(x.id order by x.id, x.name) filter (where x.what = 'link'), array_agg(x.name order by x.id, x.name) filter (where x.what = 'link'),
           array_agg(distinct x.id) filter (where x.what = 'succeeded'),
           array_agg(distinct x.id) filter (where x.what = 'subscription'), array_agg(distinct x.id) filter (where x.what = 'order'),
           array_agg(distinct x.id) filter (where x.what = 'refund'), array_agg(distinct x.id) filter (where x.what = 'benefit_grant'),
           array_agg(distinct x.id) filter (where x.what = 'customer_seat'),
           array_agg(distinct x.id) filter (where x.what = 'member'), array_agg(distinct x.id) filter (where x.what = 'customer'),
           array_agg(distinct x.id) filter (where x.what = 'owner'), array_agg(distinct x.id) filter (where x.what = 'session'),
           array_agg(distinct x.id) filter (where x.what = 'benefit'), array_agg(distinct x.id) filter (where x.what = 'gone'),
           coalesce(bool_or(x.what = 'grace'), false)
      into users, lives, linked, linked_users, succeeded, subscriptions, orders, refunds, grants, seats, members,
           customers, owners, sessions, benefits, gone, grace
      from x;

    orders := orders || array(select f.order_id from polar.refund f where f.id = any (refunds));
    sessions := sessions || array(select r.checkout_id from polar.checkout_request r where r.external_customer_id = any (lives));
    members := members || array(select m.id from polar.member m where m.customer_id = any (customers));
    subscriptions := array(
        select unnest(subscriptions)
        union select s.id from polar.subscription s where s.checkout_id = any (sessions)
        union select s.id from polar.subscription s where s.customer_id = any (customers));
    orders := array(
        select unnest(orders)
        union select o.id from polar."order" o where o.checkout_id = any (sessions)
        union select o.id from polar."order" o where o.customer_id = any (customers));
    -- These read whole tables: it is not often that a benefit is deleted, or a grace is set.
    if grace then
        subscriptions := subscriptions || array(select s.id from polar.subscription s where s.status in ('past_due', 'unpaid'));
    end if;
    if benefits is not null then
        grants := grants || array(select g.id from polar.benefit_grant g where g.benefit_id = any (benefits));
        users := users || array(select distinct t.local_user_id from polar.told_access t where t.benefit_id = any (benefits));
    end if;
    if gone is not null then
        users := users || array(
            select distinct t.local_user_id from polar.told_access t
             where t.object_id = any (gone) or t.subscription_id = any (gone) or t.order_id = any (gone));
    end if;
    grants := array(
        select unnest(grants)
        union select g.id from polar.benefit_grant g where g.subscription_id = any (subscriptions)
        union select g.id from polar.benefit_grant g where g.order_id = any (orders)
        union select g.id from polar.benefit_grant g where g.customer_id = any (customers)
        union select g.id from polar.benefit_grant g where g.member_id = any (members));
    seats := array(
        select unnest(seats)
        union select t.id from polar.customer_seat t where t.subscription_id = any (subscriptions)
        union select t.id from polar.customer_seat t where t.order_id = any (orders));
    members := array(
        select unnest(members)
        union select t.member_id from polar.customer_seat t where t.id = any (seats)
        union select g.member_id from polar.benefit_grant g where g.id = any (grants));
    owners := array(
        select unnest(owners || customers)
        union select s.customer_id from polar.subscription s where s.id = any (subscriptions)
        union select o.customer_id from polar."order" o where o.id = any (orders)
        union select t.customer_id from polar.customer_seat t where t.id = any (seats)
        union select g.customer_id from polar.benefit_grant g where g.id = any (grants)
        union select m.customer_id from polar.member m where m.id = any (members) or m.external_id = any (lives));
    sessions := array(
        select unnest(sessions)
        union select s.checkout_id from polar.subscription s where s.id = any (subscriptions)
        union select o.checkout_id from polar."order" o where o.id = any (orders)
        union select s.checkout_id from polar.benefit_grant g join polar.subscription s on s.id = g.subscription_id where g.id = any (grants)
        union select o.checkout_id from polar.benefit_grant g join polar."order" o on o.id = g.order_id where g.id = any (grants));

    select * into strict walked from polar.change_teller;
    if walked.walked_at <= now() - walk_every then
        -- What no trigger sees is seen when their turn comes.
        if walked.walk = 'told' then
            walk_users := array(select distinct t.local_user_id from polar.told_access t where t.local_user_id > walked.after_user order by 1 limit max_users);
        elsif walked.walk = 'member' then
            select array_agg(m.external_id), array_agg(m.id order by m.id) into walk_users, walk_ids
              from (select m.id, m.external_id from polar.member m where m.id > walked.after_id order by m.id limit max_users) m;
        else
            select array_agg(r.external_customer_id), array_agg(r.id order by r.id) into walk_users, walk_ids
              from (select r.id, r.external_customer_id from polar.checkout_request r where r.id > walked.after_id order by r.id limit max_users) r;
        end if;
        n := coalesce(cardinality(walk_users), 0);
        update polar.change_teller w
           set walk = case when n = max_users then w.walk when w.walk = 'told' then 'member' when w.walk = 'member' then 'request' else 'told' end,
               after_user = case when n = max_users and w.walk = 'told' then walk_users[n] else '' end,
               after_id = case when n = max_users and w.walk <> 'told' then walk_ids[n] else '00000000-0000-0000-0000-000000000000' end,
               walked_at = now();
        users := users || walk_users;
    end if;

    users := array(
        select distinct u.id
          from (select unnest(users || lives || linked_users)
                union all select m.external_id from polar.member m where m.id = any (members)
                union all select l.local_user_id from polar.customer_link l where l.customer_id = any (owners)
                union all select r.external_customer_id from polar.checkout_request r where r.checkout_id = any (sessions)
                union all (select t.local_user_id from polar.told_access t where t.until <= now() order by t.until limit max_users)) u (id)
         where u.id is not null
         order by u.id);
    -- Many are told by and by.
    insert into polar.change_due (what, users)
        select 'user', array_agg(u.id) from unnest(users) with ordinality as u (id, n) where u.n > max_users group by u.n / max_users;
    users := users[:max_users];

    insert into polar.change (kind, local_user_id, customer_id, reason)
        select distinct 'linked', l.local_user_id, l.customer_id, l.basis
          from unnest(linked, linked_users) as u (customer_id, local_user_id)
          join polar.customer_link l on l.customer_id = u.customer_id and l.local_user_id = u.local_user_id;
    get diagnostics n = row_count;
    told := told + n;
    insert into polar.change (kind, local_user_id, customer_id, product_id, request_id, checkout_id, key)
        select 'checkout_succeeded', r.external_customer_id, coalesce(k.customer_id, r.customer_id), k.product_id, r.id, r.checkout_id, r.key
          from polar.checkout_request r
          left join polar.checkout k on k.id = r.checkout_id
         where r.id = any (succeeded) and r.state = 'succeeded'
         order by r.updated_at, r.id;
    get diagnostics n = row_count;
    told := told + n;
    with access as materialized (
        select distinct on (a.local_user_id, a.kind, a.object_id) a.*
          from unnest(users) as u (id)
         cross join lateral (
               select x.local_user_id, x.kind, x.object_id, x.product_id, x.benefit_id, x.customer_id, x.subscription_id, x.order_id, x.until, x.reason
                 from polar.user_access x where x.local_user_id = u.id offset 0) a
         order by a.local_user_id, a.kind, a.object_id, a.until desc
    ), lost as (
        delete from polar.told_access t
         where t.local_user_id = any (users)
           and not exists (select from access a where a.local_user_id = t.local_user_id and a.kind = t.kind and a.object_id = t.object_id)
        returning t.*
    ), gained as (
        insert into polar.told_access as t (local_user_id, kind, object_id, product_id, benefit_id, customer_id, subscription_id, order_id, until)
        select a.local_user_id, a.kind, a.object_id, a.product_id, a.benefit_id, a.customer_id, a.subscription_id, a.order_id, a.until
          from access a
          left join polar.told_access o on o.local_user_id = a.local_user_id and o.kind = a.kind and o.object_id = a.object_id
         where o.object_id is null
            or (o.product_id, o.benefit_id, o.customer_id, o.subscription_id, o.order_id, o.until)
               is distinct from (a.product_id, a.benefit_id, a.customer_id, a.subscription_id, a.order_id, a.until)
        on conflict (local_user_id, kind, object_id) do update
           set product_id = excluded.product_id, benefit_id = excluded.benefit_id, customer_id = excluded.customer_id,
               subscription_id = excluded.subscription_id, order_id = excluded.order_id, until = excluded.until
        returning t.*
    )
    insert into polar.change (kind, local_user_id, customer_id, access_kind, object_id, product_id, benefit_id, subscription_id, order_id, until, again, reason)
        select c.news, c.local_user_id, c.customer_id, c.kind, c.object_id, c.product_id, c.benefit_id, c.subscription_id, c.order_id, c.until, c.again, c.reason
          from (select 'access_lost' as news, l.*, null::boolean as again,
                       case when not exists (select from polar.local_user u where u.id = l.local_user_id and u.deleted_at is null) then 'the user is deleted'
                            when l.until <= now() then 'its end has come'
                            else 'it was taken back, or is another''s' end as reason
                  from lost l
                union all
                select 'access_gained', g.*,
                       exists (select from polar.told_access o where o.local_user_id = g.local_user_id and o.kind = g.kind and o.object_id = g.object_id),
                       (select a.reason from access a where a.local_user_id = g.local_user_id and a.kind = g.kind and a.object_id = g.object_id)
                  from gained g) c
         order by c.news desc, c.local_user_id, c.kind, c.object_id;
    get diagnostics n = row_count;
    told := told + n;

    if told > 0 then
        perform pg_notify('polar_change', (select max(c.id) from polar.change c)::text);
    end if;
    more := exists (select from polar.change_due) or exists (select from polar.told_access t where t.until <= now());
end
$$;
comment on function polar.tell_changes(integer, interval) is 'Writes to polar.change what is due, in one transaction of its own: told says how much, more whether to call again at once. Does nothing while another does. Compares at most max_users, and now and then, by walk_every, as many users of whom nothing is due.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop function polar.tell_changes(integer, interval);
truncate polar.told_access;
-- +goose StatementEnd
