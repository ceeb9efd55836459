-- SPDX-License-Identifier: Apache-2.0
-- How many of the days that devices were up passed without a crash, by build, in the last {days} days.
SELECT
    build,
    sum(up) AS device_days,
    sum(crashed) AS device_days_with_crash,
    round(100 * (1 - device_days_with_crash / device_days), 3) AS crash_free_percent,
    round(1000 * device_days_with_crash / device_days, 3) AS per_1000_device_days
FROM
(
    SELECT day, build, max(up) AS up, max(crashed) AS crashed
    FROM
    (
        SELECT day, build, uniqCombined64Merge(device_set) AS up, 0 AS crashed FROM pstored_alive WHERE day > today() - {days:UInt16} GROUP BY day, build
        UNION ALL
        SELECT day, build, 0 AS up, uniqCombined64Merge(device_set) AS crashed FROM pstored_daily WHERE day > today() - {days:UInt16} GROUP BY day, build
    )
    GROUP BY day, build
)
GROUP BY build
HAVING device_days > 0
ORDER BY build
