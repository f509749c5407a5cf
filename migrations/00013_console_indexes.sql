-- Indexes are made beside what goes on, so that nothing waits for them. One that was begun and not ended is invalid, and is made anew.
-- +goose NO TRANSACTION
-- +goose Up
drop index concurrently if exists polar.event_log_type_idx;
create index concurrently event_log_type_idx on polar.event_log (type, seq);
drop index concurrently if exists polar.customer_newest_idx;
create index concurrently customer_newest_idx on polar.customer (created_at, id);
drop index concurrently if exists polar.checkout_request_newest_idx;
create index concurrently checkout_request_newest_idx on polar.checkout_request (created_at, id);
drop index concurrently if exists polar.checkout_request_state_idx;
create index concurrently checkout_request_state_idx on polar.checkout_request (state, created_at, id);
drop index concurrently if exists polar.link_conflict_unresolved_idx;
create index concurrently link_conflict_unresolved_idx on polar.link_conflict (id) where resolved_at is null;
drop index concurrently if exists polar.drift_unresolved_idx;
create index concurrently drift_unresolved_idx on polar.drift (id) where resolved_at is null;
drop index concurrently if exists polar.drift_cause_idx;
create index concurrently drift_cause_idx on polar.drift (cause, id) where resolved_at is null;
drop index concurrently if exists polar.local_user_row_email_idx;
create index concurrently local_user_row_email_idx on polar.local_user_row (lower(email));
drop index concurrently if exists polar.customer_created_at_idx;
drop index concurrently if exists polar.checkout_request_created_at_idx;

-- +goose Down
create index concurrently customer_created_at_idx on polar.customer using btree (created_at);
create index concurrently checkout_request_created_at_idx on polar.checkout_request (created_at);
drop index concurrently polar.event_log_type_idx;
drop index concurrently polar.customer_newest_idx;
drop index concurrently polar.checkout_request_newest_idx;
drop index concurrently polar.checkout_request_state_idx;
drop index concurrently polar.link_conflict_unresolved_idx;
drop index concurrently polar.drift_unresolved_idx;
drop index concurrently polar.drift_cause_idx;
drop index concurrently polar.local_user_row_email_idx;
