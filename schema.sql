-- The whole schema of truenorth: the truth that sqlc reads.
-- migrations/ leads a database to it step by step; a test proves that both give the same schema.
-- River's own tables live in the same schema and come from River's migrations.

create schema if not exists polar;
comment on schema polar is 'truenorth: the mirror of Polar (polar.sh), its links to local users, and checkout requests. Dropping this schema removes truenorth.';

-- ---------------------------------------------------------------------------------------------
-- Reading Polar's documents. Polar's content never fails a row: what has the wrong form reads as null.

create function polar.json_text(doc jsonb, name text) returns text
    language sql immutable parallel safe
    return case when jsonb_typeof(doc -> name) = 'string' then doc ->> name end;
comment on function polar.json_text(jsonb, text) is 'A top-level string of a document; null where it is missing or no string.';

create function polar.json_uuid(doc jsonb, name text) returns uuid
    language sql immutable parallel safe
    return case when (doc ->> name) ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then (doc ->> name)::uuid end;
comment on function polar.json_uuid(jsonb, text) is 'A top-level UUID of a document; null where it is missing or none.';

create function polar.json_bool(doc jsonb, name text) returns boolean
    language sql immutable parallel safe
    return case when jsonb_typeof(doc -> name) = 'boolean' then (doc ->> name)::boolean end;
comment on function polar.json_bool(jsonb, text) is 'A top-level boolean of a document; null where it is missing or none.';

create function polar.json_int(doc jsonb, name text) returns bigint
    language sql immutable parallel safe
    return case when jsonb_typeof(doc -> name) = 'number' and (doc ->> name)::numeric = trunc((doc ->> name)::numeric) and abs((doc ->> name)::numeric) < 9e18 then (doc ->> name)::numeric::bigint end;
comment on function polar.json_int(jsonb, text) is 'A top-level whole number of a document; null where it is missing, fractional or beyond bigint.';

-- Immutable in truth: only texts with an explicit offset are read, so no time zone setting plays a part.
create function polar.json_time(doc jsonb, name text) returns timestamptz
    language plpgsql immutable parallel safe
    as $$
declare
    value text := doc ->> name;
begin
    if value is null then
        return null;
    end if;
    if value ~ '^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-](0\d|1[0-4]):[0-5]\d)$' then
        return value::timestamptz;
    end if;
    if value !~ '^[1-9]\d{3}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)$' then
        return null;
    end if;
    -- Only the rest pays for the subtransaction that an exception block costs.
    begin
        return value::timestamptz;
    exception when data_exception then
        return null;
    end;
end
$$;
comment on function polar.json_time(jsonb, text) is 'A top-level RFC 3339 time of a document; null where it is missing or unreadable.';

-- ---------------------------------------------------------------------------------------------
-- Local users.

create table polar.local_user_row (
    id         text not null,
    email      text,
    created_at timestamptz not null default now(),
    deleted_at timestamptz,
    constraint local_user_row_pkey primary key (id)
);
create index local_user_row_email_idx on polar.local_user_row (lower(email));
comment on table polar.local_user_row is 'Local users kept by truenorth itself, for products that have not mapped their own users table (truenorth users map).';
comment on column polar.local_user_row.id is 'The product''s id of the user, compared exactly with Polar''s external_id.';
comment on column polar.local_user_row.email is 'E-mail address; shown to people, never used to link.';
comment on column polar.local_user_row.created_at is 'When the user came to be.';
comment on column polar.local_user_row.deleted_at is 'When the user was deleted; null while alive.';

create view polar.local_user as
    select id, email, created_at, deleted_at from polar.local_user_row;
comment on view polar.local_user is 'The product''s users. An insertable view over local_user_row until `truenorth users map` puts the product''s own table behind it.';
comment on column polar.local_user.id is 'The product''s id of the user, compared exactly with Polar''s external_id.';
comment on column polar.local_user.email is 'E-mail address; shown to people, never used to link.';
comment on column polar.local_user.created_at is 'When the user came to be.';
comment on column polar.local_user.deleted_at is 'When the user was deleted; null while alive.';

-- ---------------------------------------------------------------------------------------------
-- Events: what Polar sent, byte for byte, and beside it what became of it.
--
-- Both tables grow by inserts and shrink from their oldest end. Postgres would vacuum them when a fifth has changed, which
-- of ten million rows is two million. Vacuuming after inserts costs by what is new, as all that is seen to be visible is
-- left out, so it has a fixed measure: look-ups of outcomes then need no heap, and freezing never comes all at once. After
-- deletions it reads the indexes as a whole, so its measure stays a share, but a small one: 0.4 s for 40,000 of 2 million.

create sequence polar.event_batch;
comment on sequence polar.event_batch is 'Numbers for the batches of events that one apply_events job works.';

create table polar.event_log (
    seq         bigint generated always as identity,
    webhook_id  text not null,
    type        text not null,
    object_id   text,
    occurred_at timestamptz,
    received_at timestamptz not null default now(),
    batch       bigint not null,
    body        text,
    body_bytes  bytea,
    constraint event_log_pkey primary key (seq),
    constraint event_log_webhook_id_key unique (webhook_id)
) with (
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000
);
create index event_log_batch_idx on polar.event_log (batch);
create index event_log_object_id_idx on polar.event_log using hash (object_id);
create index event_log_type_idx on polar.event_log (type, seq);
create index event_log_unmirrored_idx on polar.event_log (seq)
    where split_part(type, '.', 1) not in ('organization', 'product', 'discount', 'benefit', 'customer', 'member', 'checkout', 'subscription', 'order', 'refund', 'benefit_grant', 'customer_seat');
comment on table polar.event_log is 'Events as received; rows are written once, but for what is blanked of a forgotten customer, and bodies that go before their rows do (EVENT_RETENTION). Read the view polar.event.';
comment on column polar.event_log.seq is 'Order of arrival.';
comment on column polar.event_log.webhook_id is 'Polar''s id of the event, the webhook-id header: the same on every retry and redelivery.';
comment on column polar.event_log.type is 'Type of the event, such as checkout.updated.';
comment on column polar.event_log.object_id is 'data.id of the event: the object it speaks of; null where there is none.';
comment on column polar.event_log.occurred_at is 'timestamp of the event: when Polar built it, by Polar''s clock; null where unreadable.';
comment on column polar.event_log.received_at is 'When it was first received, by the database''s clock.';
comment on column polar.event_log.batch is 'Batch that its first apply_events job carries.';
comment on column polar.event_log.body is 'The body as received, less the personal data of forgotten customers; null once it is older than EVENT_RETENTION. Holds personal data and checkout secrets.';
comment on column polar.event_log.body_bytes is 'The exact bytes, only where they are no valid UTF-8 (body then shows U+FFFD for what is not).';

create table polar.event_outcome (
    seq        bigint not null,
    state      text not null,
    tries      integer not null default 1,
    tried_at   timestamptz not null default now(),
    applied_at timestamptz,
    error      text,
    constraint event_outcome_pkey primary key (seq),
    constraint event_outcome_state_check check (state in ('applied', 'failed')),
    constraint event_outcome_applied_check check ((state = 'applied') = (applied_at is not null)),
    constraint event_outcome_error_check check ((state = 'failed') = (error is not null))
) with (
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000
);
create index event_outcome_failed_idx on polar.event_outcome (seq) where state = 'failed';
comment on table polar.event_outcome is 'What became of an event, beside the event so that its body is not written again. No row: not tried yet.';
comment on column polar.event_outcome.seq is 'The event, event_log.seq.';
comment on column polar.event_outcome.state is 'applied: done, also where there was nothing to do. failed: the last try failed.';
comment on column polar.event_outcome.tries is 'How often it was tried.';
comment on column polar.event_outcome.tried_at is 'When it was last tried.';
comment on column polar.event_outcome.applied_at is 'When it was applied; null while failed.';
comment on column polar.event_outcome.error is 'Why the last try failed; null once applied.';

create view polar.event as
    select l.seq,
           l.webhook_id,
           l.type,
           l.object_id,
           l.occurred_at,
           l.received_at,
           coalesce(o.state, 'received') as state,
           o.applied_at,
           o.error,
           coalesce(o.tries, 0) as tries,
           l.batch,
           l.body,
           l.body_bytes
      from polar.event_log l
      left join polar.event_outcome o on o.seq = l.seq;
comment on view polar.event is 'Every event that Polar sent, validly signed, with what became of it.';
comment on column polar.event.seq is 'Order of arrival.';
comment on column polar.event.webhook_id is 'Polar''s id of the event, the webhook-id header: the same on every retry and redelivery.';
comment on column polar.event.type is 'Type of the event, such as checkout.updated.';
comment on column polar.event.object_id is 'data.id of the event: the object it speaks of.';
comment on column polar.event.occurred_at is 'When Polar built the event, by Polar''s clock.';
comment on column polar.event.received_at is 'When it was first received, by the database''s clock.';
comment on column polar.event.state is 'received: not tried yet. failed: the last try failed (retries may go on). applied: done, also where there was nothing to do.';
comment on column polar.event.applied_at is 'When it was applied.';
comment on column polar.event.error is 'Why the last try failed.';
comment on column polar.event.tries is 'How often it was tried.';
comment on column polar.event.batch is 'Batch that its first apply_events job carries.';
comment on column polar.event.body is 'The body as received; body::jsonb reads it. Null once it is older than EVENT_RETENTION, where that is less than 90 days: then body::jsonb is null too, and the event cannot be applied again. Holds personal data and checkout secrets.';
comment on column polar.event.body_bytes is 'The exact bytes, only where they are no valid UTF-8.';

create table polar.event_sweep (
    only_row  boolean not null default true,
    swept_seq bigint not null default 0,
    constraint event_sweep_pkey primary key (only_row),
    constraint event_sweep_only_row_check check (only_row)
);
insert into polar.event_sweep default values;
comment on table polar.event_sweep is 'How far the sweeper has proved that every event has an outcome.';
comment on column polar.event_sweep.swept_seq is 'Every event up to this event_log.seq has an outcome.';

create table polar.event_prune (
    what      text not null,
    seq       bigint not null default 0,
    left_over bigint[] not null default '{}',
    constraint event_prune_pkey primary key (what),
    constraint event_prune_what_check check (what in ('event', 'body'))
);
insert into polar.event_prune (what) values ('event'), ('body');
comment on table polar.event_prune is 'How far old events have been removed, so that none is looked at twice for nothing.';
comment on column polar.event_prune.what is 'event: whole events. body: only bodies, where EVENT_RETENTION is shorter than Polar can redeliver.';
comment on column polar.event_prune.seq is 'Every event up to this event_log.seq has been removed, but for left_over.';
comment on column polar.event_prune.left_over is 'Events up to seq that had no outcome yet, failed ones whose job was alive, and young ones among the old: they are looked at again.';

