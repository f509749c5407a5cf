-- +goose Up
-- +goose StatementBegin
-- Upkeep, in whichever worker, does not look for links more often than it can afford.
create table polar.relink (
    only_row boolean not null default true,
    done_at  timestamptz not null default '-infinity',
    took     interval not null default '0',
    constraint relink_pkey primary key (only_row),
    constraint relink_only_row_check check (only_row)
) with (fillfactor = 50);
insert into polar.relink default values;
comment on table polar.relink is 'When upkeep last looked for customers whose user has appeared, and for links to users who are gone: the longer that takes, the longer it waits for its next turn.';
comment on column polar.relink.done_at is 'When it was done, by any worker.';
comment on column polar.relink.took is 'How long it took.';

-- Whoever is forgotten is looked for by indexes: with hundreds of thousands of grants, reading all of them took ten seconds,
-- in which nobody could write the mirror.
create or replace function polar.forgotten_objects(customer uuid) returns setof text
    language sql stable
    begin atomic
        select customer::text
        union
        select f.checkout_id::text from polar.forgotten_checkout f where f.customer_id = forgotten_objects.customer
        union
        select m.id::text from polar.member m where m.customer_id = forgotten_objects.customer
        union
        select s.id::text from polar.subscription s where s.customer_id = forgotten_objects.customer
        union
        select o.id::text from polar."order" o where o.customer_id = forgotten_objects.customer
        union
        select r.id::text from polar.refund r where r.customer_id = forgotten_objects.customer
        union
        select g.id::text from polar.benefit_grant g where g.customer_id = forgotten_objects.customer
        union
        select g.id::text from polar.member m
          join polar.benefit_grant g on g.member_id = m.id
         where m.customer_id = forgotten_objects.customer and polar.is_forgotten('benefit_grant', g.doc)
        union
        select t.id::text from polar.customer_seat t where t.customer_id = forgotten_objects.customer
        union
        select t.id::text from polar.member m
          join polar.customer_seat t on t.member_id = m.id
         where m.customer_id = forgotten_objects.customer and polar.is_forgotten('customer_seat', t.doc);
    end;

create or replace function polar.forget_customer(customer uuid, actor text, reason text) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    -- Whoever writes the mirror goes first: who cannot have its locks at once tries again.
    set lock_timeout = '500ms'
    as $$
declare
    blanked_text constant text := 'not shown: it may quote a customer who was forgotten';
    users    text[];
    emails   text[];
    guests   uuid[];
    requests uuid[];
    grants   uuid[];
    seats    uuid[];
    counts   jsonb := '{}';
    relation text;
    n        bigint;
