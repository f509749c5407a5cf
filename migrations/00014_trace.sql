-- +goose Up
-- +goose StatementBegin
-- A job that is written by SQL goes on in the trace of the transaction that writes it, where that says which it is:
-- set local polar.traceparent = '00-...', in W3C's form. River's clients name the metadata themselves.
set local lock_timeout = '2s'; -- rather not now than with every delivery waiting behind this
alter table polar.river_job alter column metadata set default
    case when current_setting('polar.traceparent', true) ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
         then jsonb_build_object('traceparent', current_setting('polar.traceparent', true)) else '{}' end;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
alter table polar.river_job alter column metadata set default '{}';
-- +goose StatementEnd
