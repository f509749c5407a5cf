-- +goose Up
-- +goose StatementBegin
alter table polar.customer_link_history add column note text, add column ended_by text, add column end_note text;
-- Until now the person who ended a link stood in the reason.
update polar.customer_link_history
   set ended_by = coalesce(substring(end_reason from '^resolved by (.*)$'), 'truenorth'),
       end_reason = case when end_reason like 'resolved by %' then 'replaced' else end_reason end
 where ended_at is not null;
comment on table polar.customer_link_history is 'Who was linked when, by whom and why: every link there ever was. A change of basis ends one row and opens another.';
comment on column polar.customer_link_history.end_reason is 'customer_deleted, user_deleted, evidence_withdrawn, basis_changed (the link goes on), unlinked (a person ended it) or replaced (a person linked the customer to another user).';
comment on column polar.customer_link_history.actor is 'Who made the link: truenorth, or the person who decided.';
comment on column polar.customer_link_history.note is 'Why, in the words of the person who made it; null where the basis says why.';
comment on column polar.customer_link_history.ended_by is 'Who ended it: truenorth, or the person who decided.';
comment on column polar.customer_link_history.end_note is 'Why it ended, in the words of the person who ended it.';

alter table polar.link_conflict add column note text, add column lifted_at timestamptz;
alter table polar.link_conflict drop constraint link_conflict_kind_check;
alter table polar.link_conflict add constraint link_conflict_kind_check check (kind in ('email_match', 'evidence_disagrees', 'user_claimed', 'external_id_taken', 'unlinked'));
create index link_conflict_customer_id_idx on polar.link_conflict (customer_id);
comment on table polar.link_conflict is 'What no machine may decide, and what people decided: a person resolves it with `truenorth conflicts`.';
comment on column polar.link_conflict.kind is 'email_match: an older customer was matched by an e-mail that somebody typed. evidence_disagrees: checkout, external id or the present link name different users. user_claimed: the user is linked to another customer. external_id_taken: Polar refused to write the external id. unlinked: never open; a person ended the link between the two, and it stays ended.';
comment on column polar.link_conflict.checkout_id is 'The checkout that took part; of unlinked: null where only the external id spoke for the link, so that a checkout would be news.';
comment on column polar.link_conflict.resolution is 'linked, dismissed (the claim is not followed), or obsolete (its cause is gone).';
comment on column polar.link_conflict.note is 'Why, in the words of the person who resolved it.';
comment on column polar.link_conflict.lifted_at is 'When a person linked the two after all: from then on a dismissal counts no more.';

create or replace view polar.unlinked_customer as
    select c.id as customer_id,
           c.external_id,
           c.email,
           case
               when exists (
                   select from polar.link_conflict k
                    where k.customer_id = c.id
                      and (k.resolved_at is null
                           or (k.resolution = 'dismissed' and k.lifted_at is null and k.local_user_id = c.external_id))) then 'conflict'
               when c.external_id is null then 'no_external_id'
               else 'unknown_user'
           end as reason
      from polar.customer c
     where c.deleted_at is null
       and not exists (select from polar.customer_link l where l.customer_id = c.id);
comment on column polar.unlinked_customer.reason is 'no_external_id: it bears no user''s id. unknown_user: no live user has this id (yet). conflict: see link_conflict; one is open, or a person has said that it is not the user whose id it bears.';

