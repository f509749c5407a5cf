-- +goose Up
create table polar.audit (
    id      bigint generated always as identity,
    at      timestamptz not null default now(),
    actor   text not null,
    door    text not null,
    action  text not null,
    subject text not null,
    reason  text,
    detail  jsonb not null default '{}',
    constraint audit_pkey primary key (id)
);
create index audit_subject_idx on polar.audit using hash (subject);
comment on table polar.audit is 'What people did, in the console or on the command line, each written in the transaction of what was done. Rows are never changed.';
comment on column polar.audit.id is 'Order of the deeds.';
comment on column polar.audit.at is 'When.';
comment on column polar.audit.actor is 'Who: the name that the person gave.';
comment on column polar.audit.door is 'Through which door they came: console, or command line.';
comment on column polar.audit.action is 'What was done, such as link, unlink, resolve_conflict, resolve_drift, replay_events, retry_checkout, show_event, jobs.';
comment on column polar.audit.subject is 'To what: customer, conflict, drift, event or checkout_request with its id, such as conflict 12.';
comment on column polar.audit.reason is 'Why, in the person''s words.';
comment on column polar.audit.detail is 'What else is to be known. Holds no personal data.';

create table polar.link_waiting (
    customer_id uuid not null,
    since       timestamptz not null default now(),
    constraint link_waiting_pkey primary key (customer_id)
);
create index link_waiting_since_idx on polar.link_waiting (since, customer_id);
comment on table polar.link_waiting is 'Living customers that were considered and are linked to nobody: unlinked_customer, kept as a list, so that few are found quickly among many.';
comment on column polar.link_waiting.customer_id is 'Polar''s customer.';
comment on column polar.link_waiting.since is 'Since when it is known to be linked to nobody.';
insert into polar.link_waiting (customer_id, since)
    select c.id, coalesce(c.created_at, now()) from polar.customer c
     where c.deleted_at is null and not exists (select from polar.customer_link l where l.customer_id = c.id);

-- +goose StatementBegin
create or replace function polar.link_user(id text) returns integer
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
declare
    named uuid[];
    basis text;
begin
    if coalesce(link_user.id, '') = '' then
        raise exception using errcode = '22023', message = 'link_user: id is null or empty',
            hint = 'Give the id of the local user, as in polar.local_user.';
    end if;
    -- The customers for which any evidence names the user, of proof or not.
    named := array(
        select c.id from polar.customer c where c.external_id = link_user.id and c.deleted_at is null
        union
        select c.id from polar.link_evidence e join polar.customer c on c.id = e.customer_id
         where e.local_user_id = link_user.id and c.deleted_at is null
        limit 2);
    if cardinality(named) = 0 then
        return 0;
    end if;

    -- The locks under which the worker decides, in its order, but without waiting: whoever signs up never waits for
    -- the worker, and never stands in a circle with it. Under a snapshot that is older than the locks nothing could
    -- be decided.
    if cardinality(named) = 1 and current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
        if pg_try_advisory_xact_lock(hashtextextended('polar:customer:' || named[1], 0)) then
            if pg_try_advisory_xact_lock(hashtextextended('polar:user:' || link_user.id, 0)) then
                -- Only where nothing can be said against it: what is looked at here is all that the worker's rule looks
                -- at, and none of it names another user or another customer.
                insert into polar.customer_link as l (customer_id, local_user_id, basis, checkout_id)
                select c.id, link_user.id, case when e.checkout_id is null then 'external_id' else 'checkout' end, e.checkout_id
                  from polar.customer c
                  left join lateral (
                      select e.checkout_id from polar.link_evidence e
                       where e.customer_id = c.id order by e.succeeded_at, e.checkout_id limit 1) e on true
                 where c.id = named[1]
                   and c.deleted_at is null
                   and coalesce(c.external_id, link_user.id) = link_user.id
                   and (c.external_id is not null or e.checkout_id is not null)
                   and exists (select from polar.local_user u where u.id = link_user.id and u.deleted_at is null)
                   and not exists (select from polar.link_evidence o
                                    where o.customer_id = c.id and not (o.local_user_id = link_user.id and o.proves))
                   and not exists (select from polar.customer o
                                    where o.external_id = link_user.id and o.id <> c.id and o.deleted_at is null)
                   and not exists (select from polar.link_evidence o join polar.customer p on p.id = o.customer_id
                                    where o.local_user_id = link_user.id and o.customer_id <> c.id and p.deleted_at is null)
                   and not exists (select from polar.customer_link o
                                    where o.customer_id = c.id or o.local_user_id = link_user.id)
                   and not exists (select from polar.link_conflict f
                                    where (f.customer_id = c.id or f.local_user_id = link_user.id)
                                      and (f.resolved_at is null or (f.resolution = 'dismissed' and f.lifted_at is null)))
                on conflict do nothing
                returning l.basis into basis;
            end if;
        end if;
    end if;
    if basis is null then
        -- All else is the worker's to decide, once this transaction has committed.
        insert into polar.river_job (kind, args, priority, max_attempts)
            values ('link_customers', jsonb_build_object('users', jsonb_build_array(link_user.id)), 2, 1000);
        perform pg_notify('polar.river_insert', '{"queue":"default"}');
        return 0;
    end if;

    insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at, actor)
        select l.customer_id, l.local_user_id, l.basis, l.linked_at, 'truenorth' from polar.customer_link l where l.customer_id = named[1];
    delete from polar.link_waiting w where w.customer_id = named[1];
    if basis = 'checkout' and exists (select from polar.customer c where c.id = named[1] and c.external_id is null) then
        insert into polar.river_job (kind, args, priority, max_attempts)
            values ('write_external_id', jsonb_build_object('customer_id', named[1]), 2, 1000);
        perform pg_notify('polar.river_insert', '{"queue":"default"}');
    end if;
    return 1;
