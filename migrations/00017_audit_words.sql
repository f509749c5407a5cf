-- +goose Up
comment on column polar.audit.action is 'What was done, such as link, unlink, resolve_conflict, resolve_drift, replay_events, retry_checkout, show_event, forget, create_key, revoke_key, map_users, mark_restored, jobs.';
comment on column polar.audit.subject is 'To what: customer, conflict, drift, event or checkout_request with its id, such as conflict 12, or key or table with its name.';
comment on column polar.reconcile_run.full_sweep is 'Whether it looked at every page, and so for deletions; otherwise only at what is new or unfinished, or at what is no older than since.';

-- +goose Down
comment on column polar.audit.action is 'What was done, such as link, unlink, resolve_conflict, resolve_drift, replay_events, retry_checkout, show_event, jobs.';
comment on column polar.audit.subject is 'To what: customer, conflict, drift, event or checkout_request with its id, such as conflict 12.';
comment on column polar.reconcile_run.full_sweep is 'Whether it looked at every page, and so for deletions; otherwise only at what is new or unfinished.';
