-- SPDX-License-Identifier: Apache-2.0
-- Files of OTLP as JSON, a request a line, into the tables, without a collector: what pstored fleet simulate writes, or a
-- collector's file exporter.  For clickhouse-local, or a server that has them below its user_files_path:
--
--   clickhouse-client --database otel --param_logs=logs.jsonl --param_metrics=metrics.jsonl --queries-file load.sql

CREATE FUNCTION IF NOT EXISTS otlp_value AS (value) ->
    if(startsWith(value, '{"stringValue"'), JSONExtractString(value, 'stringValue'),
        trim(BOTH '"' FROM substring(value, position(value, ':') + 1, length(value) - position(value, ':') - 1)));

CREATE FUNCTION IF NOT EXISTS otlp_attributes AS (attributes) ->
    mapFromArrays(arrayMap(pair -> JSONExtractString(pair, 'key'), attributes), arrayMap(pair -> otlp_value(JSONExtractRaw(pair, 'value')), attributes));

INSERT INTO otel_logs (Timestamp, SeverityText, SeverityNumber, ServiceName, Body, ResourceAttributes, ScopeName, ScopeVersion, LogAttributes, EventName)
WITH
    arrayJoin(JSONExtractArrayRaw(line, 'resourceLogs')) AS of_resource,
    otlp_attributes(JSONExtractArrayRaw(of_resource, 'resource', 'attributes')) AS resource,
    arrayJoin(JSONExtractArrayRaw(of_resource, 'scopeLogs')) AS of_scope,
    arrayJoin(JSONExtractArrayRaw(of_scope, 'logRecords')) AS record
SELECT
    fromUnixTimestamp64Nano(toInt64(JSONExtractString(record, 'timeUnixNano')), 'UTC'),
    JSONExtractString(record, 'severityText'),
    JSONExtractUInt(record, 'severityNumber'),
    resource['service.name'],
    JSONExtractString(record, 'body', 'stringValue'),
    resource,
    JSONExtractString(of_scope, 'scope', 'name'),
    JSONExtractString(of_scope, 'scope', 'version'),
    otlp_attributes(JSONExtractArrayRaw(record, 'attributes')),
    JSONExtractString(record, 'eventName')
FROM file({logs:String}, LineAsString, 'line String');

INSERT INTO otel_metrics_gauge (ResourceAttributes, ScopeName, ScopeVersion, ServiceName, MetricName, MetricDescription, MetricUnit, Attributes, TimeUnix, Value)
WITH
    arrayJoin(JSONExtractArrayRaw(line, 'resourceMetrics')) AS of_resource,
    otlp_attributes(JSONExtractArrayRaw(of_resource, 'resource', 'attributes')) AS resource,
    arrayJoin(JSONExtractArrayRaw(of_resource, 'scopeMetrics')) AS of_scope,
    arrayJoin(JSONExtractArrayRaw(of_scope, 'metrics')) AS metric,
    arrayJoin(JSONExtractArrayRaw(metric, 'gauge', 'dataPoints')) AS point
SELECT
    resource,
    JSONExtractString(of_scope, 'scope', 'name'),
    JSONExtractString(of_scope, 'scope', 'version'),
    resource['service.name'],
    JSONExtractString(metric, 'name'),
    JSONExtractString(metric, 'description'),
    JSONExtractString(metric, 'unit'),
    otlp_attributes(JSONExtractArrayRaw(point, 'attributes')),
    fromUnixTimestamp64Nano(toInt64(JSONExtractString(point, 'timeUnixNano')), 'UTC'),
    if(JSONHas(point, 'asInt'), toFloat64(JSONExtractString(point, 'asInt')), JSONExtractFloat(point, 'asDouble'))
FROM file({metrics:String}, LineAsString, 'line String');
