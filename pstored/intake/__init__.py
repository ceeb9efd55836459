# SPDX-License-Identifier: Apache-2.0
"""What comes into the archive by other ways than the store: files, devices, pstore's neighbours, other archives."""
