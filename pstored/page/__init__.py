# SPDX-License-Identifier: Apache-2.0
"""What a person sees: the table of crashes, the page of one, the history of boots."""
