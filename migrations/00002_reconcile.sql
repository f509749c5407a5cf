-- +goose Up
-- +goose StatementBegin
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
comment on column polar.endpoint_outage.reason is 'What was wrong with the endpoint: disabled, missing, wrong_format or events_missing.';
comment on column polar.endpoint_outage.began_at is 'From when at the latest it was so, by Polar''s clock.';
comment on column polar.endpoint_outage.ended_at is 'Until when; null while it goes on.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop table polar.endpoint_outage;
-- +goose StatementEnd
