-- name: LocalUserRowInsertMany :exec
insert into polar.local_user_row (id, email)
select unnest(@ids::text[]), nullif(unnest(@emails::text[]), '')
on conflict do nothing;

-- name: LocalUserAccess :one
-- What a user may use now, each row of user_access as an object with its columns' names; is_live tells whether there is such a user.
select coalesce((select jsonb_agg(to_jsonb(a) - 'local_user_id' order by a.kind, a.starts_at, a.object_id) from polar.user_access a where a.local_user_id = @id::text), '[]')::jsonb as access,
       exists (select from polar.local_user u where u.id = @id::text and u.deleted_at is null)::boolean as is_live;
