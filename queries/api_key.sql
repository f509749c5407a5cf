-- name: APIKeyInsert :execrows
insert into polar.api_key (name, hash) values (@name, @hash)
on conflict (name) where revoked_at is null do nothing;

-- name: APIKeyList :many
select k.name, k.created_at, k.last_used_at, k.revoked_at
  from polar.api_key k
 order by k.revoked_at is not null, k.name, k.created_at;

-- name: APIKeyRevoke :execrows
update polar.api_key k set revoked_at = now() where k.name = @name and k.revoked_at is null;

-- name: APIKeyUse :one
-- The name of a key that opens the door. Its use is noted once a minute, by one of those who come at once.
with found as (
    select k.id, k.name, k.last_used_at from polar.api_key k where k.hash = @hash and k.revoked_at is null
), stale as (
    select k.id
      from polar.api_key k
      join found f on f.id = k.id
     where coalesce(f.last_used_at < now() - interval '1 minute', true)
       for update of k skip locked
), used as (
    update polar.api_key k set last_used_at = now() from stale s where k.id = s.id
)
select f.name from found f;
