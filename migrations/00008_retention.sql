-- +goose Up
-- +goose StatementBegin
alter table polar.event_log alter column body drop not null;
comment on table polar.event_log is 'Events as received; rows are written once, but for what is blanked of a forgotten customer, and bodies that go before their rows do (EVENT_RETENTION). Read the view polar.event.';
comment on column polar.event_log.body is 'The body as received, less the personal data of forgotten customers; null once it is older than EVENT_RETENTION. Holds personal data and checkout secrets.';
comment on column polar.event.body is 'The body as received; body::jsonb reads it. Null once it is older than EVENT_RETENTION, where that is less than 90 days: then body::jsonb is null too, and the event cannot be applied again. Holds personal data and checkout secrets.';

create table polar.event_prune (
    what      text not null,
    seq       bigint not null default 0,
    left_over bigint[] not null default '{}',
    constraint event_prune_pkey primary key (what),
    constraint event_prune_what_check check (what in ('event', 'body'))
);
insert into polar.event_prune (what) values ('event'), ('body');
comment on table polar.event_prune is 'How far old events have been removed, so that none is looked at twice for nothing.';
comment on column polar.event_prune.what is 'event: whole events. body: only bodies, where EVENT_RETENTION is shorter than Polar can redeliver.';
comment on column polar.event_prune.seq is 'Every event up to this event_log.seq has been removed, but for left_over.';
comment on column polar.event_prune.left_over is 'Events up to seq that had no outcome yet, failed ones whose job was alive, and young ones among the old: they are looked at again.';

-- Both tables of events grow by inserts and shrink from their oldest end. Postgres would vacuum them when a fifth has
-- changed, which of ten million rows is two million. Vacuuming after inserts costs by what is new, as all that is seen to be
-- visible is left out, so it has a fixed measure: look-ups of outcomes then need no heap, and freezing never comes all at
-- once. After deletions it reads the indexes as a whole, so its measure stays a share, but a small one: 0.4 s for 40,000 of
-- 2 million.
alter table polar.event_log set (
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000
);
alter table polar.event_outcome set (
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000
);

-- Room for updates that leave the indexes alone (HOT), where it was measured to help. It counts for new pages.
alter table polar.customer set (fillfactor = 90);
alter table polar.customer_state set (fillfactor = 80);
alter table polar.benefit_grant set (fillfactor = 80);
alter table polar.member set (fillfactor = 80);

-- A good part of applying events is compressing documents: lz4 takes 8 % off the whole, for a tenth more room. It counts for
-- what is written from now on. A server that is built without it goes on with what it has.
do $$
declare
    c record;
begin
    for c in
        select k.relname, a.attname
          from pg_attribute a
          join pg_class k on k.oid = a.attrelid
         where k.relnamespace = 'polar'::regnamespace
           and (k.relname = 'event_log' and a.attname = 'body'
                or k.relname = any (array['customer', 'customer_state', 'checkout', 'order', 'subscription', 'refund', 'product', 'discount',
                                          'benefit', 'benefit_grant', 'member', 'customer_seat', 'organization'])
                   and a.attname = any (array['doc', 'base']))
    loop
        execute format('alter table polar.%I alter column %I set compression lz4', c.relname, c.attname);
    end loop;
exception when feature_not_supported then
    null;
end
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
do $$
declare
    c record;
begin
    for c in
        select k.relname, a.attname
          from pg_attribute a
          join pg_class k on k.oid = a.attrelid
         where k.relnamespace = 'polar'::regnamespace
           and (k.relname = 'event_log' and a.attname = 'body'
                or k.relname = any (array['customer', 'customer_state', 'checkout', 'order', 'subscription', 'refund', 'product', 'discount',
                                          'benefit', 'benefit_grant', 'member', 'customer_seat', 'organization'])
                   and a.attname = any (array['doc', 'base']))
    loop
        execute format('alter table polar.%I alter column %I set compression default', c.relname, c.attname);
    end loop;
end
$$;
alter table polar.member reset (fillfactor);
alter table polar.benefit_grant reset (fillfactor);
alter table polar.customer_state reset (fillfactor);
alter table polar.customer reset (fillfactor);
alter table polar.event_outcome reset (autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table polar.event_log reset (autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
drop table polar.event_prune;
update polar.event_log set body = '{}' where body is null;
alter table polar.event_log alter column body set not null;
comment on table polar.event_log is 'Events as received; rows are written once, but for what is blanked of a forgotten customer. Read the view polar.event.';
comment on column polar.event_log.body is 'The body as received, less the personal data of forgotten customers. Holds personal data and checkout secrets.';
comment on column polar.event.body is 'The body as received; body::jsonb reads it. Holds personal data and checkout secrets.';
-- +goose StatementEnd
