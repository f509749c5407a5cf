-- +goose Up
-- +goose StatementBegin
create index event_log_unmirrored_idx on polar.event_log (seq)
    where split_part(type, '.', 1) not in ('organization', 'product', 'discount', 'benefit', 'customer', 'member', 'checkout', 'subscription', 'order', 'refund', 'benefit_grant', 'customer_seat');
comment on table polar.event_log is 'Events as received; rows are written once, but for what is blanked of a forgotten customer. Read the view polar.event.';
comment on column polar.event_log.body is 'The body as received, less the personal data of forgotten customers. Holds personal data and checkout secrets.';

create table polar.forgotten_customer (
    customer_id  uuid not null,
    forgotten_at timestamptz not null default now(),
    actor        text not null,
    reason       text not null,
    constraint forgotten_customer_pkey primary key (customer_id)
);
comment on table polar.forgotten_customer is 'Customers of whom no personal data is kept (truenorth forget): what Polar still says of them is stored without it.';
comment on column polar.forgotten_customer.customer_id is 'Polar''s customer.';
comment on column polar.forgotten_customer.forgotten_at is 'Since when.';
comment on column polar.forgotten_customer.actor is 'Who asked for it.';
comment on column polar.forgotten_customer.reason is 'Why, in the words of who asked; empty where none were given.';

create table polar.forgotten_checkout (
    checkout_id uuid not null,
    customer_id uuid not null,
    constraint forgotten_checkout_pkey primary key (checkout_id)
);
create index forgotten_checkout_customer_id_idx on polar.forgotten_checkout (customer_id);
comment on table polar.forgotten_checkout is 'Checkouts of forgotten customers: versions of before the buyer was known name no customer.';
comment on column polar.forgotten_checkout.checkout_id is 'Polar''s checkout.';
comment on column polar.forgotten_checkout.customer_id is 'The forgotten customer.';

create function polar.redacted(value jsonb, name text default '') returns jsonb
    language plpgsql immutable parallel safe
    as $$
declare
    -- While it can be paid, a checkout's URL is what a buyer needs; afterwards it only leads to what he had typed.
    payable boolean;
begin
    case
        when name in ('product', 'products', 'product_price', 'price', 'prices', 'benefit', 'benefit_metadata', 'discount', 'meter',
                      'organization', 'attached_custom_fields', 'billing_address_fields', 'customer_billing_address_fields') then
            return value;
        when name in ('metadata', 'customer_metadata', 'seat_metadata') then
            return case when jsonb_typeof(value) = 'object'
                        then (select coalesce(jsonb_object_agg(m.key, m.value), '{}') from jsonb_each(value) as m where starts_with(m.key, 'truenorth_'))
                        else 'null' end;
        when name in ('billing_address', 'customer_billing_address', 'tax_id', 'customer_tax_id', 'custom_field_data', 'properties',
                      'previous_properties', 'payment_processor_metadata') then
            return 'null';
        else
    end case;
    case jsonb_typeof(value)
        when 'object' then
            payable := coalesce(value ->> 'status' in ('open', 'confirmed'), false);
            return (select coalesce(jsonb_object_agg(m.key, case when payable and m.key = 'url' then m.value else polar.redacted(m.value, m.key) end), '{}')
                      from jsonb_each(value) as m);
        when 'array' then
            return (select coalesce(jsonb_agg(polar.redacted(e.value, name) order by e.n), '[]')
                      from jsonb_array_elements(value) with ordinality as e (value, n));
        when 'string' then
            return case
                when name in ('external_id', 'external_customer_id', 'customer_external_id', 'status', 'type', 'benefit_type', 'role', 'reason',
                              'customer_cancellation_reason', 'billing_reason', 'currency', 'platform_fee_currency', 'recurring_interval',
                              'trial_interval', 'active_trial_interval', 'tax_behavior', 'payment_processor', 'invoice_number',
                              'receipt_number', 'description', 'label') then value
                when value #>> '{}' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then value
                when value #>> '{}' ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)$' then value
                when name = 'url' then '""'
                else 'null' end;
        else
            return value;
    end case;
end
$$;
comment on function polar.redacted(jsonb, text) is 'A document without personal data. Numbers, booleans, ids, times, known words and what the seller says of his products stay; any other text goes, so that a field nobody knows yet gives nothing away.';

