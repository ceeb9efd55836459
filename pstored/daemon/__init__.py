# SPDX-License-Identifier: Apache-2.0
"""The daemon, ``pstored watch``: what wakes it, when it works, and the work itself in a child."""
