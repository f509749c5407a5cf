# Mallory pays with Ada's e-mail address: events as Polar would send them, about a checkout that truenorth created.
psql -q "$DATABASE_URL" <<'SQL'
insert into polar.checkout_request (id, params, state, checkout_id, url, expires_at, created_at) values ('0198c0de-0000-4000-8000-00000000000f',
    '{"products": ["5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01"], "external_customer_id": "usr_mallory"}', 'open',
    '0198c0de-0000-4000-8000-0000000000a1', 'https://polar.sh/checkout/a1', '2026-08-21T09:00:00Z', '2026-08-20T08:59:59Z');
SQL
truenorth webhook send --url http://127.0.0.1:8080/webhooks/polar - <<'EVENT'
{"type": "customer.created", "timestamp": "2026-08-01T09:00:01Z", "data": {"id": "0198c0de-0000-4000-8000-0000000000c1",
 "email": "ada@example.com", "external_id": null, "created_at": "2026-08-01T09:00:00Z"}}
EVENT
truenorth webhook send --url http://127.0.0.1:8080/webhooks/polar - <<'EVENT'
{"type": "checkout.updated", "timestamp": "2026-08-20T09:00:02Z", "data": {"id": "0198c0de-0000-4000-8000-0000000000a1",
 "status": "succeeded", "customer_id": "0198c0de-0000-4000-8000-0000000000c1", "external_customer_id": "usr_mallory",
 "created_at": "2026-08-20T09:00:00Z", "metadata": {"truenorth_request": "0198c0de-0000-4000-8000-00000000000f"}}}
EVENT
until truenorth conflicts list | grep -q email_match; do :; done
