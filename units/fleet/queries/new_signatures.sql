-- SPDX-License-Identifier: Apache-2.0
-- What is new since a release: signatures that no device had before the first crash, or first day, of build {build}.
WITH (SELECT min(day) FROM (SELECT day, build FROM pstored_alive UNION ALL SELECT day, build FROM pstored_daily) WHERE build = {build:String}) AS released
SELECT
    signature,
    any(kind) AS kind,
    any(title) AS title,
    min(first) AS first,
    uniqCombined64MergeIf(device_set, build = {build:String}) AS devices_on_it,
    uniqCombined64Merge(device_set) AS devices,
    uniqCombined64ArrayMerge(crash_set) AS crashes
FROM pstored_daily
GROUP BY signature
HAVING toDate(first) >= released AND devices_on_it > 0
ORDER BY devices_on_it DESC, signature
LIMIT 100
