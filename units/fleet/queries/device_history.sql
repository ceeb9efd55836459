-- SPDX-License-Identifier: Apache-2.0
-- One device's history: every crash, newest first, with how long the boot before it had lived.
SELECT time, severity, kind, title, signature, build, kernel, boot, uptime_s, crash, revision
FROM pstored_crashes FINAL
WHERE device = {device:String}
ORDER BY time DESC, crash
LIMIT 1000
