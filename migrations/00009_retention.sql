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
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop table polar.event_prune;
update polar.event_log set body = '{}' where body is null;
alter table polar.event_log alter column body set not null;
comment on table polar.event_log is 'Events as received; rows are written once, but for what is blanked of a forgotten customer. Read the view polar.event.';
comment on column polar.event_log.body is 'The body as received, less the personal data of forgotten customers. Holds personal data and checkout secrets.';
comment on column polar.event.body is 'The body as received; body::jsonb reads it. Holds personal data and checkout secrets.';
-- +goose StatementEnd