begin
    -- The local user who is this customer, but not one who has another living customer by now.
    users := array(
        select u.id
          from (select c.external_id as id from polar.customer c where c.id = customer and c.external_id is not null
                union
                select h.local_user_id from polar.customer_link_history h
                 where h.customer_id = customer and coalesce(h.end_reason, '') in ('', 'customer_deleted', 'user_deleted', 'basis_changed')) u
         where not exists (select from polar.customer_link l where l.local_user_id = u.id and l.customer_id <> customer));
    emails := array(select lower(c.email) from polar.customer c where c.id = customer and c.email is not null);
    -- Sessions that came to no customer, of this user or with this address typed: many rows may be looked at, so before
    -- anything is locked.
    guests := array(
        select k.id from polar.checkout k
         where k.customer_id is null
           and (k.external_customer_id = any (users) or lower(k.customer_email) = any (emails)));
    requests := array(
        select r.id from polar.checkout_request r
         where (r.external_customer_id = any (users) or polar.json_uuid(r.params, 'customer_id') = customer)
           and (r.customer_id is null or r.customer_id = customer)
           and not exists (select from polar.checkout k where k.id = r.checkout_id and k.customer_id <> customer));

    -- Nobody is in the middle of writing a version that does not know yet: in the order in which versions are written.
    lock table polar.customer, polar.customer_state, polar.member, polar.checkout, polar.subscription, polar."order",
               polar.refund, polar.benefit_grant, polar.customer_seat in share row exclusive mode;
    insert into polar.forgotten_customer (customer_id, actor, reason) values (customer, actor, reason) on conflict do nothing;
    insert into polar.forgotten_checkout (checkout_id, customer_id)
        select k.id, customer from polar.checkout k where k.customer_id = customer or k.id = any (guests)
        on conflict do nothing;
    requests := requests || array(
        select r.id from polar.forgotten_checkout f
          join polar.checkout_request r on r.checkout_id = f.checkout_id
         where f.customer_id = customer
        union
        select k.request_id from polar.forgotten_checkout f
          join polar.checkout k on k.id = f.checkout_id
         where f.customer_id = customer and k.request_id is not null);
    -- Each way in by its index: while this lasts, nobody writes the mirror.
    grants := array(
        select g.id from polar.benefit_grant g where g.customer_id = customer
        union
        select g.id from polar.member m
          join polar.benefit_grant g on g.member_id = m.id
         where m.customer_id = customer and polar.is_forgotten('benefit_grant', g.doc));
    seats := array(
        select t.id from polar.customer_seat t where t.customer_id = customer
        union
        select t.id from polar.member m
          join polar.customer_seat t on t.member_id = m.id
         where m.customer_id = customer and polar.is_forgotten('customer_seat', t.doc));

    update polar.customer c
       set doc = polar.redacted(c.doc), base = polar.redacted(c.base), synced_at = now()
     where c.id = customer and (c.doc, c.base) is distinct from (polar.redacted(c.doc), polar.redacted(c.base));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('customer', n);
    update polar.customer_state s
       set doc = polar.redacted(s.doc), active_subscriptions = polar.redacted(s.active_subscriptions),
           granted_benefits = polar.redacted(s.granted_benefits), active_meters = polar.redacted(s.active_meters), synced_at = now()
     where s.customer_id = customer
       and (s.doc, s.active_subscriptions, s.granted_benefits, s.active_meters)
           is distinct from (polar.redacted(s.doc), polar.redacted(s.active_subscriptions), polar.redacted(s.granted_benefits), polar.redacted(s.active_meters));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('customer_state', n);
    foreach relation in array array['member', 'checkout', 'subscription', 'order', 'refund', 'benefit_grant', 'customer_seat'] loop
        execute format('update polar.%I t set doc = polar.redacted(t.doc), synced_at = now() where %s and t.doc <> polar.redacted(t.doc)', relation,
            case relation
                when 'checkout' then 't.id in (select f.checkout_id from polar.forgotten_checkout f where f.customer_id = $1)'
                when 'benefit_grant' then 't.id = any ($2)'
                when 'customer_seat' then 't.id = any ($3)'
                else 't.customer_id = $1'
            end) using customer, grants, seats;
        get diagnostics n = row_count;
        counts := counts || jsonb_build_object(relation, n);
    end loop;

    update polar.checkout_request r
       set params = polar.redacted(r.params),
           -- What is over keeps no door to what was typed; the row's rule wants a text.
           url = case when r.state in ('succeeded', 'expired', 'failed') then left(r.url, 0) else r.url end,
           error = case when r.error is not null then blanked_text end
     where r.id = any (requests)
       and (r.params <> polar.redacted(r.params) or r.error <> blanked_text or (r.state in ('succeeded', 'expired', 'failed') and r.url <> ''));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('checkout_request', n);
    update polar.river_job j
       set args = case when j.args ? 'params' then jsonb_set(j.args, '{params}', polar.redacted(j.args -> 'params')) else j.args end,
           errors = (select array_agg(e.error || jsonb_build_object('error', blanked_text, 'trace', '') order by e.n) from unnest(j.errors) with ordinality as e (error, n))
     where j.kind = 'create_checkout'
       and j.id in (select r.job_id from polar.checkout_request r where r.id = any (requests)
                    union all
                    select x.id
                      from (select jsonb_build_object('request_id', r) from unnest(requests) as r
                            union all
                            select jsonb_build_object('params', jsonb_build_object('external_customer_id', u)) from unnest(users) as u) as w (args)
                      join polar.river_job x on x.args @> w.args)
       and (j.args -> 'params' <> polar.redacted(j.args -> 'params')
            or exists (select from unnest(j.errors) as e where e ->> 'error' <> blanked_text));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('river_job', n);
    update polar.drift d
       set local = polar.redacted(to_jsonb(d.local), d.field) #>> '{}', remote = polar.redacted(to_jsonb(d.remote), d.field) #>> '{}'
     where d.object_id in (select o.object_id from polar.forgotten_objects(customer) as o (object_id))
       and coalesce(d.local, '') || coalesce(d.remote, '') !~ '^(-?\d+(\.\d+)?|true|false)*$'
       and (d.local, d.remote) is distinct from (polar.redacted(to_jsonb(d.local), d.field) #>> '{}', polar.redacted(to_jsonb(d.remote), d.field) #>> '{}');
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('drift', n);
    update polar.link_conflict f set detail = blanked_text
     where f.customer_id = customer and f.kind = 'external_id_taken' and f.detail <> blanked_text; -- Polar's own words
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('link_conflict', n);
    update polar.local_user_row u set email = null where u.id = any (users) and u.email is not null;
    get diagnostics n = row_count;
    return counts || jsonb_build_object('local_user_row', n);
end
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
create or replace function polar.forget_customer(customer uuid, actor text, reason text) returns jsonb
    language plpgsql
    set search_path = pg_catalog, pg_temp
    -- Whoever writes the mirror goes first: who cannot have its locks at once tries again.
    set lock_timeout = '500ms'
    as $$
declare
    blanked_text constant text := 'not shown: it may quote a customer who was forgotten';
    users    text[];
    emails   text[];
    guests   uuid[];
    requests uuid[];
    counts   jsonb := '{}';
    relation text;
    n        bigint;
begin
    -- The local user who is this customer, but not one who has another living customer by now.
    users := array(
        select u.id
          from (select c.external_id as id from polar.customer c where c.id = customer and c.external_id is not null
                union
                select h.local_user_id from polar.customer_link_history h
                 where h.customer_id = customer and coalesce(h.end_reason, '') in ('', 'customer_deleted', 'user_deleted', 'basis_changed')) u
         where not exists (select from polar.customer_link l where l.local_user_id = u.id and l.customer_id <> customer));
    emails := array(select lower(c.email) from polar.customer c where c.id = customer and c.email is not null);
    -- Sessions that came to no customer, of this user or with this address typed: many rows may be looked at, so before
    -- anything is locked.
    guests := array(
        select k.id from polar.checkout k
         where k.customer_id is null
           and (k.external_customer_id = any (users) or lower(k.customer_email) = any (emails)));
    requests := array(
        select r.id from polar.checkout_request r
         where (r.external_customer_id = any (users) or polar.json_uuid(r.params, 'customer_id') = customer)
           and (r.customer_id is null or r.customer_id = customer)
           and not exists (select from polar.checkout k where k.id = r.checkout_id and k.customer_id <> customer));

    -- Nobody is in the middle of writing a version that does not know yet: in the order in which versions are written.
    lock table polar.customer, polar.customer_state, polar.member, polar.checkout, polar.subscription, polar."order",
               polar.refund, polar.benefit_grant, polar.customer_seat in share row exclusive mode;
    insert into polar.forgotten_customer (customer_id, actor, reason) values (customer, actor, reason) on conflict do nothing;
    insert into polar.forgotten_checkout (checkout_id, customer_id)
        select k.id, customer from polar.checkout k where k.customer_id = customer or k.id = any (guests)
        on conflict do nothing;
    requests := requests || array(
        select r.id from polar.checkout_request r
         where r.checkout_id in (select f.checkout_id from polar.forgotten_checkout f where f.customer_id = customer)
            or r.id in (select k.request_id from polar.checkout k join polar.forgotten_checkout f on f.checkout_id = k.id where f.customer_id = customer));

    update polar.customer c
       set doc = polar.redacted(c.doc), base = polar.redacted(c.base), synced_at = now()
     where c.id = customer and (c.doc, c.base) is distinct from (polar.redacted(c.doc), polar.redacted(c.base));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('customer', n);
    update polar.customer_state s
       set doc = polar.redacted(s.doc), active_subscriptions = polar.redacted(s.active_subscriptions),
           granted_benefits = polar.redacted(s.granted_benefits), active_meters = polar.redacted(s.active_meters), synced_at = now()
     where s.customer_id = customer
       and (s.doc, s.active_subscriptions, s.granted_benefits, s.active_meters)
           is distinct from (polar.redacted(s.doc), polar.redacted(s.active_subscriptions), polar.redacted(s.granted_benefits), polar.redacted(s.active_meters));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('customer_state', n);
    foreach relation in array array['member', 'checkout', 'subscription', 'order', 'refund', 'benefit_grant', 'customer_seat'] loop
        execute format('update polar.%I t set doc = polar.redacted(t.doc), synced_at = now() where %s and t.doc <> polar.redacted(t.doc)', relation,
            case relation
                when 'checkout' then 't.id in (select f.checkout_id from polar.forgotten_checkout f where f.customer_id = $1)'
                when 'benefit_grant' then '(t.customer_id = $1 or t.member_id in (select m.id from polar.member m where m.customer_id = $1) and polar.is_forgotten(''benefit_grant'', t.doc))'
                when 'customer_seat' then '(t.customer_id = $1 or t.member_id in (select m.id from polar.member m where m.customer_id = $1) and polar.is_forgotten(''customer_seat'', t.doc))'
                else 't.customer_id = $1'
            end) using customer;
        get diagnostics n = row_count;
        counts := counts || jsonb_build_object(relation, n);
    end loop;

    update polar.checkout_request r
       set params = polar.redacted(r.params),
           -- What is over keeps no door to what was typed; the row's rule wants a text.
           url = case when r.state in ('succeeded', 'expired', 'failed') then left(r.url, 0) else r.url end,
           error = case when r.error is not null then blanked_text end
     where r.id = any (requests)
       and (r.params <> polar.redacted(r.params) or r.error <> blanked_text or (r.state in ('succeeded', 'expired', 'failed') and r.url <> ''));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('checkout_request', n);
    update polar.river_job j
       set args = case when j.args ? 'params' then jsonb_set(j.args, '{params}', polar.redacted(j.args -> 'params')) else j.args end,
           errors = (select array_agg(e.error || jsonb_build_object('error', blanked_text, 'trace', '') order by e.n) from unnest(j.errors) with ordinality as e (error, n))
     where j.kind = 'create_checkout'
       and j.id in (select r.job_id from polar.checkout_request r where r.id = any (requests)
                    union all
                    select x.id
                      from (select jsonb_build_object('request_id', r) from unnest(requests) as r
                            union all
                            select jsonb_build_object('params', jsonb_build_object('external_customer_id', u)) from unnest(users) as u) as w (args)
                      join polar.river_job x on x.args @> w.args)
       and (j.args -> 'params' <> polar.redacted(j.args -> 'params')
            or exists (select from unnest(j.errors) as e where e ->> 'error' <> blanked_text));
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('river_job', n);
    update polar.drift d
       set local = polar.redacted(to_jsonb(d.local), d.field) #>> '{}', remote = polar.redacted(to_jsonb(d.remote), d.field) #>> '{}'
     where d.object_id in (select o.object_id from polar.forgotten_objects(customer) as o (object_id))
       and coalesce(d.local, '') || coalesce(d.remote, '') !~ '^(-?\d+(\.\d+)?|true|false)*$'
       and (d.local, d.remote) is distinct from (polar.redacted(to_jsonb(d.local), d.field) #>> '{}', polar.redacted(to_jsonb(d.remote), d.field) #>> '{}');
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('drift', n);
    update polar.link_conflict f set detail = blanked_text
     where f.customer_id = customer and f.kind = 'external_id_taken' and f.detail <> blanked_text; -- Polar's own words
    get diagnostics n = row_count;
    counts := counts || jsonb_build_object('link_conflict', n);
    update polar.local_user_row u set email = null where u.id = any (users) and u.email is not null;
    get diagnostics n = row_count;
    return counts || jsonb_build_object('local_user_row', n);
end
$$;

create or replace function polar.forgotten_objects(customer uuid) returns setof text
    language sql stable
    begin atomic
        select customer::text
        union
        select f.checkout_id::text from polar.forgotten_checkout f where f.customer_id = forgotten_objects.customer
        union
        select m.id::text from polar.member m where m.customer_id = forgotten_objects.customer
        union
        select s.id::text from polar.subscription s where s.customer_id = forgotten_objects.customer
        union
        select o.id::text from polar."order" o where o.customer_id = forgotten_objects.customer
        union
        select r.id::text from polar.refund r where r.customer_id = forgotten_objects.customer
        union
        select g.id::text from polar.benefit_grant g
         where g.customer_id = forgotten_objects.customer or g.member_id in (select m.id from polar.member m where m.customer_id = forgotten_objects.customer) and polar.is_forgotten('benefit_grant', g.doc)
        union
        select t.id::text from polar.customer_seat t
         where t.customer_id = forgotten_objects.customer or t.member_id in (select m.id from polar.member m where m.customer_id = forgotten_objects.customer) and polar.is_forgotten('customer_seat', t.doc);
    end;

drop table polar.relink;
-- +goose StatementEnd
