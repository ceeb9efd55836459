-- SPDX-License-Identifier: Apache-2.0
-- Boots that ended badly, by cause and day, in the last {days} days: each boot once, by what is known of it last.
SELECT
    toDate(time) AS day,
    severity,
    kind,
    uniqExact(device, if(boot != '', boot, crash)) AS boots,
    uniqExact(device) AS devices
FROM pstored_crashes FINAL
WHERE time > now() - toIntervalDay({days:UInt16})
GROUP BY day, severity, kind
ORDER BY day, boots DESC, severity, kind
