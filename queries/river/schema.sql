-- River's tables, as far as our queries read or write them, for sqlc alone: a database gets them from
-- River's own migrations. A test compares the two.

create schema polar;

create type polar.river_job_state as enum ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');

create table polar.river_job (
    id            bigserial primary key,
    state         polar.river_job_state not null default 'available',
    attempt       smallint not null default 0,
    max_attempts  smallint not null default 25,
    attempted_at  timestamptz,
    created_at    timestamptz not null default now(),
    finalized_at  timestamptz,
    scheduled_at  timestamptz not null default now(),
    priority      smallint not null default 1,
    args          jsonb not null,
    attempted_by  text[],
    errors        jsonb[],
    kind          text not null,
    metadata      jsonb not null default '{}',
    queue         text not null default 'default',
    tags          varchar(255)[] not null default '{}',
    unique_key    bytea,
    unique_states bit(8)
);

create unlogged table polar.river_leader (
    elected_at timestamptz not null,
    expires_at timestamptz not null,
    leader_id  text not null,
    name       text primary key default 'default'
);
