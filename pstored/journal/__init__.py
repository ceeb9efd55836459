# SPDX-License-Identifier: Apache-2.0
"""The systemd journal as it really is: sent to, read, exported, and written through systemd-journal-remote."""
