-- Events that are applied again, and those from which the mirror is rebuilt: read in order, a bounded number of rows
-- and bytes at a time. Sizes are told without reading the bodies. An event whose body is no longer kept is left out.

-- name: EventSeqSince :one
-- Before which event_log.seq all were received before a time, up to the little by which the order of arrival and the clock
-- disagree; found by halving, as there is no index by time.
with recursive halving (step, low, high) as (
    select 0, coalesce((select min(l.seq) from polar.event_log l), 1), coalesce((select max(l.seq) from polar.event_log l), 0) + 1
    union all
    select h.step + 1,
           case when m.received_at < @since::timestamptz then m.seq + 1 else h.low end,
           case when m.received_at < @since::timestamptz then h.high else (h.low + h.high) / 2 end
      from halving h
      left join lateral (
               select l.seq, l.received_at from polar.event_log l where l.seq >= (h.low + h.high) / 2 order by l.seq limit 1) m on true
     where h.low < h.high
)
select h.low::bigint as seq from halving h order by h.step desc limit 1;

-- name: EventReplayCount :one
select count(l.body)::bigint as events, (count(*) - count(l.body))::bigint as bodiless, coalesce(max(l.seq), 0)::bigint as last_seq
  from polar.event_log l
 where l.seq > @after
   and l.received_at >= @since
   and (cardinality(@types::text[]) = 0 or l.type like any (@types::text[]));

-- name: EventReplayCountFailed :one
select count(l.body)::bigint as events, (count(*) - count(l.body))::bigint as bodiless, coalesce(max(l.seq), 0)::bigint as last_seq
  from polar.event_outcome o
  join polar.event_log l on l.seq = o.seq
 where o.state = 'failed'
   and o.seq > @after
   and l.received_at >= @since
   and (cardinality(@types::text[]) = 0 or l.type like any (@types::text[]));

-- name: EventReplayWindow :one
-- Where the next window of the log ends; nothing in it need fit.
select coalesce(max(w.seq), 0)::bigint as last_seq
  from (select l.seq from polar.event_log l where l.seq > @after and l.seq <= @up_to order by l.seq limit @window_size::integer) w;

-- name: EventReplayList :many
select b.seq, b.webhook_id, b.type, b.occurred_at, b.body::text as body
  from (select e.seq, e.webhook_id, e.type, e.occurred_at, e.body,
               sum(octet_length(e.body)) over (order by e.seq) - octet_length(e.body) as bytes_before
          from (select l.seq, l.webhook_id, l.type, l.occurred_at, l.body
                  from polar.event_log l
                 where l.seq > @after
                   and l.seq <= @up_to
                   and l.body is not null
                   and l.received_at >= @since
                   and (cardinality(@types::text[]) = 0 or l.type like any (@types::text[]))
                 order by l.seq
                 limit @max_rows::integer) e) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;

-- name: EventReplayListFailed :many
select b.seq, b.webhook_id, b.type, b.occurred_at, b.body::text as body
  from (select e.seq, e.webhook_id, e.type, e.occurred_at, e.body,
               sum(octet_length(e.body)) over (order by e.seq) - octet_length(e.body) as bytes_before
          from (select l.seq, l.webhook_id, l.type, l.occurred_at, l.body
                  from polar.event_outcome o
                  join polar.event_log l on l.seq = o.seq
                 where o.state = 'failed'
                   and o.seq > @after
                   and l.seq > @after
                   and o.seq <= @up_to
                   and l.body is not null
                   and l.received_at >= @since
                   and (cardinality(@types::text[]) = 0 or l.type like any (@types::text[]))
                 order by o.seq
                 limit @max_rows::integer) e) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;

-- name: EventListApplied :many
-- seq is bounded on both sides of the join, or a plan may begin each time at the log's beginning.
select b.seq, b.webhook_id, b.type, b.occurred_at, b.body::text as body
  from (select e.seq, e.webhook_id, e.type, e.occurred_at, e.body,
               sum(octet_length(e.body)) over (order by e.seq) - octet_length(e.body) as bytes_before
          from (select l.seq, l.webhook_id, l.type, l.occurred_at, l.body
                  from polar.event_outcome o
                  join polar.event_log l on l.seq = o.seq
                 where o.state = 'applied'
                   and o.seq > @after
                   and l.seq > @after
                   and l.body is not null
                 order by l.seq
                 limit @max_rows::integer) e) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;

-- name: EventListOfSeqs :many
select b.seq, b.webhook_id, b.type, b.occurred_at, b.body::text as body
  from (select e.seq, e.webhook_id, e.type, e.occurred_at, e.body,
               sum(octet_length(e.body)) over (order by e.seq) - octet_length(e.body) as bytes_before
          from (select l.seq, l.webhook_id, l.type, l.occurred_at, l.body
                  from polar.event_log l
                 where l.seq = any (@seqs::bigint[]) and l.body is not null) e) b
 where b.bytes_before < @max_bytes::bigint
 order by b.seq;

-- name: EventCountKept :one
-- Kept events, by what became of them.
select count(*) filter (where o.state = 'applied' and l.body is not null)::bigint as applied,
       count(*) filter (where o.state = 'failed' and l.body is not null)::bigint as failed,
       count(*) filter (where o.state is null and l.body is not null)::bigint as received,
       count(*) filter (where l.body is null)::bigint as bodiless
  from polar.event_log l
  left join polar.event_outcome o on o.seq = l.seq;
