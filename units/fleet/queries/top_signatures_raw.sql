-- SPDX-License-Identifier: Apache-2.0
-- The same from the raw log records, for what the roll-up does not hold: here any WHERE on any attribute may be added.
SELECT
    LogAttributes['os.build_id'] AS build,
    LogAttributes['pstore.crash.signature'] AS signature,
    any(LogAttributes['pstore.crash.kind']) AS kind,
    any(LogAttributes['pstore.crash.title']) AS title,
    uniqExact(ResourceAttributes['host.id']) AS devices,
    uniqExact(ResourceAttributes['host.id'], LogAttributes['pstore.crash.id']) AS crashes,
    min(Timestamp) AS first,
    max(Timestamp) AS last
FROM otel_logs
WHERE ServiceName = 'pstored' AND ScopeName = 'pstored.crash' AND TimestampTime > now() - toIntervalDay({days:UInt16})
GROUP BY build, signature
ORDER BY devices DESC, signature
LIMIT 10 BY build
