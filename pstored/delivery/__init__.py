# SPDX-License-Identifier: Apache-2.0
"""What leaves the machine: what goes out of a crash, what each sink is still to get, and the round that brings it."""
