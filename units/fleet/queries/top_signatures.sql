-- SPDX-License-Identifier: Apache-2.0
-- Which crashes hit most devices, on which build: the first ten of each build in the last {days} days.
SELECT
    build,
    signature,
    any(kind) AS kind,
    any(title) AS title,
    uniqCombined64Merge(device_set) AS devices,
    uniqCombined64ArrayMerge(crash_set) AS crashes,
    min(first) AS first,
    max(last) AS last
FROM pstored_daily
WHERE day > today() - {days:UInt16}
GROUP BY build, signature
ORDER BY devices DESC, signature
LIMIT 10 BY build
