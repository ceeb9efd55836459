# SPDX-License-Identifier: Apache-2.0
"""Names, files and lines for the addresses of a report, from the files of the kernel that wrote it."""
