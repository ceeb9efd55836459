# SPDX-License-Identifier: Apache-2.0
"""Text from a record, made safe to show: nothing in it can act on a terminal, or begin a line of its own."""


def visible(text: bytes | str) -> str:
    """Text with everything escaped that a terminal would act on; tabs become spaces."""
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    text = text.expandtabs()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
