# The customer whom the page forgets.
truenorth webhook send --url http://127.0.0.1:8080/webhooks/polar - <<'EVENT'
{"type": "customer.created", "timestamp": "2026-10-01T09:00:00Z", "data": {"id": "5b1c3a52-6f0e-4c55-9f4c-0a4a3f7d1c01",
 "email": "ada@example.com", "external_id": "usr_ada", "created_at": "2026-10-01T09:00:00Z"}}
EVENT
until truenorth status | grep -q "events waiting *0$"; do :; done
