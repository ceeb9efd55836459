# SPDX-License-Identifier: Apache-2.0
"""Pure parsers: bytes in, values out; no I/O, no clock, no logging.

Each module knows one format, and raises nothing but :class:`pstored.errors.DamagedError`.
"""