create view polar.link_evidence as
    select k.customer_id,
           k.id as checkout_id,
           r.external_customer_id as local_user_id,
           coalesce(r.customer_id = k.customer_id, false) as by_customer,
           -- Otherwise the customer must be no older than the session (both times are of Polar's clock), and no guest's
           -- checkout may have made it instead: a session kept open until a stranger has become a customer, then paid
           -- with the stranger's e-mail address, proves nothing either. The guest's payment need not have succeeded: a
           -- session older than its customer got it when the guest pressed pay. A customer that bears the user's id is
           -- beyond that doubt: Polar gave it the id of the session that made it.
           coalesce(r.customer_id = k.customer_id, false)
               or (c.created_at >= k.created_at and (c.external_id is not distinct from r.external_customer_id or not exists (
                      select from polar.checkout g
                        left join polar.checkout_request q on q.id = g.request_id
                       where g.customer_id = c.id and g.id <> k.id
                         and g.created_at <= c.created_at
                         and q.external_customer_id is null))) as proves,
           k.created_at as session_created_at,
           c.created_at as customer_created_at,
           k.version_modified_at as succeeded_at
      from polar.checkout k
      join polar.checkout_request r on r.id = k.request_id
      join polar.customer c on c.id = k.customer_id
     where k.status = 'succeeded'
       and r.external_customer_id is not null
       and c.created_at is not null
       and k.created_at is not null;
comment on view polar.link_evidence is 'Succeeded checkouts that truenorth created for a local user, each with the customer that paid and whether it proves that the two are one.';
comment on column polar.link_evidence.customer_id is 'Polar''s customer that paid.';
comment on column polar.link_evidence.checkout_id is 'The checkout.';
comment on column polar.link_evidence.local_user_id is 'The local user it was created for.';
comment on column polar.link_evidence.by_customer is 'Whether the session was created with this customer.';
comment on column polar.link_evidence.proves is 'Whether it proves who the customer is: by_customer, or the customer is no older than the session and no guest''s. Otherwise an e-mail address that somebody typed led to the customer.';
comment on column polar.link_evidence.session_created_at is 'When the session was created, by Polar''s clock.';
comment on column polar.link_evidence.customer_created_at is 'When the customer was created, by Polar''s clock.';
comment on column polar.link_evidence.succeeded_at is 'When Polar last changed the checkout: by then it had succeeded.';

create function polar.link_user(id text) returns integer
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
comment on function polar.link_user(text) is 'Links a local user to the Polar customer that is theirs, in the caller''s transaction, which has written the user: at once where nothing speaks against it, else the worker decides after the commit. Never waits. Returns how many customers were linked at once.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop function polar.link_user(text);
drop view polar.link_evidence;

create or replace view polar.unlinked_customer as
    select c.id as customer_id,
           c.external_id,
           c.email,
           case
               when exists (select from polar.link_conflict k where k.customer_id = c.id and k.resolved_at is null) then 'conflict'
               when c.external_id is null then 'no_external_id'
               else 'unknown_user'
           end as reason
      from polar.customer c
     where c.deleted_at is null
       and not exists (select from polar.customer_link l where l.customer_id = c.id);
comment on column polar.unlinked_customer.reason is 'no_external_id: nothing names a user. unknown_user: no live user has this id (yet). conflict: see link_conflict.';

-- What the former version cannot know: its rule follows the evidence again.
delete from polar.link_conflict where kind = 'unlinked';
drop index polar.link_conflict_customer_id_idx;
alter table polar.link_conflict drop constraint link_conflict_kind_check;
alter table polar.link_conflict add constraint link_conflict_kind_check check (kind in ('email_match', 'evidence_disagrees', 'user_claimed', 'external_id_taken'));
alter table polar.link_conflict drop column note, drop column lifted_at;
comment on table polar.link_conflict is 'What no machine may decide: a person resolves it with `truenorth conflicts`.';
comment on column polar.link_conflict.kind is 'email_match: an older customer was matched by an e-mail that somebody typed. evidence_disagrees: checkout, external id or the present link name different users. user_claimed: the user is linked to another customer. external_id_taken: Polar refused to write the external id.';
comment on column polar.link_conflict.checkout_id is 'The checkout that took part.';
comment on column polar.link_conflict.resolution is 'linked, dismissed, or obsolete (its cause is gone).';

update polar.customer_link_history set end_reason = 'resolved by ' || ended_by where end_reason in ('unlinked', 'replaced');
alter table polar.customer_link_history drop column note, drop column ended_by, drop column end_note;
comment on table polar.customer_link_history is 'Every link there ever was; a change of basis ends one row and opens another.';
comment on column polar.customer_link_history.end_reason is 'customer_deleted, user_deleted, evidence_withdrawn, basis_changed (the link goes on), or a person''s words.';
comment on column polar.customer_link_history.actor is 'truenorth, or the person who decided.';
-- +goose StatementEnd
