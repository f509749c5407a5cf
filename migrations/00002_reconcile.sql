-- +goose Up
-- +goose StatementBegin
alter table polar.reconcile_run
    add column full_sweep boolean not null default true,
    add column since timestamptz,
    add column total bigint,
    add column benign bigint not null default 0,
    add column refreshed bigint not null default 0,
    add column listed_until timestamptz,
    add column cursor jsonb not null default '{}',
    add column reached_end boolean not null default false,
    add column job_id bigint,
    add column updated_at timestamptz not null default now();
create index reconcile_run_object_type_idx on polar.reconcile_run (object_type, id);
comment on column polar.reconcile_run.id is 'Number of the run.';
comment on column polar.reconcile_run.object_type is 'What was compared, such as customer.';
comment on column polar.reconcile_run.state is 'running, finished or failed.';
comment on column polar.reconcile_run.dry_run is 'Whether it only looked.';
comment on column polar.reconcile_run.started_at is 'When it began.';
comment on column polar.reconcile_run.finished_at is 'When it ended.';
comment on column polar.reconcile_run.seen is 'Objects compared.';
comment on column polar.reconcile_run.drifted is 'Differences found, a row of polar.drift each; benign ones are counted apart.';
comment on column polar.reconcile_run.repaired is 'Differences repaired, benign ones among them.';
comment on column polar.reconcile_run.error is 'Why it failed, or why the last try of one that runs did.';
comment on column polar.reconcile_run.full_sweep is 'Whether it looked at every page, and so for deletions; otherwise only at what is new or unfinished.';
comment on column polar.reconcile_run.since is 'Objects older than this were left out; null: none.';
comment on column polar.reconcile_run.total is 'Objects that Polar said there are, for showing progress.';
comment on column polar.reconcile_run.benign is 'Differences that are no fault: checkouts that their buyers abandoned.';
comment on column polar.reconcile_run.refreshed is 'Documents written anew that differed in no column: an embedded object had changed, or Polar''s form had.';
comment on column polar.reconcile_run.listed_until is 'Everything up to this time (of creation; of the start for subscriptions) was listed, by Polar''s clock.';
comment on column polar.reconcile_run.cursor is 'Where it goes on after a crash.';
comment on column polar.reconcile_run.reached_end is 'Whether it looked at all there is, even if it could not repair all.';
comment on column polar.reconcile_run.job_id is 'The River job that works it; null for one of the command line.';
comment on column polar.reconcile_run.updated_at is 'Its last step.';

create table polar.reconcile_lease (
    only_row boolean not null default true,
    holder   text,
    until    timestamptz,
    constraint reconcile_lease_pkey primary key (only_row),
    constraint reconcile_lease_only_row_check check (only_row)
) with (fillfactor = 50);
insert into polar.reconcile_lease default values;
comment on table polar.reconcile_lease is 'Who reconciles now: one at a time across all hosts.';
comment on column polar.reconcile_lease.holder is 'The process that reconciles.';
comment on column polar.reconcile_lease.until is 'Until when it holds the place unless it says more; a killed one is free by then.';

create table polar.reconcile_mark (
    run_id    bigint not null,
    kind      text not null,
    object_id uuid not null,
    constraint reconcile_mark_pkey primary key (run_id, kind, object_id),
    constraint reconcile_mark_kind_check check (kind in ('boundary', 'suspect'))
);
comment on table polar.reconcile_mark is 'The few objects that a running sweep has to remember; empty when none runs.';
comment on column polar.reconcile_mark.run_id is 'The reconcile_run.';
comment on column polar.reconcile_mark.kind is 'boundary: seen, and as old as the last object of the last page. suspect: not seen, and Polar has no read by id to tell whether it is gone: a second sweep has to miss it too.';
comment on column polar.reconcile_mark.object_id is 'Polar''s id of the object.';

