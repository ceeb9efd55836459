-- SPDX-License-Identifier: Apache-2.0
-- What is worse on build {build} than on {before}: crashes a thousand device days on each, and in how many standard
-- deviations they differ (as counts of rare events do); 3 and more is no chance.
WITH
    (SELECT sum(up) FROM (SELECT uniqCombined64Merge(device_set) AS up FROM pstored_alive WHERE build = {build:String} GROUP BY day)) AS days_now,
    (SELECT sum(up) FROM (SELECT uniqCombined64Merge(device_set) AS up FROM pstored_alive WHERE build = {before:String} GROUP BY day)) AS days_before
SELECT
    signature,
    any(kind) AS kind,
    any(title) AS title,
    uniqCombined64ArrayMergeIf(crash_set, build = {build:String}) AS crashes,
    uniqCombined64MergeIf(device_set, build = {build:String}) AS devices,
    uniqCombined64ArrayMergeIf(crash_set, build = {before:String}) AS crashes_before,
    round(1000 * crashes / days_now, 3) AS rate,
    round(1000 * crashes_before / days_before, 3) AS rate_before,
    round((crashes / days_now - crashes_before / days_before) / sqrt((crashes + crashes_before + 1) / (days_now * days_before)), 1) AS sigmas
FROM pstored_daily
WHERE build IN ({build:String}, {before:String})
GROUP BY signature
HAVING rate > rate_before
ORDER BY sigmas DESC, devices DESC
LIMIT 100
