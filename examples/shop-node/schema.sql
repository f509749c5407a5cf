-- The shop's own tables. Run at every start, so it changes nothing that is there.

create table if not exists users (
    id            text primary key,
    email         text not null,
    password_hash text not null,
    created_at    timestamptz not null default now()
);
create unique index if not exists users_email_idx on users (lower(email));
comment on table users is 'Who signed up. `truenorth users map --table public.users --created-at created_at` shows them to truenorth.';
comment on column users.id is 'What Polar knows as the customer''s external id.';

create table if not exists sessions (
    token_hash bytea primary key,
    user_id    text not null references users on delete cascade,
    expires_at timestamptz not null
);
create index if not exists sessions_expires_at_idx on sessions (expires_at);
comment on table sessions is 'Who is signed in. Visitors have no row.';
comment on column sessions.token_hash is 'SHA-256 of the cookie, so that nobody signs in with what a backup holds.';

create table if not exists orders (
    id         uuid primary key,
    user_id    text not null,
    product_id uuid not null,
    request_id uuid,
    created_at timestamptz not null default now(),
    closed_at  timestamptz
);
-- One at a time: however often somebody presses the button, there is one order and one checkout.
create unique index if not exists orders_open_idx on orders (user_id, product_id) where closed_at is null;
comment on table orders is 'Who wanted to buy what. Whether it is paid stands in polar.checkout_request, and what it gives in polar.user_access.';
comment on column orders.user_id is 'Who buys. No foreign key: a visitor gets the row in users, under this id, only by signing up.';
comment on column orders.request_id is 'The row of polar.checkout_request, whose key is the order''s id.';
comment on column orders.closed_at is 'When it made room for another order.';
