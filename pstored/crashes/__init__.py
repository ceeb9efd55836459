# SPDX-License-Identifier: Apache-2.0
"""From records to crashes: what belongs together, what ended that boot, and crash.json.  Pure."""