-- ---------------------------------------------------------------------------------------------
-- The mirror: a table for each of Polar's objects, all of one form. The document as Polar gave it,
-- columns generated from it, and which version of the object it is. Newest wins (polar.mirror_objects);
-- a tombstone is final. Nothing here refers to another table or forbids a value: what Polar says is stored.
--
-- An update that changes no indexed column leaves the indexes alone (HOT) where its page has room for the new row. Where
-- room was measured to help it is kept free: in a history of 11,800 events the share of such updates rose from 38 to 98 % of
-- benefit_grant's, from 75 to 93 % of customer_state's, from 81 to all of member's, from 92 to 97 % of customer's. Those of
-- checkouts, subscriptions and checkout requests mostly change their status, which is indexed: there it is of no use.

create table polar.customer (
    id                  uuid not null,
    doc                 jsonb not null,
    base                jsonb,
    organization_id     uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    external_id         text generated always as (nullif(polar.json_text(doc, 'external_id'), '')) stored,
    email               text generated always as (polar.json_text(doc, 'email')) stored,
    email_verified      boolean generated always as (polar.json_bool(doc, 'email_verified')) stored,
    name                text generated always as (polar.json_text(doc, 'name')) stored,
    type                text generated always as (polar.json_text(doc, 'type')) stored,
    billing_name        text generated always as (polar.json_text(doc, 'billing_name')) stored,
    locale              text generated always as (polar.json_text(doc, 'locale')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint customer_pkey primary key (id),
    constraint customer_version_from_check check (version_from in ('event', 'read'))
) with (fillfactor = 90);
create index customer_external_id_idx on polar.customer using hash (external_id);
create index customer_email_idx on polar.customer using hash (lower(email));
create index customer_newest_idx on polar.customer (created_at, id);
comment on table polar.customer is 'Polar''s customers.';
comment on column polar.customer.id is 'Polar''s id.';
comment on column polar.customer.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.customer.base is 'The newest full document, where doc shows it with the newer fields of a customer.state_changed laid over it; null otherwise.';
comment on column polar.customer.organization_id is 'Polar''s organization.';
comment on column polar.customer.external_id is 'The local user''s id, as Polar knows it; an empty one is null.';
comment on column polar.customer.email is 'E-mail address; null for a team without one.';
comment on column polar.customer.email_verified is 'Whether Polar has verified the e-mail address.';
comment on column polar.customer.name is 'Name as the customer or the product gave it.';
comment on column polar.customer.type is 'individual or team.';
comment on column polar.customer.billing_name is 'Name on invoices.';
comment on column polar.customer.locale is 'Preferred language, a BCP 47 tag.';
comment on column polar.customer.created_at is 'When Polar created it.';
comment on column polar.customer.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.customer.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.customer.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.customer.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.customer.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.customer.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.customer.version_webhook_id is 'The event this version came from.';
comment on column polar.customer.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.customer_state (
    customer_id          uuid not null,
    doc                  jsonb not null,
    active_subscriptions jsonb not null,
    granted_benefits     jsonb not null,
    active_meters        jsonb not null,
    version_at           timestamptz not null,
    version_modified_at  timestamptz not null,
    version_webhook_id   text,
    synced_at            timestamptz not null default now(),
    constraint customer_state_pkey primary key (customer_id)
) with (fillfactor = 80);
comment on table polar.customer_state is 'The newest customer.state_changed of each customer: its own fields, and the three lists that never enter customer.doc.';
comment on column polar.customer_state.customer_id is 'The customer.';
comment on column polar.customer_state.doc is 'The customer''s fields that the event carried, without the lists. Holds personal data.';
comment on column polar.customer_state.active_subscriptions is 'Subscriptions that are active or trialing; one that is past due is not in it.';
comment on column polar.customer_state.granted_benefits is 'Benefits granted now.';
comment on column polar.customer_state.active_meters is 'Meters with their balances.';
comment on column polar.customer_state.version_at is 'Timestamp of the event, by Polar''s clock.';
comment on column polar.customer_state.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.customer_state.version_webhook_id is 'The event it came from.';
comment on column polar.customer_state.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.checkout (
    id                   uuid not null,
    doc                  jsonb not null,
    organization_id      uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    status               text generated always as (polar.json_text(doc, 'status')) stored,
    url                  text generated always as (polar.json_text(doc, 'url')) stored,
    customer_id          uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    external_customer_id text generated always as (nullif(polar.json_text(doc, 'external_customer_id'), '')) stored,
    customer_email       text generated always as (polar.json_text(doc, 'customer_email')) stored,
    customer_name        text generated always as (polar.json_text(doc, 'customer_name')) stored,
    product_id           uuid generated always as (polar.json_uuid(doc, 'product_id')) stored,
    discount_id          uuid generated always as (polar.json_uuid(doc, 'discount_id')) stored,
    subscription_id      uuid generated always as (polar.json_uuid(doc, 'subscription_id')) stored,
    amount               bigint generated always as (polar.json_int(doc, 'amount')) stored,
    discount_amount      bigint generated always as (polar.json_int(doc, 'discount_amount')) stored,
    net_amount           bigint generated always as (polar.json_int(doc, 'net_amount')) stored,
    tax_amount           bigint generated always as (polar.json_int(doc, 'tax_amount')) stored,
    total_amount         bigint generated always as (polar.json_int(doc, 'total_amount')) stored,
    currency             text generated always as (polar.json_text(doc, 'currency')) stored,
    success_url          text generated always as (polar.json_text(doc, 'success_url')) stored,
    expires_at           timestamptz generated always as (polar.json_time(doc, 'expires_at')) stored,
    created_at           timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at          timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    request_id           uuid generated always as (polar.json_uuid(doc -> 'metadata', 'truenorth_request')) stored,
    deleted_at           timestamptz,
    tombstone            boolean not null default false,
    version_at           timestamptz,
    version_modified_at  timestamptz,
    version_from         text not null,
    version_webhook_id   text,
    synced_at            timestamptz not null default now(),
    constraint checkout_pkey primary key (id),
    constraint checkout_version_from_check check (version_from in ('event', 'read'))
);
create index checkout_customer_id_idx on polar.checkout using btree (customer_id);
create index checkout_request_id_idx on polar.checkout using btree (request_id) where request_id is not null;
create index checkout_expires_at_idx on polar.checkout using btree (expires_at) where status in ('open', 'confirmed');
create index checkout_created_at_idx on polar.checkout using btree (created_at);
comment on table polar.checkout is 'Polar''s checkout sessions.';
comment on column polar.checkout.id is 'Polar''s id.';
comment on column polar.checkout.doc is 'The document as Polar gave it. Holds personal data. And the session''s secret.';
comment on column polar.checkout.request_id is 'The checkout_request that created it, from its metadata.';
comment on column polar.checkout.organization_id is 'Polar''s organization.';
comment on column polar.checkout.status is 'open, confirmed, succeeded, expired or failed; confirmed is not paid, and goes back to open when a payment fails.';
comment on column polar.checkout.url is 'Where the buyer pays; holds the session''s secret. Good only while open and before expires_at.';
comment on column polar.checkout.customer_id is 'The customer, once there is one.';
comment on column polar.checkout.external_customer_id is 'The local user''s id given when the session was created.';
comment on column polar.checkout.customer_email is 'The e-mail address given or typed; proves nothing.';
comment on column polar.checkout.customer_name is 'The name given or typed.';
comment on column polar.checkout.product_id is 'The product chosen.';
comment on column polar.checkout.discount_id is 'The discount applied.';
comment on column polar.checkout.subscription_id is 'The free subscription that this session upgrades.';
comment on column polar.checkout.amount is 'Before discount and tax, in the currency''s minor unit.';
comment on column polar.checkout.discount_amount is 'Discount, in the minor unit.';
comment on column polar.checkout.net_amount is 'After discount, before tax, in the minor unit.';
comment on column polar.checkout.tax_amount is 'Tax, in the minor unit; null until it can be computed.';
comment on column polar.checkout.total_amount is 'What the buyer pays, in the minor unit.';
comment on column polar.checkout.currency is 'ISO 4217 code in lower case.';
comment on column polar.checkout.success_url is 'Where the buyer goes after paying.';
comment on column polar.checkout.expires_at is 'When the URL dies, by Polar''s clock.';
comment on column polar.checkout.created_at is 'When Polar created it.';
comment on column polar.checkout.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.checkout.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.checkout.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.checkout.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.checkout.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.checkout.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.checkout.version_webhook_id is 'The event this version came from.';
comment on column polar.checkout.synced_at is 'When this row was last written, by the database''s clock.';

create table polar."order" (
    id                     uuid not null,
    doc                    jsonb not null,
    status                 text generated always as (polar.json_text(doc, 'status')) stored,
    paid                   boolean generated always as (polar.json_bool(doc, 'paid')) stored,
    customer_id            uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    product_id             uuid generated always as (polar.json_uuid(doc, 'product_id')) stored,
    subscription_id        uuid generated always as (polar.json_uuid(doc, 'subscription_id')) stored,
    checkout_id            uuid generated always as (polar.json_uuid(doc, 'checkout_id')) stored,
    discount_id            uuid generated always as (polar.json_uuid(doc, 'discount_id')) stored,
    billing_reason         text generated always as (polar.json_text(doc, 'billing_reason')) stored,
    subtotal_amount        bigint generated always as (polar.json_int(doc, 'subtotal_amount')) stored,
    discount_amount        bigint generated always as (polar.json_int(doc, 'discount_amount')) stored,
    net_amount             bigint generated always as (polar.json_int(doc, 'net_amount')) stored,
    tax_amount             bigint generated always as (polar.json_int(doc, 'tax_amount')) stored,
    total_amount           bigint generated always as (polar.json_int(doc, 'total_amount')) stored,
    applied_balance_amount bigint generated always as (polar.json_int(doc, 'applied_balance_amount')) stored,
    due_amount             bigint generated always as (polar.json_int(doc, 'due_amount')) stored,
    refunded_amount        bigint generated always as (polar.json_int(doc, 'refunded_amount')) stored,
    refunded_tax_amount    bigint generated always as (polar.json_int(doc, 'refunded_tax_amount')) stored,
    currency               text generated always as (polar.json_text(doc, 'currency')) stored,
    invoice_number         text generated always as (polar.json_text(doc, 'invoice_number')) stored,
    description            text generated always as (polar.json_text(doc, 'description')) stored,
    seats                  bigint generated always as (polar.json_int(doc, 'seats')) stored,
    created_at             timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at            timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at             timestamptz,
    tombstone              boolean not null default false,
    version_at             timestamptz,
    version_modified_at    timestamptz,
    version_from           text not null,
    version_webhook_id     text,
    synced_at              timestamptz not null default now(),
    constraint order_pkey primary key (id),
    constraint order_version_from_check check (version_from in ('event', 'read'))
);
create index order_customer_id_idx on polar."order" using btree (customer_id);
create index order_checkout_id_idx on polar."order" using btree (checkout_id);
create index order_created_at_idx on polar."order" using btree (created_at);
create index order_subscription_id_idx on polar."order" using btree (subscription_id);
create index order_product_id_idx on polar."order" using btree (product_id);
create index order_seats_idx on polar."order" (id) where seats is not null and subscription_id is null;
create index order_unfinished_idx on polar."order" (created_at) where status in ('draft', 'pending');
comment on table polar."order" is 'Polar''s orders.';
comment on column polar."order".id is 'Polar''s id.';
comment on column polar."order".doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar."order".status is 'draft, pending, paid, refunded, partially_refunded or void.';
comment on column polar."order".paid is 'Whether it is paid.';
comment on column polar."order".customer_id is 'The customer.';
comment on column polar."order".product_id is 'The product.';
comment on column polar."order".subscription_id is 'The subscription it pays for.';
comment on column polar."order".checkout_id is 'The checkout it came from.';
comment on column polar."order".discount_id is 'The discount applied.';
comment on column polar."order".billing_reason is 'purchase, subscription_create, subscription_cycle, subscription_update or subscription_meter_cycle.';
comment on column polar."order".subtotal_amount is 'Before discount and tax, in the minor unit.';
comment on column polar."order".discount_amount is 'Discount, in the minor unit.';
comment on column polar."order".net_amount is 'After discount, before tax, in the minor unit.';
comment on column polar."order".tax_amount is 'Tax, in the minor unit.';
comment on column polar."order".total_amount is 'Total, in the minor unit.';
comment on column polar."order".applied_balance_amount is 'Customer balance applied, in the minor unit.';
comment on column polar."order".due_amount is 'Still to pay, in the minor unit.';
comment on column polar."order".refunded_amount is 'Refunded before tax, in the minor unit.';
comment on column polar."order".refunded_tax_amount is 'Refunded tax, in the minor unit.';
comment on column polar."order".currency is 'ISO 4217 code in lower case.';
comment on column polar."order".invoice_number is 'Number of the invoice.';
comment on column polar."order".description is 'What was bought, in words.';
comment on column polar."order".seats is 'Seats bought.';
comment on column polar."order".created_at is 'When Polar created it.';
comment on column polar."order".modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar."order".deleted_at is 'When it was deleted; null while it exists.';
comment on column polar."order".tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar."order".version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar."order".version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar."order".version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar."order".version_webhook_id is 'The event this version came from.';
comment on column polar."order".synced_at is 'When this row was last written, by the database''s clock.';

create table polar.subscription (
    id                       uuid not null,
    doc                      jsonb not null,
    status                   text generated always as (polar.json_text(doc, 'status')) stored,
    customer_id              uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    product_id               uuid generated always as (polar.json_uuid(doc, 'product_id')) stored,
    checkout_id              uuid generated always as (polar.json_uuid(doc, 'checkout_id')) stored,
    discount_id              uuid generated always as (polar.json_uuid(doc, 'discount_id')) stored,
    amount                   bigint generated always as (polar.json_int(doc, 'amount')) stored,
    currency                 text generated always as (polar.json_text(doc, 'currency')) stored,
    recurring_interval       text generated always as (polar.json_text(doc, 'recurring_interval')) stored,
    recurring_interval_count bigint generated always as (polar.json_int(doc, 'recurring_interval_count')) stored,
    current_period_start     timestamptz generated always as (polar.json_time(doc, 'current_period_start')) stored,
    current_period_end       timestamptz generated always as (polar.json_time(doc, 'current_period_end')) stored,
    cancel_at_period_end     boolean generated always as (polar.json_bool(doc, 'cancel_at_period_end')) stored,
    trial_start              timestamptz generated always as (polar.json_time(doc, 'trial_start')) stored,
    trial_end                timestamptz generated always as (polar.json_time(doc, 'trial_end')) stored,
    started_at               timestamptz generated always as (polar.json_time(doc, 'started_at')) stored,
    canceled_at              timestamptz generated always as (polar.json_time(doc, 'canceled_at')) stored,
    ends_at                  timestamptz generated always as (polar.json_time(doc, 'ends_at')) stored,
    ended_at                 timestamptz generated always as (polar.json_time(doc, 'ended_at')) stored,
    past_due_at              timestamptz generated always as (polar.json_time(doc, 'past_due_at')) stored,
    paused_at                timestamptz generated always as (polar.json_time(doc, 'paused_at')) stored,
    resumes_at               timestamptz generated always as (polar.json_time(doc, 'resumes_at')) stored,
    seats                    bigint generated always as (polar.json_int(doc, 'seats')) stored,
    created_at               timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at              timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at               timestamptz,
    tombstone                boolean not null default false,
    version_at               timestamptz,
    version_modified_at      timestamptz,
    version_from             text not null,
    version_webhook_id       text,
    synced_at                timestamptz not null default now(),
    constraint subscription_pkey primary key (id),
    constraint subscription_version_from_check check (version_from in ('event', 'read'))
);
create index subscription_customer_id_idx on polar.subscription using btree (customer_id);
create index subscription_checkout_id_idx on polar.subscription using btree (checkout_id);
create index subscription_started_at_idx on polar.subscription using btree (started_at);
create index subscription_product_id_idx on polar.subscription using btree (product_id);
create index subscription_seats_idx on polar.subscription (id) where seats is not null;
create index subscription_current_period_end_idx on polar.subscription (current_period_end) where status not in ('canceled', 'incomplete_expired');
comment on table polar.subscription is 'Polar''s subscriptions.';
comment on column polar.subscription.id is 'Polar''s id.';
comment on column polar.subscription.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.subscription.status is 'incomplete, incomplete_expired, trialing, active, past_due, canceled, unpaid or paused.';
comment on column polar.subscription.customer_id is 'The customer.';
comment on column polar.subscription.product_id is 'The product.';
comment on column polar.subscription.checkout_id is 'The checkout it came from.';
comment on column polar.subscription.discount_id is 'The discount applied.';
comment on column polar.subscription.amount is 'Price of a period, in the minor unit.';
comment on column polar.subscription.currency is 'ISO 4217 code in lower case.';
comment on column polar.subscription.recurring_interval is 'day, week, month or year.';
comment on column polar.subscription.recurring_interval_count is 'Intervals in a period.';
comment on column polar.subscription.current_period_start is 'Start of the period paid for.';
comment on column polar.subscription.current_period_end is 'End of the period paid for.';
comment on column polar.subscription.cancel_at_period_end is 'Whether it ends with the period.';
comment on column polar.subscription.trial_start is 'Start of the trial.';
comment on column polar.subscription.trial_end is 'End of the trial.';
comment on column polar.subscription.started_at is 'When it began.';
comment on column polar.subscription.canceled_at is 'When the customer canceled.';
comment on column polar.subscription.ends_at is 'When it will end.';
comment on column polar.subscription.ended_at is 'When it ended.';
comment on column polar.subscription.past_due_at is 'Since when a payment is missing.';
comment on column polar.subscription.paused_at is 'Since when it is paused.';
comment on column polar.subscription.resumes_at is 'When a pause ends.';
comment on column polar.subscription.seats is 'Seats bought.';
comment on column polar.subscription.created_at is 'When Polar created it.';
comment on column polar.subscription.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.subscription.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.subscription.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.subscription.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.subscription.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.subscription.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.subscription.version_webhook_id is 'The event this version came from.';
comment on column polar.subscription.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.refund (
    id                  uuid not null,
    doc                 jsonb not null,
    organization_id     uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    status              text generated always as (polar.json_text(doc, 'status')) stored,
    reason              text generated always as (polar.json_text(doc, 'reason')) stored,
    order_id            uuid generated always as (polar.json_uuid(doc, 'order_id')) stored,
    subscription_id     uuid generated always as (polar.json_uuid(doc, 'subscription_id')) stored,
    customer_id         uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    amount              bigint generated always as (polar.json_int(doc, 'amount')) stored,
    tax_amount          bigint generated always as (polar.json_int(doc, 'tax_amount')) stored,
    currency            text generated always as (polar.json_text(doc, 'currency')) stored,
    revoke_benefits     boolean generated always as (polar.json_bool(doc, 'revoke_benefits')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint refund_pkey primary key (id),
    constraint refund_version_from_check check (version_from in ('event', 'read'))
);
create index refund_order_id_idx on polar.refund using btree (order_id);
create index refund_created_at_idx on polar.refund using btree (created_at);
create index refund_customer_id_idx on polar.refund using btree (customer_id);
comment on table polar.refund is 'Polar''s refunds.';
comment on column polar.refund.id is 'Polar''s id.';
comment on column polar.refund.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.refund.organization_id is 'Polar''s organization.';
comment on column polar.refund.status is 'pending, succeeded, failed or canceled.';
comment on column polar.refund.reason is 'Why.';
comment on column polar.refund.order_id is 'The order.';
comment on column polar.refund.subscription_id is 'The subscription.';
comment on column polar.refund.customer_id is 'The customer.';
comment on column polar.refund.amount is 'Refunded before tax, in the minor unit.';
comment on column polar.refund.tax_amount is 'Refunded tax, in the minor unit.';
comment on column polar.refund.currency is 'ISO 4217 code in lower case.';
comment on column polar.refund.revoke_benefits is 'Whether the benefits were revoked with it.';
comment on column polar.refund.created_at is 'When Polar created it.';
comment on column polar.refund.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.refund.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.refund.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.refund.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.refund.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.refund.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.refund.version_webhook_id is 'The event this version came from.';
comment on column polar.refund.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.product (
    id                       uuid not null,
    doc                      jsonb not null,
    organization_id          uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    name                     text generated always as (polar.json_text(doc, 'name')) stored,
    description              text generated always as (polar.json_text(doc, 'description')) stored,
    visibility               text generated always as (polar.json_text(doc, 'visibility')) stored,
    is_recurring             boolean generated always as (polar.json_bool(doc, 'is_recurring')) stored,
    is_archived              boolean generated always as (polar.json_bool(doc, 'is_archived')) stored,
    recurring_interval       text generated always as (polar.json_text(doc, 'recurring_interval')) stored,
    recurring_interval_count bigint generated always as (polar.json_int(doc, 'recurring_interval_count')) stored,
    created_at               timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at              timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at               timestamptz,
    tombstone                boolean not null default false,
    version_at               timestamptz,
    version_modified_at      timestamptz,
    version_from             text not null,
    version_webhook_id       text,
    synced_at                timestamptz not null default now(),
    constraint product_pkey primary key (id),
    constraint product_version_from_check check (version_from in ('event', 'read'))
);
create index product_created_at_idx on polar.product using btree (created_at);
comment on table polar.product is 'Polar''s products.';
comment on column polar.product.id is 'Polar''s id.';
comment on column polar.product.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.product.organization_id is 'Polar''s organization.';
comment on column polar.product.name is 'Name.';
comment on column polar.product.description is 'Description.';
comment on column polar.product.visibility is 'draft, private or public.';
comment on column polar.product.is_recurring is 'Whether it is a subscription.';
comment on column polar.product.is_archived is 'Whether it can no longer be bought.';
comment on column polar.product.recurring_interval is 'day, week, month or year.';
comment on column polar.product.recurring_interval_count is 'Intervals in a period.';
comment on column polar.product.created_at is 'When Polar created it.';
comment on column polar.product.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.product.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.product.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.product.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.product.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.product.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.product.version_webhook_id is 'The event this version came from.';
comment on column polar.product.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.discount (
    id                  uuid not null,
    doc                 jsonb not null,
    organization_id     uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    name                text generated always as (polar.json_text(doc, 'name')) stored,
    code                text generated always as (polar.json_text(doc, 'code')) stored,
    type                text generated always as (polar.json_text(doc, 'type')) stored,
    duration            text generated always as (polar.json_text(doc, 'duration')) stored,
    amount              bigint generated always as (polar.json_int(doc, 'amount')) stored,
    basis_points        bigint generated always as (polar.json_int(doc, 'basis_points')) stored,
    currency            text generated always as (polar.json_text(doc, 'currency')) stored,
    starts_at           timestamptz generated always as (polar.json_time(doc, 'starts_at')) stored,
    ends_at             timestamptz generated always as (polar.json_time(doc, 'ends_at')) stored,
    max_redemptions     bigint generated always as (polar.json_int(doc, 'max_redemptions')) stored,
    redemptions_count   bigint generated always as (polar.json_int(doc, 'redemptions_count')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint discount_pkey primary key (id),
    constraint discount_version_from_check check (version_from in ('event', 'read'))
);
create index discount_created_at_idx on polar.discount using btree (created_at);
comment on table polar.discount is 'Polar''s discounts.';
comment on column polar.discount.id is 'Polar''s id.';
comment on column polar.discount.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.discount.organization_id is 'Polar''s organization.';
comment on column polar.discount.name is 'Name.';
comment on column polar.discount.code is 'Code that a buyer types.';
comment on column polar.discount.type is 'fixed or percentage.';
comment on column polar.discount.duration is 'once, forever or repeating.';
comment on column polar.discount.amount is 'Fixed discount, in the minor unit.';
comment on column polar.discount.basis_points is 'Percentage discount, in hundredths of a percent.';
comment on column polar.discount.currency is 'ISO 4217 code in lower case.';
comment on column polar.discount.starts_at is 'Good from.';
comment on column polar.discount.ends_at is 'Good until.';
comment on column polar.discount.max_redemptions is 'How often it may be used.';
comment on column polar.discount.redemptions_count is 'How often it was used.';
comment on column polar.discount.created_at is 'When Polar created it.';
comment on column polar.discount.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.discount.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.discount.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.discount.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.discount.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.discount.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.discount.version_webhook_id is 'The event this version came from.';
comment on column polar.discount.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.benefit (
    id                  uuid not null,
    doc                 jsonb not null,
    organization_id     uuid generated always as (polar.json_uuid(doc, 'organization_id')) stored,
    type                text generated always as (polar.json_text(doc, 'type')) stored,
    description         text generated always as (polar.json_text(doc, 'description')) stored,
    visibility          text generated always as (polar.json_text(doc, 'visibility')) stored,
    is_deleted          boolean generated always as (polar.json_bool(doc, 'is_deleted')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint benefit_pkey primary key (id),
    constraint benefit_version_from_check check (version_from in ('event', 'read'))
);
create index benefit_created_at_idx on polar.benefit using btree (created_at);
comment on table polar.benefit is 'Polar''s benefits.';
comment on column polar.benefit.id is 'Polar''s id.';
comment on column polar.benefit.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.benefit.organization_id is 'Polar''s organization.';
comment on column polar.benefit.type is 'Kind of benefit.';
comment on column polar.benefit.description is 'Description.';
comment on column polar.benefit.visibility is 'Who sees it.';
comment on column polar.benefit.is_deleted is 'Whether Polar marks it deleted.';
comment on column polar.benefit.created_at is 'When Polar created it.';
comment on column polar.benefit.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.benefit.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.benefit.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.benefit.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.benefit.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.benefit.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.benefit.version_webhook_id is 'The event this version came from.';
comment on column polar.benefit.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.benefit_grant (
    id                  uuid not null,
    doc                 jsonb not null,
    customer_id         uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    member_id           uuid generated always as (polar.json_uuid(doc, 'member_id')) stored,
    benefit_id          uuid generated always as (polar.json_uuid(doc, 'benefit_id')) stored,
    subscription_id     uuid generated always as (polar.json_uuid(doc, 'subscription_id')) stored,
    order_id            uuid generated always as (polar.json_uuid(doc, 'order_id')) stored,
    is_granted          boolean generated always as (polar.json_bool(doc, 'is_granted')) stored,
    granted_at          timestamptz generated always as (polar.json_time(doc, 'granted_at')) stored,
    is_revoked          boolean generated always as (polar.json_bool(doc, 'is_revoked')) stored,
    revoked_at          timestamptz generated always as (polar.json_time(doc, 'revoked_at')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint benefit_grant_pkey primary key (id),
    constraint benefit_grant_version_from_check check (version_from in ('event', 'read'))
) with (fillfactor = 80);
create index benefit_grant_customer_id_idx on polar.benefit_grant using btree (customer_id);
create index benefit_grant_created_at_idx on polar.benefit_grant using btree (created_at);
create index benefit_grant_member_id_idx on polar.benefit_grant using btree (member_id);
create index benefit_grant_subscription_id_idx on polar.benefit_grant using btree (subscription_id);
create index benefit_grant_order_id_idx on polar.benefit_grant using btree (order_id);
create index benefit_grant_memberless_idx on polar.benefit_grant using btree (customer_id) where member_id is null;
comment on table polar.benefit_grant is 'Polar''s grants of benefits to customers.';
comment on column polar.benefit_grant.id is 'Polar''s id.';
comment on column polar.benefit_grant.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.benefit_grant.customer_id is 'The customer.';
comment on column polar.benefit_grant.member_id is 'The member of a team customer.';
comment on column polar.benefit_grant.benefit_id is 'The benefit.';
comment on column polar.benefit_grant.subscription_id is 'The subscription that grants it.';
comment on column polar.benefit_grant.order_id is 'The order that grants it.';
comment on column polar.benefit_grant.is_granted is 'Whether it is granted now.';
comment on column polar.benefit_grant.granted_at is 'When it was granted.';
comment on column polar.benefit_grant.is_revoked is 'Whether it is revoked.';
comment on column polar.benefit_grant.revoked_at is 'When it was revoked.';
comment on column polar.benefit_grant.created_at is 'When Polar created it.';
comment on column polar.benefit_grant.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.benefit_grant.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.benefit_grant.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.benefit_grant.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.benefit_grant.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.benefit_grant.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.benefit_grant.version_webhook_id is 'The event this version came from.';
comment on column polar.benefit_grant.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.member (
    id                  uuid not null,
    doc                 jsonb not null,
    customer_id         uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    external_id         text generated always as (nullif(polar.json_text(doc, 'external_id'), '')) stored,
    email               text generated always as (polar.json_text(doc, 'email')) stored,
    name                text generated always as (polar.json_text(doc, 'name')) stored,
    role                text generated always as (polar.json_text(doc, 'role')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint member_pkey primary key (id),
    constraint member_version_from_check check (version_from in ('event', 'read'))
) with (fillfactor = 80);
create index member_customer_id_idx on polar.member using btree (customer_id);
create index member_external_id_idx on polar.member using hash (external_id);
create index member_created_at_idx on polar.member using btree (created_at);
create index member_owner_idx on polar.member using btree (customer_id) where role = 'owner';
comment on table polar.member is 'Members of Polar''s team customers.';
comment on column polar.member.id is 'Polar''s id.';
comment on column polar.member.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.member.customer_id is 'The customer.';
comment on column polar.member.external_id is 'The local user''s id, unique within the customer only.';
comment on column polar.member.email is 'E-mail address.';
comment on column polar.member.name is 'Name.';
comment on column polar.member.role is 'owner, billing_manager or member.';
comment on column polar.member.created_at is 'When Polar created it.';
comment on column polar.member.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.member.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.member.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.member.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.member.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.member.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.member.version_webhook_id is 'The event this version came from.';
comment on column polar.member.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.customer_seat (
    id                          uuid not null,
    doc                         jsonb not null,
    status                      text generated always as (polar.json_text(doc, 'status')) stored,
    customer_id                 uuid generated always as (polar.json_uuid(doc, 'customer_id')) stored,
    member_id                   uuid generated always as (polar.json_uuid(doc, 'member_id')) stored,
    subscription_id             uuid generated always as (polar.json_uuid(doc, 'subscription_id')) stored,
    order_id                    uuid generated always as (polar.json_uuid(doc, 'order_id')) stored,
    email                       text generated always as (polar.json_text(doc, 'email')) stored,
    customer_email              text generated always as (polar.json_text(doc, 'customer_email')) stored,
    invitation_token_expires_at timestamptz generated always as (polar.json_time(doc, 'invitation_token_expires_at')) stored,
    claimed_at                  timestamptz generated always as (polar.json_time(doc, 'claimed_at')) stored,
    revoked_at                  timestamptz generated always as (polar.json_time(doc, 'revoked_at')) stored,
    created_at                  timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at                 timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at                  timestamptz,
    tombstone                   boolean not null default false,
    version_at                  timestamptz,
    version_modified_at         timestamptz,
    version_from                text not null,
    version_webhook_id          text,
    synced_at                   timestamptz not null default now(),
    constraint customer_seat_pkey primary key (id),
    constraint customer_seat_version_from_check check (version_from in ('event', 'read'))
);
create index customer_seat_customer_id_idx on polar.customer_seat using btree (customer_id);
create index customer_seat_member_id_idx on polar.customer_seat using btree (member_id);
create index customer_seat_subscription_id_idx on polar.customer_seat using btree (subscription_id);
create index customer_seat_order_id_idx on polar.customer_seat using btree (order_id);
create index customer_seat_memberless_idx on polar.customer_seat using btree (customer_id) where member_id is null;
comment on table polar.customer_seat is 'Seats of Polar''s seat-based subscriptions and orders.';
comment on column polar.customer_seat.id is 'Polar''s id.';
comment on column polar.customer_seat.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.customer_seat.status is 'pending, claimed or revoked.';
comment on column polar.customer_seat.customer_id is 'The customer.';
comment on column polar.customer_seat.member_id is 'The member who holds it.';
comment on column polar.customer_seat.subscription_id is 'The subscription.';
comment on column polar.customer_seat.order_id is 'The order.';
comment on column polar.customer_seat.email is 'E-mail address it was given to.';
comment on column polar.customer_seat.customer_email is 'E-mail address of the customer.';
comment on column polar.customer_seat.invitation_token_expires_at is 'When the invitation ends.';
comment on column polar.customer_seat.claimed_at is 'When it was claimed.';
comment on column polar.customer_seat.revoked_at is 'When it was revoked.';
comment on column polar.customer_seat.created_at is 'When Polar created it.';
comment on column polar.customer_seat.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.customer_seat.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.customer_seat.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.customer_seat.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.customer_seat.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.customer_seat.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.customer_seat.version_webhook_id is 'The event this version came from.';
comment on column polar.customer_seat.synced_at is 'When this row was last written, by the database''s clock.';

create table polar.organization (
    id                  uuid not null,
    doc                 jsonb not null,
    status              text generated always as (polar.json_text(doc, 'status')) stored,
    name                text generated always as (polar.json_text(doc, 'name')) stored,
    slug                text generated always as (polar.json_text(doc, 'slug')) stored,
    email               text generated always as (polar.json_text(doc, 'email')) stored,
    website             text generated always as (polar.json_text(doc, 'website')) stored,
    created_at          timestamptz generated always as (polar.json_time(doc, 'created_at')) stored,
    modified_at         timestamptz generated always as (polar.json_time(doc, 'modified_at')) stored,
    deleted_at          timestamptz,
    tombstone           boolean not null default false,
    version_at          timestamptz,
    version_modified_at timestamptz,
    version_from        text not null,
    version_webhook_id  text,
    synced_at           timestamptz not null default now(),
    constraint organization_pkey primary key (id),
    constraint organization_version_from_check check (version_from in ('event', 'read'))
);
create index organization_created_at_idx on polar.organization using btree (created_at);
comment on table polar.organization is 'Polar''s organization that is mirrored here.';
comment on column polar.organization.id is 'Polar''s id.';
comment on column polar.organization.doc is 'The document as Polar gave it. Holds personal data.';
comment on column polar.organization.status is 'Polar''s word for its standing.';
comment on column polar.organization.name is 'Name.';
comment on column polar.organization.slug is 'Name in URLs.';
comment on column polar.organization.email is 'E-mail address for support.';
comment on column polar.organization.website is 'Web site.';
comment on column polar.organization.created_at is 'When Polar created it.';
comment on column polar.organization.modified_at is 'When Polar last changed it; null until the first change.';
comment on column polar.organization.deleted_at is 'When it was deleted; null while it exists.';
comment on column polar.organization.tombstone is 'Deleted for good: only a read from Polar that shows it alive lifts it.';
comment on column polar.organization.version_at is 'Polar''s clock for this version: the event''s timestamp, or the Date of the answer it was read from.';
comment on column polar.organization.version_modified_at is 'modified_at, else created_at, of this version.';
comment on column polar.organization.version_from is 'Whether this version came from an event or from a read of Polar''s API.';
comment on column polar.organization.version_webhook_id is 'The event this version came from.';
comment on column polar.organization.synced_at is 'When this row was last written, by the database''s clock.';

-- A good part of applying events is compressing documents: lz4 takes 8 % off the whole, for a tenth more room. A server that
-- is built without it goes on with what it has.
do $$
declare
    c record;
begin
    for c in
        select k.relname, a.attname
          from pg_attribute a
          join pg_class k on k.oid = a.attrelid
         where k.relnamespace = 'polar'::regnamespace
           and (k.relname = 'event_log' and a.attname = 'body'
                or k.relname = any (array['customer', 'customer_state', 'checkout', 'order', 'subscription', 'refund', 'product', 'discount',
                                          'benefit', 'benefit_grant', 'member', 'customer_seat', 'organization'])
                   and a.attname = any (array['doc', 'base']))
    loop
        execute format('alter table polar.%I alter column %I set compression lz4', c.relname, c.attname);
    end loop;
exception when feature_not_supported then
    null;
end
$$;

-- ---------------------------------------------------------------------------------------------
-- Forgetting: what is kept of a customer of whom no personal data may be kept.

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

-- ---------------------------------------------------------------------------------------------
-- Which version of an object is kept.

-- The order in which a whole tie (same time, same modification) is settled until Polar is asked: for a
-- checkout the state that is further on, so that what is paid never reads as open.
create function polar.tie_rank(object_type text, doc jsonb) returns integer
    language sql immutable parallel safe
    return case when object_type = 'checkout'
                then coalesce(array_position(array['open', 'confirmed', 'expired', 'failed', 'succeeded'], doc ->> 'status'), 0)
                else 0 end;
comment on function polar.tie_rank(text, jsonb) is 'Rank among versions of one object that tie in every time.';

-- Whether version n of an object takes the place of version o. Against an event, an event is newer by its
-- timestamp and then by modified_at; wherever a read takes part, modified_at decides and then Polar's clock.
-- A whole tie goes by rank and then by the events' ids: that says nothing of which is newer, but gives the same
-- row in whatever order events arrive.
create function polar.is_newer(
    n_from text, n_tombstone boolean, n_at timestamptz, n_modified_at timestamptz, n_rank integer, n_webhook_id text,
    o_from text, o_tombstone boolean, o_at timestamptz, o_modified_at timestamptz, o_rank integer, o_webhook_id text
) returns boolean
    language sql immutable parallel safe
    return case
        when n_tombstone <> o_tombstone then n_tombstone
        when n_from = 'event' and o_from = 'event' then
            (coalesce(n_at, '-infinity'), coalesce(n_modified_at, '-infinity'), n_rank, coalesce(n_webhook_id, '') collate "C")
            > (coalesce(o_at, '-infinity'), coalesce(o_modified_at, '-infinity'), o_rank, coalesce(o_webhook_id, '') collate "C")
        else
            (coalesce(n_modified_at, '-infinity'), coalesce(n_at, '-infinity'), n_rank, coalesce(n_webhook_id, '') collate "C")
            > (coalesce(o_modified_at, '-infinity'), coalesce(o_at, '-infinity'), o_rank, coalesce(o_webhook_id, '') collate "C")
    end;
comment on function polar.is_newer(text, boolean, timestamptz, timestamptz, integer, text, text, boolean, timestamptz, timestamptz, integer, text)
    is 'Whether version n of an object takes the place of version o.';

-- Writes the newest versions of objects of one type, set-wise and in the order of their ids, so that two
-- transactions never wait for each other in a circle. Each id stands at most once among ids.
-- written: ids whose row was inserted or changed. tied: ids whose stored version cannot be told from the one
-- given by any time, though a column that we expose differs: only Polar can say.
-- target: the schema that holds the tables; another than polar where the mirror is rebuilt from events to be compared.
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

-- ---------------------------------------------------------------------------------------------
-- Links.

create table polar.customer_link (
    customer_id   uuid not null,
    local_user_id text not null,
    basis         text not null,
    linked_at     timestamptz not null default now(),
    checkout_id   uuid,
    constraint customer_link_pkey primary key (customer_id),
    constraint customer_link_basis_check check (basis in ('external_id', 'checkout', 'manual'))
);
create index customer_link_linked_at_idx on polar.customer_link (linked_at);
create index customer_link_local_user_id_idx on polar.customer_link using hash (local_user_id);
comment on table polar.customer_link is 'Which Polar customer is which local user, now. What was before stands in customer_link_history.';
comment on column polar.customer_link.customer_id is 'Polar''s customer.';
comment on column polar.customer_link.local_user_id is 'The local user.';
comment on column polar.customer_link.basis is 'The strongest evidence. checkout: the user''s own checkout succeeded with this customer. external_id: the customer bears the user''s id. manual: a person said so.';
comment on column polar.customer_link.linked_at is 'Since when.';
comment on column polar.customer_link.checkout_id is 'The checkout that is the evidence, where basis is checkout.';

create table polar.customer_link_history (
    id            bigint generated always as identity,
    customer_id   uuid not null,
    local_user_id text not null,
    basis         text not null,
    linked_at     timestamptz not null,
    ended_at      timestamptz,
    end_reason    text,
    actor         text not null default 'truenorth',
    note          text,
    ended_by      text,
    end_note      text,
    constraint customer_link_history_pkey primary key (id),
    constraint customer_link_history_basis_check check (basis in ('external_id', 'checkout', 'manual')),
    constraint customer_link_history_end_check check ((ended_at is null) = (end_reason is null))
);
create index customer_link_history_customer_id_idx on polar.customer_link_history (customer_id);
create index customer_link_history_local_user_id_idx on polar.customer_link_history using hash (local_user_id);
comment on table polar.customer_link_history is 'Who was linked when, by whom and why: every link there ever was. A change of basis ends one row and opens another.';
comment on column polar.customer_link_history.id is 'Order of the changes.';
comment on column polar.customer_link_history.customer_id is 'Polar''s customer.';
comment on column polar.customer_link_history.local_user_id is 'The local user.';
comment on column polar.customer_link_history.basis is 'The evidence at the time.';
comment on column polar.customer_link_history.linked_at is 'From when.';
comment on column polar.customer_link_history.ended_at is 'Until when; null for the link in force.';
comment on column polar.customer_link_history.end_reason is 'customer_deleted, user_deleted, evidence_withdrawn, basis_changed (the link goes on), unlinked (a person ended it) or replaced (a person linked the customer to another user).';
comment on column polar.customer_link_history.actor is 'Who made the link: truenorth, or the person who decided.';
comment on column polar.customer_link_history.note is 'Why, in the words of the person who made it; null where the basis says why.';
comment on column polar.customer_link_history.ended_by is 'Who ended it: truenorth, or the person who decided.';
comment on column polar.customer_link_history.end_note is 'Why it ended, in the words of the person who ended it.';

create table polar.link_conflict (
    id            bigint generated always as identity,
    customer_id   uuid not null,
    local_user_id text not null,
    kind          text not null,
    checkout_id   uuid,
    detail        text not null,
    detected_at   timestamptz not null default now(),
    resolved_at   timestamptz,
    resolution    text,
    resolved_by   text,
    note          text,
    lifted_at     timestamptz,
    constraint link_conflict_pkey primary key (id),
    constraint link_conflict_kind_check check (kind in ('email_match', 'evidence_disagrees', 'user_claimed', 'external_id_taken', 'unlinked')),
    constraint link_conflict_resolution_check check ((resolved_at is null) = (resolution is null) and (resolved_at is null) = (resolved_by is null))
);
create unique index link_conflict_open_idx on polar.link_conflict (customer_id, kind, md5(local_user_id)) where resolved_at is null;
create index link_conflict_unresolved_idx on polar.link_conflict (id) where resolved_at is null;
create index link_conflict_customer_id_idx on polar.link_conflict (customer_id);
comment on table polar.link_conflict is 'What no machine may decide, and what people decided: a person resolves it with `truenorth conflicts`.';
comment on column polar.link_conflict.id is 'Number of the conflict.';
comment on column polar.link_conflict.customer_id is 'Polar''s customer.';
comment on column polar.link_conflict.local_user_id is 'The local user that the evidence names.';
comment on column polar.link_conflict.kind is 'email_match: an older customer was matched by an e-mail that somebody typed. evidence_disagrees: checkout, external id or the present link name different users. user_claimed: the user is linked to another customer. external_id_taken: Polar refused to write the external id. unlinked: never open; a person ended the link between the two, and it stays ended.';
comment on column polar.link_conflict.checkout_id is 'The checkout that took part; of unlinked: null where only the external id spoke for the link, so that a checkout would be news.';
comment on column polar.link_conflict.detail is 'What disagrees, in words.';
comment on column polar.link_conflict.detected_at is 'When it was found.';
comment on column polar.link_conflict.resolved_at is 'When it was resolved; null while open.';
comment on column polar.link_conflict.resolution is 'linked, dismissed (the claim is not followed), or obsolete (its cause is gone).';
comment on column polar.link_conflict.resolved_by is 'The person who resolved it, or truenorth.';
comment on column polar.link_conflict.note is 'Why, in the words of the person who resolved it.';
comment on column polar.link_conflict.lifted_at is 'When a person linked the two after all: from then on a dismissal counts no more.';

create table polar.link_waiting (
    customer_id uuid not null,
    since       timestamptz not null default now(),
    constraint link_waiting_pkey primary key (customer_id)
);
create index link_waiting_since_idx on polar.link_waiting (since, customer_id);
comment on table polar.link_waiting is 'Living customers that were considered and are linked to nobody: unlinked_customer, kept as a list, so that few are found quickly among many.';
comment on column polar.link_waiting.customer_id is 'Polar''s customer.';
comment on column polar.link_waiting.since is 'Since when it is known to be linked to nobody.';

create view polar.unlinked_customer as
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
comment on view polar.unlinked_customer is 'Customers that exist at Polar and are no local user, with the reason.';
comment on column polar.unlinked_customer.customer_id is 'Polar''s customer.';
comment on column polar.unlinked_customer.external_id is 'The local user''s id it bears, if any.';
comment on column polar.unlinked_customer.email is 'Its e-mail address.';
comment on column polar.unlinked_customer.reason is 'no_external_id: it bears no user''s id. unknown_user: no live user has this id (yet). conflict: see link_conflict; one is open, or a person has said that it is not the user whose id it bears.';

-- ---------------------------------------------------------------------------------------------
-- Checkout requests.

create table polar.checkout_request (
    id                   uuid not null,
    key                  text,
    external_customer_id text generated always as (nullif(polar.json_text(params, 'external_customer_id'), '')) stored,
    params               jsonb not null,
    state                text not null default 'queued',
    checkout_id          uuid,
    url                  text,
    expires_at           timestamptz,
    error                text,
    customer_id          uuid,
    attempt              integer not null default 0,
    first_tried_at       timestamptz,
    leased_until         timestamptz,
    posted_at            timestamptz,
    job_id               bigint,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    constraint checkout_request_pkey primary key (id),
    constraint checkout_request_key_check check (char_length(key) between 1 and 255),
    constraint checkout_request_state_check check (state in ('queued', 'creating', 'open', 'confirmed', 'succeeded', 'expired', 'failed')),
    constraint checkout_request_failed_check check (state <> 'failed' or error is not null),
    constraint checkout_request_url_check check (state not in ('open', 'confirmed', 'succeeded') or (url is not null and checkout_id is not null))
);
create unique index checkout_request_live_key_idx on polar.checkout_request (key) where state not in ('failed', 'expired');
create index checkout_request_key_idx on polar.checkout_request using hash (key) where key is not null;
create index checkout_request_newest_idx on polar.checkout_request (created_at, id);
create index checkout_request_state_idx on polar.checkout_request (state, created_at, id);
create index checkout_request_checkout_id_idx on polar.checkout_request (checkout_id);
create index checkout_request_external_customer_id_idx on polar.checkout_request using hash (external_customer_id);
create index checkout_request_unfinished_idx on polar.checkout_request (updated_at) where state in ('queued', 'creating', 'open', 'confirmed');
create index checkout_request_failed_idx on polar.checkout_request (updated_at) where state = 'failed';
comment on table polar.checkout_request is 'Checkouts that the product asked for, and the URL that came of each.';
comment on column polar.checkout_request.id is 'Id of the request; stamped into the session''s metadata as truenorth_request.';
comment on column polar.checkout_request.key is 'The caller''s idempotency key: unique among requests that are not failed or expired.';
comment on column polar.checkout_request.external_customer_id is 'The local user it is for.';
comment on column polar.checkout_request.params is 'Polar''s own checkout-create document.';
comment on column polar.checkout_request.state is 'queued, creating, open (the URL is good), confirmed (paying), succeeded (paid), expired or failed.';
comment on column polar.checkout_request.checkout_id is 'Polar''s session.';
comment on column polar.checkout_request.url is 'Where the buyer pays: good only while open and before expires_at.';
comment on column polar.checkout_request.expires_at is 'When the URL dies, by Polar''s clock.';
comment on column polar.checkout_request.error is 'Why it failed, or why the last try did, in Polar''s own words where it has some.';
comment on column polar.checkout_request.customer_id is 'The customer with which the session was created; null where Polar was to find or make one.';
comment on column polar.checkout_request.attempt is 'Number of the try that holds it, or held it last; fences all writes.';
comment on column polar.checkout_request.first_tried_at is 'When the first try began; patience is counted from then.';
comment on column polar.checkout_request.leased_until is 'Until when the present try owns it.';
comment on column polar.checkout_request.posted_at is 'When a call to create the session began whose outcome is not known; null where there is none.';
comment on column polar.checkout_request.job_id is 'The River job that works it.';

create table polar.api_key (
    id           bigint generated always as identity,
    name         text not null,
    hash         bytea not null,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    constraint api_key_pkey primary key (id),
    constraint api_key_hash_key unique (hash),
    constraint api_key_name_check check (char_length(name) between 1 and 100),
    constraint api_key_hash_check check (octet_length(hash) = 32)
);
create unique index api_key_live_name_idx on polar.api_key (name) where revoked_at is null;
comment on table polar.api_key is 'Keys with which the product''s apps come to /v1 of the worker. A key itself is kept nowhere.';
comment on column polar.api_key.id is 'Number of the key.';
comment on column polar.api_key.name is 'Which app has it; unique among keys that are not revoked.';
comment on column polar.api_key.hash is 'SHA-256 of the key, which is 256 random bits.';
comment on column polar.api_key.created_at is 'When it was made.';
comment on column polar.api_key.last_used_at is 'When it last opened the door, to the minute; null if never.';
comment on column polar.api_key.revoked_at is 'Since when it opens nothing; null while it does.';

-- Ingest, which the internet reaches, may store bodies and read none. What it has to know of those that are here, it asks.
create function polar.event_has_body(seq bigint) returns boolean
    language sql stable
    security definer
    set search_path = pg_catalog, pg_temp
    as $$ select l.body is not null from polar.event_log l where l.seq = event_has_body.seq $$;
comment on function polar.event_has_body(bigint) is 'Whether the body of an event is still kept.';

create function polar.restore_events(webhook_ids text[], bodies text[], body_bytes bytea[], notify boolean) returns bigint
    language sql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
        with given as (
            select g.webhook_id, g.body, g.body_bytes
              from unnest(restore_events.webhook_ids, restore_events.bodies, restore_events.body_bytes) as g(webhook_id, body, body_bytes)
        ), restored as (
            update polar.event_log l
               set body = g.body, body_bytes = nullif(g.body_bytes, '')
              from given g
             where l.webhook_id = g.webhook_id
               and l.body is null
               and exists (select from polar.event_outcome o where o.seq = l.seq and o.state = 'failed')
            returning l.seq
        ), noted as (
            update polar.event_prune p
               set left_over = p.left_over || array(select r.seq from restored r)
             where p.what = 'body' and exists (select from restored)
        ), job as (
            insert into polar.river_job (kind, args, queue, max_attempts)
            select 'apply_events', jsonb_build_object('events', jsonb_agg(r.seq)), 'events', 1000
              from restored r
            having count(*) > 0
            returning id
        ), woken as materialized (
            select pg_notify('polar.river_insert', '{"queue":"events"}')::text as done
             where restore_events.notify and exists (select from job)
        )
        select (select count(*) from restored) + 0 * (select count(*) from woken)
    $$;
comment on function polar.restore_events(text[], text[], bytea[], boolean) is 'Gives failed events that are no longer kept whole the bodies of their redeliveries, and a job; their turn to be pruned comes again. Returns how many.';
comment on column polar.checkout_request.created_at is 'When it was asked for.';
comment on column polar.checkout_request.updated_at is 'When this row last changed.';

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

create table polar.checkout_field (
    name  text not null,
    extra boolean not null default false,
    constraint checkout_field_pkey primary key (name)
);
insert into polar.checkout_field (name)
select unnest(array[
    'products', 'prices', 'external_customer_id', 'customer_id', 'customer_name', 'customer_email', 'customer_ip_address',
    'customer_billing_name', 'customer_billing_address', 'customer_tax_id', 'customer_metadata', 'metadata', 'discount_id',
    'allow_discount_codes', 'require_billing_address', 'amount', 'seats', 'min_seats', 'max_seats', 'units', 'min_units',
    'max_units', 'allow_trial', 'trial_interval', 'trial_interval_count', 'is_business_customer', 'subscription_id',
    'success_url', 'return_url', 'embed_origin', 'locale', 'currency', 'custom_field_data']);
comment on table polar.checkout_field is 'Names that polar.create_checkout knows at the top level of params. Polar ignores what it does not know, so a typo would lose the link.';
comment on column polar.checkout_field.name is 'Name of the field.';
comment on column polar.checkout_field.extra is 'Let pass by CHECKOUT_EXTRA_FIELDS, not by this release.';

-- A job that is written by SQL goes on in the trace of the transaction that writes it, where that says which it is:
-- set local polar.traceparent = '00-...', in W3C's form. River's clients name the metadata themselves.
alter table polar.river_job alter column metadata set default
    case when current_setting('polar.traceparent', true) ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
         then jsonb_build_object('traceparent', current_setting('polar.traceparent', true)) else '{}' end;

create function polar.create_checkout(params jsonb, key text default null) returns uuid
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
    as $$
declare
    request uuid;
    job     bigint;
    field   text;
begin
    if jsonb_typeof(params) is distinct from 'object' then
        raise exception using errcode = '22023', message = 'create_checkout: params is not a JSON object',
            hint = 'Give Polar''s checkout-create document, such as {"products": ["<product id>"]}.';
    end if;
    if key is not null and char_length(key) not between 1 and 255 then
        raise exception using errcode = '22023', message = format('create_checkout: key has %s characters', char_length(key)),
            hint = 'Give a key of 1 to 255 characters, or null.';
    end if;
    select min(name) into field
      from jsonb_object_keys(params) as name
     where not exists (select from polar.checkout_field f where f.name = name.name);
    if field is not null then
        raise exception using errcode = '22023', message = format('create_checkout: params has a field that Polar does not know: %s', left(field, 100)),
            hint = 'Polar would silently ignore it. Correct its name, or name it in CHECKOUT_EXTRA_FIELDS of the worker if it is newer than truenorth.';
    end if;
    if jsonb_typeof(params -> 'products') is distinct from 'array' or jsonb_array_length(params -> 'products') = 0 then
        raise exception using errcode = '22023', message = 'create_checkout: products is missing or no array of at least one product id',
            hint = 'Give products, an array of Polar''s product ids; the first one is preselected.';
    end if;
    if jsonb_typeof(params -> 'prices') not in ('object', 'null') then
        raise exception using errcode = '22023', message = 'create_checkout: prices is no object',
            hint = 'Give prices as an object of product id to an array of prices.';
    end if;
    if jsonb_typeof(params -> 'prices') = 'object' then
        select min(name) into field
          from jsonb_object_keys(params -> 'prices') as name
         where not exists (select from jsonb_array_elements_text(params -> 'products') p where lower(p) = lower(name.name));
        if field is not null then
            raise exception using errcode = '22023', message = format('create_checkout: prices names a product that is not in products: %s', left(field, 100)),
                hint = 'Every key of prices must be one of products.';
        end if;
    end if;

    for try in 1..10 loop
        request := gen_random_uuid();
        insert into polar.checkout_request (id, key, params) values (request, create_checkout.key, create_checkout.params)
            on conflict do nothing;
        if found then
            insert into polar.river_job (kind, args, queue, max_attempts)
                values ('create_checkout', jsonb_build_object('request_id', request, 'key', coalesce(create_checkout.key, '')), 'checkouts', 1000)
                returning id into job;
            update polar.checkout_request r set job_id = job where r.id = request;
            -- A buyer waits, so the worker is woken; equal notifications of one transaction are sent once.
            perform pg_notify('polar.river_insert', '{"queue":"checkouts"}');
            return request;
        end if;
        select r.id into request from polar.checkout_request r
         where r.key = create_checkout.key and r.state not in ('failed', 'expired');
        if found then
            return request;
        end if;
        -- The request that bore the key ended in between: the next try writes a new one.
    end loop;
    raise exception using errcode = '40001', message = 'create_checkout: the request with this key is being changed by another transaction',
        hint = 'Run the transaction again.';
end
$$;
comment on function polar.create_checkout(jsonb, text) is 'Asks for a checkout in the caller''s transaction: writes the request and its job, and returns the request''s id. The same key gives the same live request. Raises 22023 where params cannot be right.';

-- ---------------------------------------------------------------------------------------------
-- People.

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
comment on column polar.audit.action is 'What was done, such as link, unlink, resolve_conflict, resolve_drift, replay_events, retry_checkout, show_event, forget, create_key, revoke_key, map_users, mark_restored, jobs.';
comment on column polar.audit.subject is 'To what: customer, conflict, drift, event or checkout_request with its id, such as conflict 12, or key or table with its name.';
comment on column polar.audit.reason is 'Why, in the person''s words.';
comment on column polar.audit.detail is 'What else is to be known. Holds no personal data.';

-- ---------------------------------------------------------------------------------------------
-- Linking at sign-up.

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
    delete from polar.link_waiting w where w.customer_id = named[1];
    if basis = 'checkout' and exists (select from polar.customer c where c.id = named[1] and c.external_id is null) then
        insert into polar.river_job (kind, args, priority, max_attempts)
            values ('write_external_id', jsonb_build_object('customer_id', named[1]), 2, 1000);
        perform pg_notify('polar.river_insert', '{"queue":"default"}');
    end if;
    return 1;
end
$$;
comment on function polar.link_user(text) is 'Links a local user to the Polar customer that is theirs, in the caller''s transaction, which has written the user: at once where nothing speaks against it, else the worker decides after the commit. Never waits. Returns how many customers were linked at once.';

-- ---------------------------------------------------------------------------------------------
-- Reconciliation.

create table polar.reconcile_run (
    id           bigint generated always as identity,
    object_type  text not null,
    state        text not null default 'running',
    dry_run      boolean not null default false,
    started_at   timestamptz not null default now(),
    finished_at  timestamptz,
    seen         bigint not null default 0,
    drifted      bigint not null default 0,
    repaired     bigint not null default 0,
    error        text,
    full_sweep   boolean not null default true,
    since        timestamptz,
    total        bigint,
    benign       bigint not null default 0,
    refreshed    bigint not null default 0,
    listed_until timestamptz,
    cursor       jsonb not null default '{}',
    reached_end  boolean not null default false,
    job_id       bigint,
    updated_at   timestamptz not null default now(),
    constraint reconcile_run_pkey primary key (id),
    constraint reconcile_run_state_check check (state in ('running', 'finished', 'failed')),
    constraint reconcile_run_finished_check check ((state = 'running') = (finished_at is null))
);
create index reconcile_run_object_type_idx on polar.reconcile_run (object_type, id);
create index reconcile_run_finished_idx on polar.reconcile_run (object_type, finished_at desc) where state = 'finished';
comment on table polar.reconcile_run is 'Comparisons of Polar''s lists with the mirror.';
comment on column polar.reconcile_run.id is 'Number of the run.';
comment on column polar.reconcile_run.object_type is 'What was compared, such as customer.';
comment on column polar.reconcile_run.state is 'running, finished or failed.';
comment on column polar.reconcile_run.dry_run is 'Whether it only looked.';
comment on column polar.reconcile_run.started_at is 'When it began.';
comment on column polar.reconcile_run.finished_at is 'When it ended.';
comment on column polar.reconcile_run.seen is 'Objects compared.';
comment on column polar.reconcile_run.drifted is 'Differences found, a row of polar.drift each; benign ones are counted apart.';
comment on column polar.reconcile_run.repaired is 'Differences repaired, benign ones among them.';
comment on column polar.reconcile_run.error is 'Why it failed, or why the last try of one that runs did.';
comment on column polar.reconcile_run.full_sweep is 'Whether it looked at every page, and so for deletions; otherwise only at what is new or unfinished, or at what is no older than since.';
comment on column polar.reconcile_run.since is 'Objects older than this were left out; null: none.';
comment on column polar.reconcile_run.total is 'Objects that Polar said there are, for showing progress.';
comment on column polar.reconcile_run.benign is 'Differences that are no fault: checkouts that their buyers abandoned.';
comment on column polar.reconcile_run.refreshed is 'Documents written anew that differed in no column: an embedded object had changed, or Polar''s form had.';
comment on column polar.reconcile_run.listed_until is 'Everything up to this time (of creation; of the start for subscriptions) was listed, by Polar''s clock.';
comment on column polar.reconcile_run.cursor is 'Where it goes on after a crash.';
comment on column polar.reconcile_run.reached_end is 'Whether it looked at all there is, even if it could not repair all.';
comment on column polar.reconcile_run.job_id is 'The River job that works it; null for one of the command line.';
comment on column polar.reconcile_run.updated_at is 'Its last step.';

create table polar.reconcile_lease (
    only_row boolean not null default true,
    holder   text,
    until    timestamptz,
    constraint reconcile_lease_pkey primary key (only_row),
    constraint reconcile_lease_only_row_check check (only_row)
) with (fillfactor = 50);
insert into polar.reconcile_lease default values;
comment on table polar.reconcile_lease is 'Who reconciles now: one at a time across all hosts.';
comment on column polar.reconcile_lease.holder is 'The process that reconciles.';
comment on column polar.reconcile_lease.until is 'Until when it holds the place unless it says more; a killed one is free by then.';

create table polar.reconcile_mark (
    run_id    bigint not null,
    kind      text not null,
    object_id uuid not null,
    constraint reconcile_mark_pkey primary key (run_id, kind, object_id),
    constraint reconcile_mark_kind_check check (kind in ('boundary', 'suspect'))
);
comment on table polar.reconcile_mark is 'The few objects that a running sweep has to remember; empty when none runs.';
comment on column polar.reconcile_mark.run_id is 'The reconcile_run.';
comment on column polar.reconcile_mark.kind is 'boundary: seen, and as old as the last object of the last page. suspect: not seen, and Polar has no read by id to tell whether it is gone: a second sweep has to miss it too.';
comment on column polar.reconcile_mark.object_id is 'Polar''s id of the object.';

create table polar.drift (
    id          bigint generated always as identity,
    run_id      bigint,
    object_type text not null,
    object_id   text not null,
    field       text not null,
    local       text,
    remote      text,
    cause       text not null,
    detected_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolution  text,
    constraint drift_pkey primary key (id),
    constraint drift_resolution_check check ((resolved_at is null) = (resolution is null))
);
create unique index drift_open_idx on polar.drift (object_type, object_id, field, (cause = 'duplicate_session')) where resolved_at is null;
create index drift_object_idx on polar.drift (object_id);
create index drift_unresolved_idx on polar.drift (id) where resolved_at is null;
create index drift_cause_idx on polar.drift (cause, id) where resolved_at is null;
comment on table polar.drift is 'Every difference between Polar and the mirror that was found, with its cause.';
comment on column polar.drift.id is 'Number of the difference.';
comment on column polar.drift.run_id is 'The reconcile_run that found it; null where the worker met it in passing.';
comment on column polar.drift.object_type is 'Type of the object, such as checkout.';
comment on column polar.drift.object_id is 'Polar''s id of the object.';
comment on column polar.drift.field is 'The column that differed; id where the whole object was missing here, deleted_at where it is gone at Polar.';
comment on column polar.drift.local is 'Its value here; of a personal value only its length.';
comment on column polar.drift.remote is 'Its value at Polar; of a personal value only its length.';
comment on column polar.drift.cause is 'Why, as far as can be told. missed_create, missed_update, missed_delete: Polar''s event never came. endpoint_disabled: it happened during an endpoint_outage. stale_apply: the event is stored but not applied. local_only: Polar knows no such object. altered: same version, other content. refused: Postgres refuses the document. duplicate_session: a second session of one request. benign_abandoned: a checkout that its buyer left.';
comment on column polar.drift.detected_at is 'When it was found.';
comment on column polar.drift.resolved_at is 'When it was resolved; null while open.';
comment on column polar.drift.resolution is 'How it was resolved. repaired: by a sweep. in_step: it was gone by itself when looked at again. ended: the second session is over. Or a person''s words.';

create table polar.endpoint_outage (
    id       bigint generated always as identity,
    reason   text not null,
    began_at timestamptz not null,
    ended_at timestamptz,
    constraint endpoint_outage_pkey primary key (id)
);
create unique index endpoint_outage_open_idx on polar.endpoint_outage ((true)) where ended_at is null;
comment on table polar.endpoint_outage is 'Times in which Polar did not send what it should: what happened then is never sent, and only a sweep finds it.';
comment on column polar.endpoint_outage.id is 'Number of the outage.';
comment on column polar.endpoint_outage.reason is 'What was wrong with the endpoint: disabled, missing, wrong_format or events_missing; edited where nobody saw what was, between two looks.';
comment on column polar.endpoint_outage.began_at is 'When it was last known to be ok, by Polar''s clock: it went wrong after that.';
comment on column polar.endpoint_outage.ended_at is 'When it was first seen to be ok again, by Polar''s clock; null while it goes on.';

create table polar.endpoint_watch (
    only_row     boolean not null default true,
    state        text not null,
    findings     jsonb not null,
    endpoint_id  uuid,
    checked_at   timestamptz not null default now(),
    since        timestamptz not null default now(),
    last_ok_at   timestamptz,
    alarmed_at   timestamptz,
    reenabled_at timestamptz,
    catch_up     boolean not null default false,
    constraint endpoint_watch_pkey primary key (only_row),
    constraint endpoint_watch_only_row_check check (only_row),
    constraint endpoint_watch_state_check check (state in ('ok', 'dark', 'unknown'))
) with (fillfactor = 50);
comment on table polar.endpoint_watch is 'What the last look at Polar''s webhook endpoint found; no row before the first one.';
comment on column polar.endpoint_watch.state is 'ok: Polar sends every type of event. dark: some or all are not sent. unknown: it could not be told.';
comment on column polar.endpoint_watch.findings is 'What is wrong, worst first: a list of {finding, detail, advice}.';
comment on column polar.endpoint_watch.endpoint_id is 'Polar''s id of the endpoint; null where there is none, or it is not known which one is ours.';
comment on column polar.endpoint_watch.checked_at is 'When it was last looked at, by the database''s clock.';
comment on column polar.endpoint_watch.since is 'When the state was first found, by the database''s clock.';
comment on column polar.endpoint_watch.last_ok_at is 'When it was last seen to be ok, by Polar''s clock; null while it never was.';
comment on column polar.endpoint_watch.alarmed_at is 'When the log was last told of what is wrong.';
comment on column polar.endpoint_watch.reenabled_at is 'When it was last enabled again, or that was last refused (POLAR_REENABLE_ENDPOINT).';
comment on column polar.endpoint_watch.catch_up is 'Whether a full sweep has yet to be asked for, as one was at work already when it should have been.';

create table polar.gap_fill (
    only_row     boolean not null default true,
    filled_until timestamptz,
    ran_at       timestamptz not null default now(),
    error        text,
    constraint gap_fill_pkey primary key (only_row),
    constraint gap_fill_only_row_check check (only_row)
) with (fillfactor = 50);
comment on table polar.gap_fill is 'How far Polar''s list of failed deliveries has been searched for events that never arrived; no row before the first search.';
comment on column polar.gap_fill.filled_until is 'Up to when all is searched for good, by Polar''s clock; the last hour before a search is searched again.';
comment on column polar.gap_fill.ran_at is 'When it was last searched, by the database''s clock.';
comment on column polar.gap_fill.error is 'Why the last search failed; null if it did not.';

create table polar.gap_filled (
    webhook_id text not null,
    how        text not null,
    filled_at  timestamptz not null default now(),
    constraint gap_filled_pkey primary key (webhook_id),
    constraint gap_filled_how_check check (how in ('stored', 'redelivered', 'unusable'))
);
comment on table polar.gap_filled is 'Events that never arrived and were found in Polar''s list of failed deliveries.';
comment on column polar.gap_filled.webhook_id is 'Polar''s id of the event, as in event_log.';
comment on column polar.gap_filled.how is 'stored: from the list, into event_log. redelivered: Polar was asked to send it again. unusable: Polar has nothing of it that can be read.';
comment on column polar.gap_filled.filled_at is 'When.';

-- ---------------------------------------------------------------------------------------------
-- Comparing the mirror with what a read of Polar shows.

-- What each read document differs in from the stored row, by the columns that are generated from documents. The
-- expressions come from the catalog, so a new column is compared without a word here. Rows that are newer than the
-- read are left out: an event came meanwhile.
create function polar.compare_objects(
    object_type text, ids uuid[], docs jsonb[], read_at timestamptz,
    out id uuid, out state text, out field text, out local text, out remote text,
    out local_changed_at timestamptz, out remote_changed_at timestamptz
) returns setof record
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
    as $$
declare
    fields text;
begin
    select string_agg(format('(%L, o.%I::text, (select (%s)::text from (select r.doc) as x (doc)))', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid)), ', ' order by a.attnum)
      into fields
      from pg_attribute a
      join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = format('polar.%I', object_type)::regclass and a.attgenerated = 's';
    return query execute format($sql$
        with r as (
            select u.id, case when exists (select from polar.forgotten_customer) then polar.stored_doc($4, u.doc) else u.doc end as doc,
                   coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at')) as changed_at
              from unnest($1, $2) as u (id, doc)
        ), met as (
            select r.id, r.doc, r.changed_at, o.id is null as missing, o.tombstone
              from r
              left join polar.%1$I o on o.id = r.id
             where o.id is null
                or o.tombstone
                or ((o.doc is distinct from r.doc or o.deleted_at is distinct from polar.json_time(r.doc, 'deleted_at'))
                    and coalesce((o.version_modified_at, o.version_at) <= (r.changed_at, $3), true) %3$s)
        )
        select r.id, 'missing', 'id', null, r.id::text, null::timestamptz, r.changed_at from met r where r.missing
        union all
        select r.id, 'buried', 'deleted_at', o.deleted_at::text, null, o.version_modified_at, r.changed_at
          from met r join polar.%1$I o on o.id = r.id where not r.missing and r.tombstone
        union all
        select r.id, case when v.name is null then 'document' else 'differs' end, v.name, v.local, v.remote, o.version_modified_at, r.changed_at
          from met r
          join polar.%1$I o on o.id = r.id
          left join lateral (select f.name, f.local, f.remote from (values %2$s, ('deleted_at', o.deleted_at::text, polar.json_time(r.doc, 'deleted_at')::text)) as f (name, local, remote) where f.local is distinct from f.remote) v on true
         where not r.missing and not r.tombstone
    $sql$, object_type, fields,
        -- A newer state is laid over the document: see customer_state.
        case object_type when 'customer' then
            'and not exists (select from polar.customer_state s where s.customer_id = r.id and (s.version_modified_at, s.version_at) > (r.changed_at, $3))'
        else '' end)
    using ids, docs, read_at, object_type;
end
$$;
comment on function polar.compare_objects(text, uuid[], jsonb[], timestamptz) is 'What documents that were read from Polar differ in from the mirror: missing here, buried here, differs in a column (a row each), or only in the rest of the document.';

-- Living rows of a range of the sort key that a sweep of the list has not seen. A null bound is none; rows without a
-- key come with the range that has no end.
create function polar.unseen_objects(
    object_type text, sort_key text, from_key timestamptz, until_key timestamptz, seen uuid[], run_id bigint, after_id uuid, max_rows integer
) returns setof uuid
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format($sql$
        select o.id
          from polar.%1$I o
         where %2$s
           and o.deleted_at is null
           and not o.tombstone
           and o.id <> all ($3)
           and o.id > $5
           and not exists (select from polar.reconcile_mark m where m.run_id = $4 and m.kind = 'boundary' and m.object_id = o.id)
           %3$s
         order by o.id
         limit $6
    $sql$, object_type,
        case when until_key is not null then format('o.%1$I >= coalesce($1, ''-infinity'') and o.%1$I < $2', sort_key)
             when from_key is not null then format('(o.%1$I >= $1 or o.%1$I is null)', sort_key)
             else 'true' end,
        case object_type when 'checkout' then $sql$and (o.status in ('open', 'confirmed') or o.status is null)$sql$ else '' end)
    using from_key, until_key, seen, run_id, after_id, max_rows;
end
$$;
comment on function polar.unseen_objects(text, text, timestamptz, timestamptz, uuid[], bigint, uuid, integer) is 'Living objects of a range that a sweep has not seen: gone at Polar, or new since. Of checkouts only those that are not over.';

-- Makes tombstones of objects that Polar does not have any more; the ids that lived until now.
create function polar.bury_objects(object_type text, ids uuid[], buried_at timestamptz) returns setof uuid
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format($sql$
        update polar.%1$I o
           set tombstone = true, deleted_at = coalesce(o.deleted_at, $2, now()), version_at = greatest(o.version_at, $2), version_from = 'read',
               version_webhook_id = null, synced_at = now()
         where o.id = any ($1) and not o.tombstone
        returning o.id
    $sql$, object_type)
    using ids, nullif(buried_at, '0001-01-01 00:00:00+00'); -- Go's zero time
end
$$;
comment on function polar.bury_objects(text, uuid[], timestamptz) is 'Makes tombstones of objects that are gone at Polar.';

-- Which version of some objects is stored, by Polar's clock.
create function polar.object_versions(object_type text, ids uuid[], out id uuid, out version_at timestamptz) returns setof record
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format('select o.id, o.version_at from polar.%I o where o.id = any ($1)', object_type) using ids;
end
$$;
comment on function polar.object_versions(text, uuid[]) is 'Polar''s clock for the stored versions of objects.';

-- ---------------------------------------------------------------------------------------------
-- Forgetting a customer.

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
comment on function polar.forget_customer(uuid, text, text) is 'Takes a customer''s personal data out of the mirror and the ledgers, for good; says how many rows of each table. The events are `truenorth forget`''s to blank.';

-- ---------------------------------------------------------------------------------------------
-- The processes that share this database.

create table polar.mirrored_organization (
    only_row        boolean not null default true,
    organization_id uuid not null,
    pinned_at       timestamptz not null default now(),
    constraint mirrored_organization_pkey primary key (only_row),
    constraint mirrored_organization_only_row_check check (only_row)
);
comment on table polar.mirrored_organization is 'The one organization of Polar that this database mirrors: sandbox and production never mix.';
comment on column polar.mirrored_organization.organization_id is 'Polar''s id of the organization; set by the first document that names one.';
comment on column polar.mirrored_organization.pinned_at is 'When it was set.';

create table polar.worker_process (
    id         text not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    constraint worker_process_pkey primary key (id)
) with (fillfactor = 50);
comment on table polar.worker_process is 'Workers that are alive: what a dead one held is given to another.';
comment on column polar.worker_process.id is 'The worker''s id, as in river_job.attempted_by.';
comment on column polar.worker_process.started_at is 'When it started.';
comment on column polar.worker_process.seen_at is 'Its last sign of life.';

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

create table polar.api_budget (
    only_row      boolean not null default true,
    tokens        double precision not null,
    refilled_at   timestamptz not null default now(),
    blocked_until timestamptz,
    constraint api_budget_pkey primary key (only_row),
    constraint api_budget_only_row_check check (only_row)
) with (fillfactor = 50);
insert into polar.api_budget (tokens, refilled_at) values (0, 'epoch');
comment on table polar.api_budget is 'Requests to Polar''s API that all processes together may make now.';
comment on column polar.api_budget.tokens is 'Requests left.';
comment on column polar.api_budget.refilled_at is 'When tokens was last brought up to date.';
comment on column polar.api_budget.blocked_until is 'Polar told us to wait until then.';

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

-- ---------------------------------------------------------------------------------------------
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

-- Who may be concerned by what was touched, found from both ends of every tie; then each of them is compared with what they
-- were told. A few users too many cost a look; one too few would cost a customer.
create function polar.tell_changes(max_users integer, walk_every interval, out told integer, out more boolean)
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
