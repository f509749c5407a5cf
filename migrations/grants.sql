-- What each of the roles may do, given anew after every migration. A role that is not there is left out.
do $$
declare
    role      text;
    relation  record;
    shown     text;
begin
    foreach role in array array['polar_ingest', 'polar_worker', 'polar_app', 'polar_read'] loop
        continue when to_regrole(role) is null;
        -- What somebody else made in the schema is that one's to grant.
        for relation in
            select c.relname from pg_class c
             where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') and pg_has_role(c.relowner, 'usage')
        loop
            execute format('revoke all on polar.%I from %I', relation.relname, role);
        end loop;
        execute format('revoke all on schema polar from %I', role);
        execute format('grant usage on schema polar to %I', role);
        -- For `truenorth doctor`.
        execute format('grant select on polar.schema_version, polar.river_migration to %I', role);
    end loop;

    -- Functions that run with their owner's rights are for whom they are meant, not for everybody.
    if to_regrole('polar_app') is not null then
        revoke execute on function polar.create_checkout(jsonb, text), polar.link_user(text) from public;
        grant execute on function polar.create_checkout(jsonb, text), polar.link_user(text) to polar_app;
    end if;

    -- Ingest stores events with their jobs, and reads no body.
    if to_regrole('polar_ingest') is not null then
        revoke execute on function polar.event_has_body(bigint), polar.restore_events(text[], text[], bytea[], boolean) from public;
        grant execute on function polar.event_has_body(bigint), polar.restore_events(text[], text[], bytea[], boolean) to polar_ingest;
        grant insert, select (seq, webhook_id, type, object_id, occurred_at, received_at, batch) on polar.event_log to polar_ingest;
        grant select on polar.event_outcome to polar_ingest;
        grant select (id), insert on polar.river_job to polar_ingest;
        grant usage on sequence polar.event_batch, polar.river_job_id_seq to polar_ingest;
    end if;

    -- The worker reads and writes all of it, but owns nothing.
    if to_regrole('polar_worker') is not null then
        revoke execute on function polar.tell_changes(integer, interval) from public;
        grant execute on function polar.tell_changes(integer, interval) to polar_worker;
        for relation in
            select c.relname, c.relkind from pg_class c
             where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') and pg_has_role(c.relowner, 'usage')
               and c.relname not in ('schema_version', 'river_migration')
        loop
            execute format('grant %s on polar.%I to polar_worker',
                           case when relation.relkind = 'S' then 'usage, select, update' else 'select, insert, update, delete' end, relation.relname);
        end loop;
        grant execute on function polar.create_checkout(jsonb, text), polar.link_user(text), polar.event_has_body(bigint),
                                  polar.restore_events(text[], text[], bytea[], boolean) to polar_worker;
    end if;

    -- Apps enqueue, by function or with a River client of their own, and read all but events and keys.
    if to_regrole('polar_app') is not null then
        for relation in
            select c.relname from pg_class c
             where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and pg_has_role(c.relowner, 'usage')
               and c.relname not like 'river\_%' and c.relname not in ('event', 'event_log', 'api_key')
        loop
            execute format('grant select on polar.%I to polar_app', relation.relname);
        end loop;
        grant select, insert, update (kind) on polar.river_job to polar_app;
        grant usage on sequence polar.river_job_id_seq to polar_app;
    end if;

    -- Readers see every column but documents, bodies and the URLs of checkouts, with which a stranger's can be changed. Where all columns are shown, `select *` works too.
    if to_regrole('polar_read') is not null then
        for relation in
            select c.oid, c.relname from pg_class c
             where c.relnamespace = 'polar'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and pg_has_role(c.relowner, 'usage')
               and c.relname not like 'river\_%' and c.relname <> 'api_key'
        loop
            select string_agg(quote_ident(a.attname), ', ') into shown
              from pg_attribute a
             where a.attrelid = relation.oid and a.attnum > 0 and not a.attisdropped
               and a.atttypid not in ('json'::regtype, 'jsonb'::regtype, 'bytea'::regtype) and a.attname not in ('body', 'url');
            continue when shown is null;
            execute format('grant select (%s) on polar.%I to polar_read', shown, relation.relname);
        end loop;
    end if;
end
$$;
