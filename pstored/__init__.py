# SPDX-License-Identifier: Apache-2.0
"""pstored: takes what a crashed kernel left in pstore, keeps it, and tells what happened."""

__version__ = "0.1.0"