end
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
create or replace function polar.link_user(id text) returns integer
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
declare
    named uuid[];
    basis text;
begin
    if coalesce(link_user.id, '') = '' then
        raise exception using errcode = '22023', message = 'link_user: id is null or empty',
            hint = 'Give the id of the local user, as in polar.local_user.';
    end if;
    -- The customers for which any evidence names the user, of proof or not.
    named := array(
        select c.id from polar.customer c where c.external_id = link_user.id and c.deleted_at is null
        union
        select c.id from polar.link_evidence e join polar.customer c on c.id = e.customer_id
         where e.local_user_id = link_user.id and c.deleted_at is null
        limit 2);
    if cardinality(named) = 0 then
        return 0;
    end if;

    -- The locks under which the worker decides, in its order, but without waiting: whoever signs up never waits for
    -- the worker, and never stands in a circle with it. Under a snapshot that is older than the locks nothing could
    -- be decided.
    if cardinality(named) = 1 and current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
        if pg_try_advisory_xact_lock(hashtextextended('polar:customer:' || named[1], 0)) then
            if pg_try_advisory_xact_lock(hashtextextended('polar:user:' || link_user.id, 0)) then
                -- Only where nothing can be said against it: what is looked at here is all that the worker's rule looks
                -- at, and none of it names another user or another customer.
                insert into polar.customer_link as l (customer_id, local_user_id, basis, checkout_id)
                select c.id, link_user.id, case when e.checkout_id is null then 'external_id' else 'checkout' end, e.checkout_id
                  from polar.customer c
                  left join lateral (
                      select e.checkout_id from polar.link_evidence e
                       where e.customer_id = c.id order by e.succeeded_at, e.checkout_id limit 1) e on true
                 where c.id = named[1]
                   and c.deleted_at is null
                   and coalesce(c.external_id, link_user.id) = link_user.id
                   and (c.external_id is not null or e.checkout_id is not null)
                   and exists (select from polar.local_user u where u.id = link_user.id and u.deleted_at is null)
                   and not exists (select from polar.link_evidence o
                                    where o.customer_id = c.id and not (o.local_user_id = link_user.id and o.proves))
                   and not exists (select from polar.customer o
                                    where o.external_id = link_user.id and o.id <> c.id and o.deleted_at is null)
                   and not exists (select from polar.link_evidence o join polar.customer p on p.id = o.customer_id
                                    where o.local_user_id = link_user.id and o.customer_id <> c.id and p.deleted_at is null)
                   and not exists (select from polar.customer_link o
                                    where o.customer_id = c.id or o.local_user_id = link_user.id)
                   and not exists (select from polar.link_conflict f
                                    where (f.customer_id = c.id or f.local_user_id = link_user.id)
                                      and (f.resolved_at is null or (f.resolution = 'dismissed' and f.lifted_at is null)))
                on conflict do nothing
                returning l.basis into basis;
            end if;
        end if;
    end if;
    if basis is null then
        -- All else is the worker's to decide, once this transaction has committed.
        insert into polar.river_job (kind, args, priority, max_attempts)
            values ('link_customers', jsonb_build_object('users', jsonb_build_array(link_user.id)), 2, 1000);
        perform pg_notify('polar.river_insert', '{"queue":"default"}');
        return 0;
    end if;

    insert into polar.customer_link_history (customer_id, local_user_id, basis, linked_at, actor)
        select l.customer_id, l.local_user_id, l.basis, l.linked_at, 'truenorth' from polar.customer_link l where l.customer_id = named[1];
    if basis = 'checkout' and exists (select from polar.customer c where c.id = named[1] and c.external_id is null) then
        insert into polar.river_job (kind, args, priority, max_attempts)
            values ('write_external_id', jsonb_build_object('customer_id', named[1]), 2, 1000);
        perform pg_notify('polar.river_insert', '{"queue":"default"}');
    end if;
    return 1;
end
$$;
-- +goose StatementEnd
drop table polar.link_waiting;
drop table polar.audit;
