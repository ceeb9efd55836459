# SPDX-License-Identifier: Apache-2.0
"""The other end of the wire: fleets that never were, to try dashboards and storage on."""
