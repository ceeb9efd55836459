# SPDX-License-Identifier: Apache-2.0
"""Where crashes go: one module a sink, imported only when it has something to deliver."""
