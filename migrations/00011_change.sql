-- +goose Up
-- +goose StatementBegin
-- All writers' tables at once, in the order in which they write; and rather not now than with everybody waiting behind this.
set local lock_timeout = '2s';
lock table polar.organization, polar.benefit, polar.customer, polar.member, polar.subscription, polar."order", polar.refund, polar.benefit_grant,
           polar.customer_seat, polar.checkout_request, polar.customer_link, polar.local_user_row in share row exclusive mode;

-- The change feed: what an app acts on, told in one order, at least once.
--
-- Whatever changes an access, a link or a request leaves a row in change_due in its own transaction, so nothing can be
-- missed, whoever writes. One teller at a time (polar.tell_changes, which every worker calls) takes these rows, compares
-- what the users may use now with what they were told last, and writes the differences. Since it holds one lock to the end
-- of its transaction, ids come in the order of commits: a cursor never passes a row of a transaction that is still open, and
-- a transaction that stays open holds up nothing but its own news.

create table polar.change (
    id              bigint generated always as identity,
    kind            text not null,
    local_user_id   text,
    customer_id     uuid,
    at              timestamptz not null default now(),
    access_kind     text,
    object_id       uuid,
    product_id      uuid,
    benefit_id      uuid,
    subscription_id uuid,
    order_id        uuid,
    until           timestamptz,
    again           boolean,
    reason          text,
    request_id      uuid,
    checkout_id     uuid,
    key             text,
    constraint change_pkey primary key (id),
    constraint change_kind_check check (kind in ('linked', 'access_gained', 'access_lost', 'checkout_succeeded'))
);
comment on table polar.change is 'What an app acts on: links, access gained and lost, checkouts that succeeded; kept as long as events. Read it in the order of id, from the last one acted on; ids come in the order of commits, with gaps. Only polar.tell_changes writes it.';
comment on column polar.change.id is 'The cursor: what comes later has a greater one.';
comment on column polar.change.kind is 'linked: a customer is the user''s now. access_gained: the user may use this, as it says here. access_lost: no longer. checkout_succeeded: a checkout request was paid.';
comment on column polar.change.local_user_id is 'The local user; null for a checkout that was asked for without one.';
comment on column polar.change.customer_id is 'Polar''s customer.';
comment on column polar.change.at is 'When it was told, by the database''s clock.';
comment on column polar.change.access_kind is 'Of access: subscription, product or benefit, as in user_access.';
comment on column polar.change.object_id is 'Of access: Polar''s subscription, order or benefit grant. With local_user_id and access_kind it says which access.';
comment on column polar.change.product_id is 'Polar''s product that was bought.';
comment on column polar.change.benefit_id is 'Of a benefit: Polar''s benefit.';
comment on column polar.change.subscription_id is 'Of access: the subscription that it comes from, if any.';
comment on column polar.change.order_id is 'Of access: the order that it comes from, if any.';
comment on column polar.change.until is 'Of access: when it ends as matters stand, or ended; null while it is to go on.';
comment on column polar.change.again is 'Of access gained: whether the user had it already, and what it says has changed, such as its end or its product.';
comment on column polar.change.reason is 'Why, in words: of access, or the basis of a link.';
comment on column polar.change.request_id is 'Of a checkout: the checkout_request.';
comment on column polar.change.checkout_id is 'Of a checkout: Polar''s session.';
comment on column polar.change.key is 'Of a checkout: the caller''s idempotency key.';

-- What every transaction writes that changes anything: no index, so that nobody waits for anybody. Rows live for a moment.
create table polar.change_due (
    what   text not null,
    ids    uuid[],
    users  text[],
    due_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_threshold = -1);
comment on table polar.change_due is 'What may have changed and is not told yet.';
comment on column polar.change_due.what is 'What was touched: a table of the mirror, or link, session, user, life (a user came or went), owner (whom a customer is linked to), succeeded (a request), gone (an object), grace.';
comment on column polar.change_due.ids is 'Which ones.';
comment on column polar.change_due.users is 'Which local users; of link, beside ids.';
comment on column polar.change_due.due_at is 'When the transaction began that touched it.';

