-- name: LocalUserRowInsertMany :exec
insert into polar.local_user_row (id, email)
select unnest(@ids::text[]), nullif(unnest(@emails::text[]), '')
on conflict do nothing;
