-- SPDX-License-Identifier: Apache-2.0
-- What the collector's ClickHouse exporter writes to: names and types of the columns are the exporter's (contrib 0.130
-- and later, create_schema: false), the rest is for crashes, which are few, late, and kept for long: monthly partitions.

CREATE TABLE IF NOT EXISTS otel_logs
(
    `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `TimestampTime` DateTime DEFAULT toDateTime(Timestamp),
    `TraceId` String,
    `SpanId` String,
    `TraceFlags` UInt8,
    `SeverityText` LowCardinality(String),
    `SeverityNumber` UInt8,
    `ServiceName` LowCardinality(String),
    `Body` String CODEC(ZSTD(3)),
    `ResourceSchemaUrl` LowCardinality(String),
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    `ScopeSchemaUrl` LowCardinality(String),
    `ScopeName` String,
    `ScopeVersion` LowCardinality(String),
    `ScopeAttributes` Map(LowCardinality(String), String),
    `LogAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    `EventName` String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(TimestampTime)
ORDER BY (ServiceName, TimestampTime)
TTL TimestampTime + INTERVAL 1 YEAR;

CREATE TABLE IF NOT EXISTS otel_metrics_gauge
(
    `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    `ResourceSchemaUrl` String,
    `ScopeName` String,
    `ScopeVersion` String,
    `ScopeAttributes` Map(LowCardinality(String), String),
    `ScopeDroppedAttrCount` UInt32,
    `ScopeSchemaUrl` String,
    `ServiceName` LowCardinality(String),
    `MetricName` LowCardinality(String),
    `MetricDescription` String,
    `MetricUnit` String,
    `Attributes` Map(LowCardinality(String), String),
    `StartTimeUnix` DateTime64(9),
    `TimeUnix` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `Value` Float64,
    `Flags` UInt32,
    `Exemplars` Nested
    (
        `FilteredAttributes` Map(LowCardinality(String), String),
        `TimeUnix` DateTime64(9),
        `Value` Float64,
        `SpanId` String,
        `TraceId` String
    )
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(TimeUnix)
ORDER BY (ServiceName, MetricName, TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 14 DAY;

CREATE TABLE IF NOT EXISTS otel_metrics_sum AS otel_metrics_gauge
ENGINE = MergeTree
PARTITION BY toYYYYMM(TimeUnix)
ORDER BY (ServiceName, MetricName, TimeUnix)
TTL toDateTime(TimeUnix) + INTERVAL 14 DAY;

ALTER TABLE otel_metrics_sum
    ADD COLUMN IF NOT EXISTS `AggregationTemporality` Int32,
    ADD COLUMN IF NOT EXISTS `IsMonotonic` Bool;