create table polar.told_access (
    local_user_id   text not null,
    kind            text not null,
    object_id       uuid not null,
    product_id      uuid,
    benefit_id      uuid,
    customer_id     uuid,
    subscription_id uuid,
    order_id        uuid,
    until           timestamptz,
    constraint told_access_pkey primary key (local_user_id, kind, object_id)
);
create index told_access_until_idx on polar.told_access (until) where until is not null;
comment on table polar.told_access is 'What the feed has told of access: the sum of polar.change, and user_access but for what is not told yet.';
comment on column polar.told_access.local_user_id is 'The local user.';
comment on column polar.told_access.kind is 'subscription, product or benefit.';
comment on column polar.told_access.object_id is 'Polar''s subscription, order or benefit grant.';
comment on column polar.told_access.product_id is 'Polar''s product.';
comment on column polar.told_access.benefit_id is 'Polar''s benefit.';
comment on column polar.told_access.customer_id is 'Polar''s customer.';
comment on column polar.told_access.subscription_id is 'The subscription that it comes from.';
comment on column polar.told_access.order_id is 'The order that it comes from.';
comment on column polar.told_access.until is 'When it ends, as was told.';

create table polar.change_teller (
    only_row      boolean not null default true,
    removed_until bigint not null default 0,
    walk          text not null default 'told',
    after_user    text not null default '',
    after_id      uuid not null default '00000000-0000-0000-0000-000000000000',
    walked_at     timestamptz not null default '-infinity',
    constraint change_teller_pkey primary key (only_row),
    constraint change_teller_only_row_check check (only_row),
    constraint change_teller_walk_check check (walk in ('told', 'member', 'request'))
) with (fillfactor = 50);
insert into polar.change_teller default values;
comment on table polar.change_teller is 'How far the feed reaches back, and where the walk over all users is, which finds what leaves no trace here, such as a user deleted in the product''s own table.';
comment on column polar.change_teller.removed_until is 'Changes up to this id are not kept any more: a cursor before it has missed some.';
comment on column polar.change_teller.walk is 'Whom the walk compares now: users told of an access, users who are members, users with a checkout request.';
comment on column polar.change_teller.after_user is 'The last user compared, of those told.';
comment on column polar.change_teller.after_id is 'The last member or request compared.';
comment on column polar.change_teller.walked_at is 'When it last took a step.';

-- The functions of the triggers write with their owner's rights: whoever may write a row need know nothing of the feed.
create function polar.come_due() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into polar.change_due (what, ids)
        select w.what, array_agg(t.id) from touched t cross join unnest(tg_argv) as w (what) group by w.what;
    return null;
end
$$;
comment on function polar.come_due() is 'Trigger: the rows that came or went may have changed something.';

create function polar.come_due_by_row() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    insert into polar.change_due (what, ids) select w.what, array[new.id] from unnest(tg_argv) as w (what);
    return null;
end
$$;
comment on function polar.come_due_by_row() is 'Trigger: what the row says has changed.';

create function polar.come_due_as_was() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    case tg_table_name
        when 'refund' then
            insert into polar.change_due (what, ids) values ('order', array[old.order_id]);
        when 'customer_seat' then
            insert into polar.change_due (what, ids) values ('member', array[old.member_id]), ('owner', array[old.customer_id]);
        when 'member' then
            insert into polar.change_due (what, ids, users)
                values ('user', null, array[old.external_id]), ('owner', array[old.customer_id], null), ('member', array[old.id], null);
    end case;
    return null;
end
$$;
comment on function polar.come_due_as_was() is 'Trigger: whoever was named by the row before may have lost something.';

create function polar.link_comes_due() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if tg_op = 'INSERT' then
        insert into polar.change_due (what, ids, users)
            select 'link', array_agg(t.customer_id order by t.customer_id), array_agg(t.local_user_id order by t.customer_id) from touched t having count(*) > 0;
    elsif tg_op = 'DELETE' then
        insert into polar.change_due (what, users) select 'user', array_agg(t.local_user_id) from touched t having count(*) > 0;
    else
        insert into polar.change_due (what, ids, users)
            values ('link', array[new.customer_id], array[new.local_user_id]), ('user', null, array[old.local_user_id]);
    end if;
    return null;
end
$$;
comment on function polar.link_comes_due() is 'Trigger: users are linked, or no longer.';

create function polar.request_comes_due() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if tg_op <> 'INSERT' and (tg_op = 'DELETE' or (old.external_customer_id, old.checkout_id) is distinct from (new.external_customer_id, new.checkout_id)) then
        insert into polar.change_due (what, ids, users) values ('session', array[old.checkout_id], array[old.external_customer_id]);
    end if;
    if tg_op <> 'DELETE' and new.checkout_id is not null then
        insert into polar.change_due (what, ids) values ('session', array[new.checkout_id]);
        if new.state = 'succeeded' and (tg_op = 'INSERT' or old.state <> 'succeeded') then
            insert into polar.change_due (what, ids) values ('succeeded', array[new.id]);
        end if;
    end if;
    return null;
