-- +goose NO TRANSACTION
-- +goose Up
drop index concurrently if exists polar.checkout_request_key_idx;
create index concurrently checkout_request_key_idx on polar.checkout_request using hash (key) where key is not null;

-- +goose Down
drop index concurrently polar.checkout_request_key_idx;
