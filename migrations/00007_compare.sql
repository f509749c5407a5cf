-- +goose Up
-- +goose StatementBegin
-- ---------------------------------------------------------------------------------------------
-- Comparing the mirror with what a read of Polar shows.

-- What each read document differs in from the stored row, by the columns that are generated from documents. The
-- expressions come from the catalog, so a new column is compared without a word here. Rows that are newer than the
-- read are left out: an event came meanwhile.
create function polar.compare_objects(
    object_type text, ids uuid[], docs jsonb[], read_at timestamptz,
    out id uuid, out state text, out field text, out local text, out remote text,
    out local_changed_at timestamptz, out remote_changed_at timestamptz
) returns setof record
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
    as $$
declare
    fields text;
begin
    select string_agg(format('(%L, o.%I::text, (select (%s)::text from (select r.doc) as x (doc)))', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid)), ', ' order by a.attnum)
      into fields
      from pg_attribute a
      join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = format('polar.%I', object_type)::regclass and a.attgenerated = 's';
    return query execute format($sql$
        with r as (
            select u.id, case when exists (select from polar.forgotten_customer) then polar.stored_doc($4, u.doc) else u.doc end as doc,
                   coalesce(polar.json_time(u.doc, 'modified_at'), polar.json_time(u.doc, 'created_at')) as changed_at
              from unnest($1, $2) as u (id, doc)
        ), met as (
            select r.id, r.doc, r.changed_at, o.id is null as missing, o.tombstone
              from r
              left join polar.%1$I o on o.id = r.id
             where o.id is null
                or o.tombstone
                or ((o.doc is distinct from r.doc or o.deleted_at is distinct from polar.json_time(r.doc, 'deleted_at'))
                    and coalesce((o.version_modified_at, o.version_at) <= (r.changed_at, $3), true) %3$s)
        )
        select r.id, 'missing', 'id', null, r.id::text, null::timestamptz, r.changed_at from met r where r.missing
        union all
        select r.id, 'buried', 'deleted_at', o.deleted_at::text, null, o.version_modified_at, r.changed_at
          from met r join polar.%1$I o on o.id = r.id where not r.missing and r.tombstone
        union all
        select r.id, case when v.name is null then 'document' else 'differs' end, v.name, v.local, v.remote, o.version_modified_at, r.changed_at
          from met r
          join polar.%1$I o on o.id = r.id
          left join lateral (select f.name, f.local, f.remote from (values %2$s, ('deleted_at', o.deleted_at::text, polar.json_time(r.doc, 'deleted_at')::text)) as f (name, local, remote) where f.local is distinct from f.remote) v on true
         where not r.missing and not r.tombstone
    $sql$, object_type, fields,
        -- A newer state is laid over the document: see customer_state.
        case object_type when 'customer' then
            'and not exists (select from polar.customer_state s where s.customer_id = r.id and (s.version_modified_at, s.version_at) > (r.changed_at, $3))'
        else '' end)
    using ids, docs, read_at, object_type;
end
$$;
comment on function polar.compare_objects(text, uuid[], jsonb[], timestamptz) is 'What documents that were read from Polar differ in from the mirror: missing here, buried here, differs in a column (a row each), or only in the rest of the document.';

-- Living rows of a range of the sort key that a sweep of the list has not seen. A null bound is none; rows without a
-- key come with the range that has no end.
create function polar.unseen_objects(
    object_type text, sort_key text, from_key timestamptz, until_key timestamptz, seen uuid[], run_id bigint, after_id uuid, max_rows integer
) returns setof uuid
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format($sql$
        select o.id
          from polar.%1$I o
         where %2$s
           and o.deleted_at is null
           and not o.tombstone
           and o.id <> all ($3)
           and o.id > $5
           and not exists (select from polar.reconcile_mark m where m.run_id = $4 and m.kind = 'boundary' and m.object_id = o.id)
           %3$s
         order by o.id
         limit $6
    $sql$, object_type,
        case when until_key is not null then format('o.%1$I >= coalesce($1, ''-infinity'') and o.%1$I < $2', sort_key)
             when from_key is not null then format('(o.%1$I >= $1 or o.%1$I is null)', sort_key)
             else 'true' end,
        case object_type when 'checkout' then $sql$and (o.status in ('open', 'confirmed') or o.status is null)$sql$ else '' end)
    using from_key, until_key, seen, run_id, after_id, max_rows;
end
$$;
comment on function polar.unseen_objects(text, text, timestamptz, timestamptz, uuid[], bigint, uuid, integer) is 'Living objects of a range that a sweep has not seen: gone at Polar, or new since. Of checkouts only those that are not over.';

-- Makes tombstones of objects that Polar does not have any more; the ids that lived until now.
create function polar.bury_objects(object_type text, ids uuid[], buried_at timestamptz) returns setof uuid
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format($sql$
        update polar.%1$I o
           set tombstone = true, deleted_at = coalesce(o.deleted_at, $2, now()), version_at = greatest(o.version_at, $2), version_from = 'read',
               version_webhook_id = null, synced_at = now()
         where o.id = any ($1) and not o.tombstone
        returning o.id
    $sql$, object_type)
    using ids, nullif(buried_at, '0001-01-01 00:00:00+00'); -- Go's zero time
end
$$;
comment on function polar.bury_objects(text, uuid[], timestamptz) is 'Makes tombstones of objects that are gone at Polar.';

-- Which version of some objects is stored, by Polar's clock.
create function polar.object_versions(object_type text, ids uuid[], out id uuid, out version_at timestamptz) returns setof record
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    as $$
begin
    return query execute format('select o.id, o.version_at from polar.%I o where o.id = any ($1)', object_type) using ids;
end
$$;
comment on function polar.object_versions(text, uuid[]) is 'Polar''s clock for the stored versions of objects.';
create index subscription_seats_idx on polar.subscription (id) where seats is not null;
create index subscription_current_period_end_idx on polar.subscription (current_period_end) where status not in ('canceled', 'incomplete_expired');
create index order_seats_idx on polar."order" (id) where seats is not null and subscription_id is null;
create index order_unfinished_idx on polar."order" (created_at) where status in ('draft', 'pending');
drop index polar.drift_open_idx;
create unique index drift_open_idx on polar.drift (object_type, object_id, field, (cause = 'duplicate_session')) where resolved_at is null;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop index polar.drift_open_idx;
create unique index drift_open_idx on polar.drift (object_type, object_id, field, cause) where resolved_at is null;
drop index polar.subscription_seats_idx, polar.subscription_current_period_end_idx, polar.order_seats_idx, polar.order_unfinished_idx;
drop function polar.object_versions(text, uuid[]);
drop function polar.bury_objects(text, uuid[], timestamptz);
drop function polar.unseen_objects(text, text, timestamptz, timestamptz, uuid[], bigint, uuid, integer);
drop function polar.compare_objects(text, uuid[], jsonb[], timestamptz);
-- +goose StatementEnd