create function polar.redacted_event(event jsonb) returns jsonb
    language sql stable parallel safe
    return case
        when event -> 'data' is null then event
        when starts_with(event ->> 'type', 'checkout.') and jsonb_typeof(event -> 'data' -> 'url') = 'string'
             and not exists (select from polar.checkout k where k.id = polar.json_uuid(event -> 'data', 'id') and k.status in ('open', 'confirmed'))
            then jsonb_set(event, '{data}', jsonb_set(polar.redacted(event -> 'data'), '{url}', '""'))
        else jsonb_set(event, '{data}', polar.redacted(event -> 'data'))
    end;
comment on function polar.redacted_event(jsonb) is 'An event without personal data; the URL of a checkout goes from all of its events once it is over.';

create function polar.is_forgotten(object_type text, doc jsonb) returns boolean
    language sql stable parallel safe
    return exists (
               select from polar.forgotten_customer f
                where f.customer_id in (case when object_type = 'customer' then polar.json_uuid(doc, 'id') end,
                                        polar.json_uuid(doc, 'customer_id'),
                                        polar.json_uuid(doc -> 'customer', 'id'),
                                        polar.json_uuid(doc -> 'member', 'customer_id')))
        or (object_type = 'checkout'
            and exists (select from polar.forgotten_checkout k where k.checkout_id = polar.json_uuid(doc, 'id')));
comment on function polar.is_forgotten(text, jsonb) is 'Whether a document speaks of a forgotten customer.';

create function polar.stored_doc(object_type text, doc jsonb) returns jsonb
    language sql stable parallel safe
    return case when exists (select from polar.forgotten_customer) and polar.is_forgotten(object_type, doc) then polar.redacted(doc) else doc end;
comment on function polar.stored_doc(text, jsonb) is 'What the mirror keeps of a document: all of it, or what is not personal where the customer is forgotten. A read of Polar is compared with the mirror after this.';

drop function polar.mirror_objects(text, uuid[], jsonb[], boolean[], timestamptz[], text, text[], boolean);

