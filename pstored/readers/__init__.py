# SPDX-License-Identifier: Apache-2.0
"""Readers of what kernels leave elsewhere than in pstorefs: memory, flash, serial lines, the net, dumps.

One module a format, and nothing else knows that format.  All are pure: a :class:`~pstored.readers.model.Source` in,
records out, named as pstorefs would name them, so that what comes after need not know where they are from.
"""
