-- +goose Up
-- +goose StatementBegin
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
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop function polar.restore_events(text[], text[], bytea[], boolean);
drop function polar.event_has_body(bigint);
drop table polar.api_key;
-- +goose StatementEnd
