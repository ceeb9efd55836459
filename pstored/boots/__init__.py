# SPDX-License-Identifier: Apache-2.0
"""The boots of this machine: which were there, how each ended, and which one crashed."""