end
$$;
comment on function polar.request_comes_due() is 'Trigger: a session is a user''s, or paid.';

create function polar.user_comes_due() returns trigger
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if tg_op = 'UPDATE' then
        insert into polar.change_due (what, users) values ('life', array[old.id, new.id]);
    else
        insert into polar.change_due (what, users) select 'life', array_agg(t.id) from touched t having count(*) > 0;
    end if;
    return null;
end
$$;
comment on function polar.user_comes_due() is 'Trigger: users came or went.';

-- What comes is written statement by statement. An update is of concern only where something changed that user_access reads,
-- which `when` asks of each row at next to no cost.
create trigger subscription_came after insert on polar.subscription referencing new table as touched
    for each statement execute function polar.come_due('subscription');
create trigger subscription_went after delete on polar.subscription referencing old table as touched
    for each statement execute function polar.come_due('subscription', 'gone');
create trigger subscription_changed after update on polar.subscription for each row
    when ((old.status, old.customer_id, old.product_id, old.checkout_id, old.seats is null, old.deleted_at is null, old.past_due_at, old.ended_at, old.ends_at,
           case when old.cancel_at_period_end or polar.json_bool(old.doc, 'pause_at_period_end') then old.current_period_end end)
          is distinct from
          (new.status, new.customer_id, new.product_id, new.checkout_id, new.seats is null, new.deleted_at is null, new.past_due_at, new.ended_at, new.ends_at,
           case when new.cancel_at_period_end or polar.json_bool(new.doc, 'pause_at_period_end') then new.current_period_end end))
    execute function polar.come_due_by_row('subscription');
create trigger subscription_moved after update on polar.subscription for each row
    when ((old.customer_id is not null and old.customer_id is distinct from new.customer_id) or (old.checkout_id is not null and old.checkout_id is distinct from new.checkout_id))
    execute function polar.come_due_by_row('gone');

create trigger order_came after insert on polar."order" referencing new table as touched
    for each statement execute function polar.come_due('order');
create trigger order_went after delete on polar."order" referencing old table as touched
    for each statement execute function polar.come_due('order', 'gone');
create trigger order_changed after update on polar."order" for each row
    when ((old.status, old.paid, old.customer_id, old.product_id, old.checkout_id, old.subscription_id, old.seats is null, old.deleted_at is null)
          is distinct from
          (new.status, new.paid, new.customer_id, new.product_id, new.checkout_id, new.subscription_id, new.seats is null, new.deleted_at is null))
    execute function polar.come_due_by_row('order');
create trigger order_moved after update on polar."order" for each row
    when ((old.customer_id is not null and old.customer_id is distinct from new.customer_id) or (old.checkout_id is not null and old.checkout_id is distinct from new.checkout_id))
    execute function polar.come_due_by_row('gone');

create trigger refund_came after insert on polar.refund referencing new table as touched
    for each statement execute function polar.come_due('refund');
create trigger refund_changed after update on polar.refund for each row
    when ((old.status, old.order_id, old.revoke_benefits, old.deleted_at is null) is distinct from (new.status, new.order_id, new.revoke_benefits, new.deleted_at is null))
    execute function polar.come_due_by_row('refund');
create trigger refund_moved after update on polar.refund for each row
    when (old.order_id is distinct from new.order_id)
    execute function polar.come_due_as_was();
create trigger refund_went after delete on polar.refund for each row execute function polar.come_due_as_was();

create trigger benefit_grant_came after insert on polar.benefit_grant referencing new table as touched
    for each statement execute function polar.come_due('benefit_grant');
create trigger benefit_grant_went after delete on polar.benefit_grant referencing old table as touched
    for each statement execute function polar.come_due('gone');
create trigger benefit_grant_changed after update on polar.benefit_grant for each row
    when ((old.customer_id, old.member_id, old.benefit_id, old.subscription_id, old.order_id, old.is_granted, old.is_revoked, old.deleted_at is null)
          is distinct from
          (new.customer_id, new.member_id, new.benefit_id, new.subscription_id, new.order_id, new.is_granted, new.is_revoked, new.deleted_at is null))
    execute function polar.come_due_by_row('benefit_grant');
create trigger benefit_grant_moved after update on polar.benefit_grant for each row
    when ((old.customer_id is not null and old.customer_id is distinct from new.customer_id) or (old.member_id is distinct from new.member_id)
          or (old.subscription_id is not null and old.subscription_id is distinct from new.subscription_id)
          or (old.order_id is not null and old.order_id is distinct from new.order_id))
    execute function polar.come_due_by_row('gone');

