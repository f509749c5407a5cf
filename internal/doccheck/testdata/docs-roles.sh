# The users that the product has already, and none left by a run before.
psql -q "$DATABASE_URL" -c "drop role if exists shop_ingest, shop_worker, shop, analyst" -c "create role shop" -c "create role analyst"