create function polar.mirror_objects(
    object_type text, ids uuid[], docs jsonb[], tombstones boolean[],
    version_ats timestamptz[], version_from text, webhook_ids text[], lift boolean, target text default 'polar',
    out written uuid[], out tied uuid[]
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    -- Go's zero time stands for a time that is not known.
    no_time constant timestamptz := '0001-01-01 00:00:00+00';
    -- Of a customer, the full document, without the state laid over it.
    full_doc constant text := case when object_type = 'customer' then 'coalesce(o.base, o.doc)' else 'o.doc' end;
    met_ids  uuid[];
    met_docs jsonb[];
    exposed  text[];
begin
    -- met is what was stored before with the same times: this statement's snapshot shows it even where it is
    -- written over.
    execute format($sql$
        with given as (
            -- Asked within this statement: whoever forgets a customer waits for its hold on the table, or it sees that it is done.
            select u.id, case when exists (select from polar.forgotten_customer) then polar.stored_doc($7, u.doc) else u.doc end as doc,
                   u.tombstone, nullif(u.version_at, $9) as version_at, nullif(u.webhook_id, '') as webhook_id,
                   case when u.tombstone then coalesce(polar.json_time(u.doc, 'deleted_at'), nullif(u.version_at, $9), now()) end as deleted_at,
                   coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at')) as version_modified_at
              from unnest($1, $2, $3, $4, $5) as u (id, doc, tombstone, version_at, webhook_id)
             order by u.id
        ), mirrored as (
            insert into %4$I.%1$I as o (id, doc, tombstone, deleted_at, version_at, version_modified_at, version_from, version_webhook_id)
            select g.id, g.doc, g.tombstone, g.deleted_at, g.version_at, g.version_modified_at, $6, g.webhook_id
              from given g
            on conflict (id) do update
               set doc = excluded.doc, tombstone = excluded.tombstone, deleted_at = excluded.deleted_at,
                   version_at = excluded.version_at, version_modified_at = excluded.version_modified_at,
                   version_from = excluded.version_from, version_webhook_id = excluded.version_webhook_id,
                   synced_at = now() %2$s
             where polar.is_newer(
                       excluded.version_from, excluded.tombstone, excluded.version_at, excluded.version_modified_at,
                       polar.tie_rank($7, excluded.doc), excluded.version_webhook_id,
                       o.version_from, o.tombstone and not coalesce($8 and excluded.version_at > coalesce(o.version_at, '-infinity'), false),
                       o.version_at, o.version_modified_at, polar.tie_rank($7, o.doc), o.version_webhook_id)
                or ($8 and o.tombstone and not excluded.tombstone and excluded.version_at > coalesce(o.version_at, '-infinity'))
            returning o.id
        ), met as (
            select o.id, %3$s as doc
              from given g
              join %4$I.%1$I o on o.id = g.id
             where o.tombstone = g.tombstone
               and o.version_from = $6
               and o.version_at is not distinct from g.version_at
               and o.version_modified_at is not distinct from g.version_modified_at
        )
        select (select coalesce(array_agg(id), '{}') from mirrored),
               (select coalesce(array_agg(id order by id), '{}') from met),
               (select coalesce(array_agg(doc order by id), '{}') from met)
    $sql$, object_type, case when object_type = 'customer' then ', base = null' else '' end, full_doc, target)
    into written, met_ids, met_docs
    using ids, docs, tombstones, version_ats, webhook_ids, version_from, object_type, lift, no_time;

    tied := '{}';
    if cardinality(written) = cardinality(ids) and cardinality(met_ids) = 0 then
        return;
    end if;
    if exists (select from polar.forgotten_customer) then
        docs := array(select polar.stored_doc(object_type, d.doc) from unnest(docs) with ordinality as d (doc, n) order by d.n);
    end if;
    select coalesce(array_agg(a.attname::text), '{}') into exposed
      from pg_attribute a
     where a.attrelid = format('polar.%I', object_type)::regclass and a.attgenerated = 's';
    -- What another transaction wrote meanwhile was not met, but it is stored now.
    execute format($sql$
        select coalesce(array_agg(distinct t.id), '{}')
          from (select u.id, m.doc as old, u.doc as new
                  from unnest($1, $2) as u (id, doc)
                  join unnest($9, $10) as m (id, doc) on m.id = u.id
                union all
                select u.id, %2$s, u.doc
                  from unnest($1, $2, $3, $4) as u (id, doc, tombstone, version_at)
                  join %3$I.%1$I o on o.id = u.id
                 where not o.id = any ($5)
                   and o.tombstone = u.tombstone
                   and o.version_from = $6
                   and o.version_at is not distinct from nullif(u.version_at, $8)
                   and o.version_modified_at is not distinct from coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at'))) t
         where exists (select from unnest($7) as name where t.old -> name is distinct from t.new -> name)
    $sql$, object_type, full_doc, target)
    into tied
    using ids, docs, tombstones, version_ats, written, version_from, exposed, no_time, met_ids, met_docs;
end
$$;
comment on function polar.mirror_objects(text, uuid[], jsonb[], boolean[], timestamptz[], text, text[], boolean, text)
    is 'Writes the newest versions of objects of one type; says which were written and which only Polar can tell apart.';

-- Of each customer the newest customer.state_changed is kept; each id stands at most once among ids. A customer of which
-- only its state is known has an empty full document, older than any other.
create function polar.mirror_customer_states(
    ids uuid[], docs jsonb[], version_ats timestamptz[], webhook_ids text[], target text default 'polar'
) returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    execute format($sql$
        insert into %1$I.customer_state as o (customer_id, doc, active_subscriptions, granted_benefits, active_meters, version_at, version_modified_at, version_webhook_id)
        select g.id,
               g.doc - 'active_subscriptions' - 'granted_benefits' - 'active_meters',
               coalesce(g.doc -> 'active_subscriptions', '[]'),
               coalesce(g.doc -> 'granted_benefits', '[]'),
               coalesce(g.doc -> 'active_meters', '[]'),
               g.version_at,
               coalesce(polar.json_time(g.doc, 'modified_at'), polar.json_time(g.doc, 'created_at'), '-infinity'),
               g.webhook_id
          from (select u.id, polar.stored_doc('customer', u.doc) as doc, u.version_at, u.webhook_id
                  from unnest($1, $2, $3, $4) as u (id, doc, version_at, webhook_id)) g
         order by g.id
        on conflict (customer_id) do update
           set doc = excluded.doc, active_subscriptions = excluded.active_subscriptions, granted_benefits = excluded.granted_benefits,
               active_meters = excluded.active_meters, version_at = excluded.version_at,
               version_modified_at = excluded.version_modified_at, version_webhook_id = excluded.version_webhook_id, synced_at = now()
         where polar.is_newer('event', false, excluded.version_at, excluded.version_modified_at, 0, excluded.version_webhook_id,
                              'event', false, o.version_at, o.version_modified_at, 0, o.version_webhook_id)
    $sql$, target) using ids, docs, version_ats, webhook_ids;
    execute format($sql$
        insert into %1$I.customer (id, doc, base, deleted_at, version_from)
        select s.customer_id, s.doc, '{}', polar.json_time(s.doc, 'deleted_at'), 'event'
          from %1$I.customer_state s
         where s.customer_id = any ($1)
         order by s.customer_id
        on conflict (id) do nothing
    $sql$, target) using ids;
end
$$;
comment on function polar.mirror_customer_states(uuid[], jsonb[], timestamptz[], text[], text)
    is 'Keeps the newest state of each customer, and makes the customers that are not known otherwise.';

create function polar.overlay_customer_states(ids uuid[], target text default 'polar') returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    execute format($sql$
        update %1$I.customer c
           set base = n.full_doc,
               doc = n.full_doc || s.doc,
               deleted_at = polar.json_time(s.doc, 'deleted_at'),
               synced_at = now()
          from %1$I.customer_state s,
               lateral (select coalesce(f.base, f.doc) as full_doc from %1$I.customer f where f.id = s.customer_id) n
         where s.customer_id = c.id
           and c.id = any ($1)
           and not c.tombstone
           and polar.is_newer('event', false, s.version_at, s.version_modified_at, 0, s.version_webhook_id,
                              c.version_from, false, c.version_at, c.version_modified_at, 0, c.version_webhook_id)
           and c.doc is distinct from (n.full_doc || s.doc)
    $sql$, target) using ids;
end
$$;
comment on function polar.overlay_customer_states(uuid[], text) is 'Lays the newest state''s fields over the newest full document, where the state is the newer of the two.';

create function polar.forgotten_objects(customer uuid) returns setof text
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
comment on function polar.forgotten_objects(uuid) is 'Ids of a forgotten customer and of all that the mirror has of it.';

create function polar.forget_customer(customer uuid, actor text, reason text) returns jsonb
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
comment on function polar.forget_customer(uuid, text, text) is 'Takes a customer''s personal data out of the mirror and the ledgers, for good; says how many rows of each table. The events are `truenorth forget`''s to blank.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop function polar.forget_customer(uuid, text, text);
drop function polar.forgotten_objects(uuid);
drop function polar.overlay_customer_states(uuid[], text);
drop function polar.mirror_customer_states(uuid[], jsonb[], timestamptz[], text[], text);
drop function polar.mirror_objects(text, uuid[], jsonb[], boolean[], timestamptz[], text, text[], boolean, text);
drop function polar.stored_doc(text, jsonb);
drop function polar.is_forgotten(text, jsonb);
drop function polar.redacted_event(jsonb);
drop function polar.redacted(jsonb, text);
drop table polar.forgotten_checkout;
drop table polar.forgotten_customer;
drop index polar.event_log_unmirrored_idx;
comment on table polar.event_log is 'Events as received; rows are written once. Read the view polar.event.';
comment on column polar.event_log.body is 'The body as received. Holds personal data and checkout secrets.';

create function polar.mirror_objects(
    object_type text, ids uuid[], docs jsonb[], tombstones boolean[],
    version_ats timestamptz[], version_from text, webhook_ids text[], lift boolean,
    out written uuid[], out tied uuid[]
)
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
declare
    -- Go's zero time stands for a time that is not known.
    no_time constant timestamptz := '0001-01-01 00:00:00+00';
    -- Of a customer, the full document, without the state laid over it.
    full_doc constant text := case when object_type = 'customer' then 'coalesce(o.base, o.doc)' else 'o.doc' end;
    met_ids  uuid[];
    met_docs jsonb[];
    exposed  text[];
begin
    -- met is what was stored before with the same times: this statement's snapshot shows it even where it is
    -- written over.
    execute format($sql$
        with given as (
            select u.id, u.doc, u.tombstone, nullif(u.version_at, $9) as version_at, nullif(u.webhook_id, '') as webhook_id,
                   case when u.tombstone then coalesce(polar.json_time(u.doc, 'deleted_at'), nullif(u.version_at, $9), now()) end as deleted_at,
                   coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at')) as version_modified_at
              from unnest($1, $2, $3, $4, $5) as u (id, doc, tombstone, version_at, webhook_id)
             order by u.id
        ), mirrored as (
            insert into polar.%1$I as o (id, doc, tombstone, deleted_at, version_at, version_modified_at, version_from, version_webhook_id)
            select g.id, g.doc, g.tombstone, g.deleted_at, g.version_at, g.version_modified_at, $6, g.webhook_id
              from given g
            on conflict (id) do update
               set doc = excluded.doc, tombstone = excluded.tombstone, deleted_at = excluded.deleted_at,
                   version_at = excluded.version_at, version_modified_at = excluded.version_modified_at,
                   version_from = excluded.version_from, version_webhook_id = excluded.version_webhook_id,
                   synced_at = now() %2$s
             where polar.is_newer(
                       excluded.version_from, excluded.tombstone, excluded.version_at, excluded.version_modified_at,
                       polar.tie_rank($7, excluded.doc), excluded.version_webhook_id,
                       o.version_from, o.tombstone and not coalesce($8 and excluded.version_at > o.version_at, false),
                       o.version_at, o.version_modified_at, polar.tie_rank($7, o.doc), o.version_webhook_id)
                or ($8 and o.tombstone and not excluded.tombstone and excluded.version_at > o.version_at)
            returning o.id
        ), met as (
            select o.id, %3$s as doc
              from given g
              join polar.%1$I o on o.id = g.id
             where o.tombstone = g.tombstone
               and o.version_from = $6
               and o.version_at is not distinct from g.version_at
               and o.version_modified_at is not distinct from g.version_modified_at
        )
        select (select coalesce(array_agg(id), '{}') from mirrored),
               (select coalesce(array_agg(id order by id), '{}') from met),
               (select coalesce(array_agg(doc order by id), '{}') from met)
    $sql$, object_type, case when object_type = 'customer' then ', base = null' else '' end, full_doc)
    into written, met_ids, met_docs
    using ids, docs, tombstones, version_ats, webhook_ids, version_from, object_type, lift, no_time;

    tied := '{}';
    if cardinality(written) = cardinality(ids) and cardinality(met_ids) = 0 then
        return;
    end if;
    select coalesce(array_agg(a.attname::text), '{}') into exposed
      from pg_attribute a
     where a.attrelid = format('polar.%I', object_type)::regclass and a.attgenerated = 's';
    -- What another transaction wrote meanwhile was not met, but it is stored now.
    execute format($sql$
        select coalesce(array_agg(distinct t.id), '{}')
          from (select u.id, m.doc as old, u.doc as new
                  from unnest($1, $2) as u (id, doc)
                  join unnest($9, $10) as m (id, doc) on m.id = u.id
                union all
                select u.id, %2$s, u.doc
                  from unnest($1, $2, $3, $4) as u (id, doc, tombstone, version_at)
                  join polar.%1$I o on o.id = u.id
                 where not o.id = any ($5)
                   and o.tombstone = u.tombstone
                   and o.version_from = $6
                   and o.version_at is not distinct from nullif(u.version_at, $8)
                   and o.version_modified_at is not distinct from coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at'))) t
         where exists (select from unnest($7) as name where t.old -> name is distinct from t.new -> name)
    $sql$, object_type, full_doc)
    into tied
    using ids, docs, tombstones, version_ats, written, version_from, exposed, no_time, met_ids, met_docs;
end
$$;
comment on function polar.mirror_objects(text, uuid[], jsonb[], boolean[], timestamptz[], text, text[], boolean)
    is 'Writes the newest versions of objects of one type; says which were written and which only Polar can tell apart.';
-- +goose StatementEnd