create trigger customer_seat_came after insert on polar.customer_seat referencing new table as touched
    for each statement execute function polar.come_due('customer_seat');
create trigger customer_seat_changed after update on polar.customer_seat for each row
    when ((old.status, old.customer_id, old.member_id, old.subscription_id, old.order_id, old.deleted_at is null)
          is distinct from
          (new.status, new.customer_id, new.member_id, new.subscription_id, new.order_id, new.deleted_at is null))
    execute function polar.come_due_by_row('customer_seat');
create trigger customer_seat_moved after update on polar.customer_seat for each row
    when ((old.customer_id, old.member_id) is distinct from (new.customer_id, new.member_id))
    execute function polar.come_due_as_was();
create trigger customer_seat_went after delete on polar.customer_seat for each row execute function polar.come_due_as_was();

create trigger member_came after insert on polar.member referencing new table as touched
    for each statement execute function polar.come_due('member');
create trigger member_changed after update on polar.member for each row
    when ((old.customer_id, old.external_id, old.role, old.deleted_at is null) is distinct from (new.customer_id, new.external_id, new.role, new.deleted_at is null))
    execute function polar.come_due_by_row('member');
create trigger member_moved after update on polar.member for each row
    when ((old.customer_id, old.external_id, old.role) is distinct from (new.customer_id, new.external_id, new.role))
    execute function polar.come_due_as_was();
create trigger member_went after delete on polar.member for each row execute function polar.come_due_as_was();

create trigger customer_came after insert on polar.customer referencing new table as touched
    for each statement execute function polar.come_due('customer');
create trigger customer_went after delete on polar.customer referencing old table as touched
    for each statement execute function polar.come_due('customer');
create trigger customer_changed after update on polar.customer for each row
    when ((old.type, old.deleted_at is null) is distinct from (new.type, new.deleted_at is null))
    execute function polar.come_due_by_row('customer');

create trigger benefit_came after insert on polar.benefit for each row
    when (new.is_deleted or new.deleted_at is not null)
    execute function polar.come_due_by_row('benefit');
create trigger benefit_changed after update on polar.benefit for each row
    when ((old.is_deleted is true, old.deleted_at is null) is distinct from (new.is_deleted is true, new.deleted_at is null))
    execute function polar.come_due_by_row('benefit');
create trigger benefit_went after delete on polar.benefit referencing old table as touched
    for each statement execute function polar.come_due('benefit');

create trigger organization_came after insert on polar.organization referencing new table as touched
    for each statement execute function polar.come_due('grace');
create trigger organization_changed after update on polar.organization for each row
    when (old.doc #> '{subscription_settings,benefit_revocation_grace_period}' is distinct from new.doc #> '{subscription_settings,benefit_revocation_grace_period}')
    execute function polar.come_due_by_row('grace');
create trigger organization_went after delete on polar.organization referencing old table as touched
    for each statement execute function polar.come_due('grace');

create trigger customer_link_came after insert on polar.customer_link referencing new table as touched
    for each statement execute function polar.link_comes_due();
create trigger customer_link_went after delete on polar.customer_link referencing old table as touched
    for each statement execute function polar.link_comes_due();
create trigger customer_link_changed after update on polar.customer_link for each row
    when ((old.customer_id, old.local_user_id) is distinct from (new.customer_id, new.local_user_id))
    execute function polar.link_comes_due();

create trigger checkout_request_came after insert on polar.checkout_request for each row
    when (new.checkout_id is not null)
    execute function polar.request_comes_due();
create trigger checkout_request_went after delete on polar.checkout_request for each row execute function polar.request_comes_due();
create trigger checkout_request_changed after update on polar.checkout_request for each row
    when ((old.external_customer_id, old.checkout_id, old.state = 'succeeded') is distinct from (new.external_customer_id, new.checkout_id, new.state = 'succeeded'))
    execute function polar.request_comes_due();

create trigger local_user_row_came after insert on polar.local_user_row referencing new table as touched
    for each statement execute function polar.user_comes_due();
create trigger local_user_row_went after delete on polar.local_user_row referencing old table as touched
    for each statement execute function polar.user_comes_due();
create trigger local_user_row_changed after update on polar.local_user_row for each row
    when ((old.id, old.deleted_at is null) is distinct from (new.id, new.deleted_at is null))
    execute function polar.user_comes_due();
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop function polar.come_due(), polar.come_due_by_row(), polar.come_due_as_was(), polar.link_comes_due(), polar.request_comes_due(), polar.user_comes_due() cascade;
drop table polar.change_teller, polar.told_access, polar.change_due, polar.change;
-- +goose StatementEnd