create table polar.endpoint_outage (
    id       bigint generated always as identity,
    reason   text not null,
    began_at timestamptz not null,
    ended_at timestamptz,
    constraint endpoint_outage_pkey primary key (id)
);
create unique index endpoint_outage_open_idx on polar.endpoint_outage ((true)) where ended_at is null;
comment on table polar.endpoint_outage is 'Times in which Polar did not send what it should: what happened then is never sent, and only a sweep finds it.';
comment on column polar.endpoint_outage.id is 'Number of the outage.';
comment on column polar.endpoint_outage.reason is 'What was wrong with the endpoint: disabled, missing, wrong_format or events_missing.';
comment on column polar.endpoint_outage.began_at is 'From when at the latest it was so, by Polar''s clock.';
comment on column polar.endpoint_outage.ended_at is 'Until when; null while it goes on.';

create index customer_created_at_idx on polar.customer using btree (created_at);
create index checkout_created_at_idx on polar.checkout using btree (created_at);
create index order_created_at_idx on polar."order" using btree (created_at);
create index refund_created_at_idx on polar.refund using btree (created_at);
create index product_created_at_idx on polar.product using btree (created_at);
create index discount_created_at_idx on polar.discount using btree (created_at);
create index benefit_created_at_idx on polar.benefit using btree (created_at);
create index benefit_grant_created_at_idx on polar.benefit_grant using btree (created_at);
create index member_created_at_idx on polar.member using btree (created_at);
create index organization_created_at_idx on polar.organization using btree (created_at);
create index subscription_started_at_idx on polar.subscription using btree (started_at);

comment on column polar.drift.field is 'The column that differed; id where the whole object was missing here, deleted_at where it is gone at Polar.';
comment on column polar.drift.local is 'Its value here; of a personal value only its length.';
comment on column polar.drift.remote is 'Its value at Polar; of a personal value only its length.';
comment on column polar.drift.cause is 'Why, as far as can be told. missed_create, missed_update, missed_delete: Polar''s event never came. endpoint_disabled: it happened during an endpoint_outage. stale_apply: the event is stored but not applied. local_only: Polar knows no such object. altered: same version, other content. refused: Postgres refuses the document. duplicate_session: a second session of one request. benign_abandoned: a checkout that its buyer left.';
comment on column polar.drift.resolution is 'How it was resolved. repaired: by a sweep. in_step: it was gone by itself when looked at again. ended: the second session is over. Or a person''s words.';
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
drop index polar.customer_created_at_idx;
drop index polar.checkout_created_at_idx;
drop index polar.order_created_at_idx;
drop index polar.refund_created_at_idx;
drop index polar.product_created_at_idx;
drop index polar.discount_created_at_idx;
drop index polar.benefit_created_at_idx;
drop index polar.benefit_grant_created_at_idx;
drop index polar.member_created_at_idx;
drop index polar.organization_created_at_idx;
drop index polar.subscription_started_at_idx;
drop table polar.endpoint_outage;
drop table polar.reconcile_mark;
drop table polar.reconcile_lease;
drop index polar.reconcile_run_object_type_idx;
alter table polar.reconcile_run
    drop column full_sweep, drop column since, drop column total, drop column benign, drop column refreshed,
    drop column listed_until, drop column cursor, drop column reached_end, drop column job_id, drop column updated_at;
comment on column polar.reconcile_run.id is 'Number of the run.';
comment on column polar.reconcile_run.object_type is 'What was compared, such as customer.';
comment on column polar.reconcile_run.state is 'running, finished or failed.';
comment on column polar.reconcile_run.dry_run is 'Whether it only looked.';
comment on column polar.reconcile_run.started_at is 'When it began.';
comment on column polar.reconcile_run.finished_at is 'When it ended.';
comment on column polar.reconcile_run.seen is 'Objects compared.';
comment on column polar.reconcile_run.drifted is 'Differences found.';
comment on column polar.reconcile_run.repaired is 'Differences repaired.';
comment on column polar.reconcile_run.error is 'Why it failed.';
comment on column polar.drift.field is 'The column that differed.';
comment on column polar.drift.local is 'Its value here.';
comment on column polar.drift.remote is 'Its value at Polar.';
comment on column polar.drift.cause is 'Why, as far as can be told: such as missed_update or duplicate_session.';
comment on column polar.drift.resolution is 'How it was resolved.';
-- +goose StatementEnd
