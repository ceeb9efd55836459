-- SPDX-License-Identifier: Apache-2.0
-- What a fleet asks is answered from three small tables, which fill themselves from what the collector writes:
--
--   otel_logs ──▶ pstored_crashes ──▶ pstored_daily      a row a crash; a row a day, build and signature
--   otel_metrics_gauge ─────────────▶ pstored_alive      a row a day, build and model: who was there to crash
--
-- Deliveries are at least once, and a crash may come again as a new revision.  So nothing is counted by rows:
-- pstored_crashes keeps the newest revision of each crash (FINAL), and the others hold sets of crashes and devices, in
-- which a second copy changes nothing.  The sets are uniqCombined64's: exact while small, then within some 0.3 %.
--
-- On a cluster: ReplicatedReplacingMergeTree and ReplicatedAggregatingMergeTree, sharded by cityHash64(device), and a
-- Distributed table over each; the queries stay as they are.

CREATE TABLE IF NOT EXISTS pstored_crashes
(
    `time` DateTime64(3) COMMENT 'of the crash; of its arrival if its clock was wrong' CODEC(Delta(8), ZSTD(1)),
    `device` String COMMENT 'device.id, or else host.id' CODEC(ZSTD(1)),
    `crash` String COMMENT 'the id that pstored show takes on that device' CODEC(ZSTD(1)),
    `revision` UInt16,
    `build` LowCardinality(String) COMMENT 'of the system that crashed, which after a roll-back is not the reporting one',
    `kernel` LowCardinality(String),
    `model` LowCardinality(String),
    `severity` LowCardinality(String) COMMENT 'panic, oops, reset',
    `kind` LowCardinality(String),
    `function` LowCardinality(String),
    `title` String CODEC(ZSTD(1)),
    `signature` LowCardinality(String) COMMENT 'strict',
    `signature_loose` LowCardinality(String),
    `boot` String CODEC(ZSTD(1)),
    `uptime_s` Float64 CODEC(ZSTD(1)),
    `count` UInt32 COMMENT 'of how many like it this is the last: a board that crashes in a loop sends a sum'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(time)
ORDER BY (device, crash)
TTL toDateTime(time) + INTERVAL 2 YEAR;

CREATE MATERIALIZED VIEW IF NOT EXISTS pstored_crashes_fill TO pstored_crashes AS
WITH
    parseDateTime64BestEffortOrZero(LogAttributes['pstore.crash.time'], 3, 'UTC') AS crashed,
    if(LogAttributes['pstore.crash.time_doubtful'] != 'true' AND crashed > 0, crashed, toDateTime64(Timestamp, 3)) AS said
SELECT
    if(said BETWEEN now() - INTERVAL 1 YEAR AND now() + INTERVAL 1 DAY, said, now64(3)) AS time,
    if(ResourceAttributes['device.id'] != '', ResourceAttributes['device.id'], ResourceAttributes['host.id']) AS device,
    LogAttributes['pstore.crash.id'] AS crash,
    toUInt16OrDefault(LogAttributes['pstore.crash.revision'], toUInt16(1)) AS revision,
    LogAttributes['os.build_id'] AS build,
    LogAttributes['linux.kernel.release'] AS kernel,
    ResourceAttributes['device.model.identifier'] AS model,
    LogAttributes['pstore.crash.severity'] AS severity,
    LogAttributes['pstore.crash.kind'] AS kind,
    LogAttributes['pstore.crash.function'] AS function,
    LogAttributes['pstore.crash.title'] AS title,
    if(LogAttributes['pstore.crash.signature'] != '', LogAttributes['pstore.crash.signature'], kind) AS signature,
    LogAttributes['pstore.crash.signature_loose'] AS signature_loose,
    LogAttributes['pstore.boot.id'] AS boot,
    toFloat64OrZero(LogAttributes['pstore.crash.uptime_s']) AS uptime_s,
    greatest(1, toUInt32OrZero(LogAttributes['pstore.crash.count'])) AS count
FROM otel_logs
WHERE ServiceName = 'pstored' AND ScopeName = 'pstored.crash' AND LogAttributes['pstore.crash.id'] != '';

CREATE TABLE IF NOT EXISTS pstored_daily
(
    `day` Date,
    `build` LowCardinality(String),
    `signature` LowCardinality(String),
    `kind` LowCardinality(String),
    `title` SimpleAggregateFunction(anyLast, String),
    `first` SimpleAggregateFunction(min, DateTime64(3)),
    `last` SimpleAggregateFunction(max, DateTime64(3)),
    `crash_set` AggregateFunction(uniqCombined64Array, Array(UInt64)),
    `device_set` AggregateFunction(uniqCombined64, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, build, signature, kind)
TTL day + INTERVAL 2 YEAR;

CREATE MATERIALIZED VIEW IF NOT EXISTS pstored_daily_fill TO pstored_daily AS
SELECT
    toDate(time) AS day,
    build,
    signature,
    kind,
    anyLast(title) AS title,
    min(time) AS first,
    max(time) AS last,
    uniqCombined64ArrayState(arrayMap(n -> sipHash64(device, crash, n), range(least(count, 100000)))) AS crash_set,
    uniqCombined64State(sipHash64(device)) AS device_set
FROM pstored_crashes
GROUP BY day, build, signature, kind;

CREATE TABLE IF NOT EXISTS pstored_alive
(
    `day` Date,
    `build` LowCardinality(String),
    `model` LowCardinality(String),
    `device_set` AggregateFunction(uniqCombined64, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, build, model)
TTL day + INTERVAL 2 YEAR;

CREATE MATERIALIZED VIEW IF NOT EXISTS pstored_alive_fill TO pstored_alive AS
SELECT
    toDate(TimeUnix) AS day,
    ResourceAttributes['os.build_id'] AS build,
    ResourceAttributes['device.model.identifier'] AS model,
    uniqCombined64State(sipHash64(if(ResourceAttributes['device.id'] != '', ResourceAttributes['device.id'], ResourceAttributes['host.id']))) AS device_set
FROM otel_metrics_gauge
WHERE ServiceName = 'pstored' AND MetricName = 'pstored.build_info'
GROUP BY day, build, model;
