-- +goose Up
-- +goose StatementBegin
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

comment on column polar.endpoint_outage.reason is 'What was wrong with the endpoint: disabled, missing, wrong_format or events_missing; edited where nobody saw what was, between two looks.';
comment on column polar.endpoint_outage.began_at is 'When it was last known to be ok, by Polar''s clock: it went wrong after that.';
comment on column polar.endpoint_outage.ended_at is 'When it was first seen to be ok again, by Polar''s clock; null while it goes on.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop table polar.gap_filled;
drop table polar.gap_fill;
drop table polar.endpoint_watch;
comment on column polar.endpoint_outage.reason is 'What was wrong with the endpoint: disabled, missing, wrong_format or events_missing.';
comment on column polar.endpoint_outage.began_at is 'From when at the latest it was so, by Polar''s clock.';
comment on column polar.endpoint_outage.ended_at is 'Until when; null while it goes on.';
-- +goose StatementEnd
