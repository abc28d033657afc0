"""Text that others wrote, made safe to show: in one line of a log, and on a terminal, it can pretend nothing.

Control characters begin new lines, move the cursor and change what stands above; marks of direction reorder what is read. They
are replaced by their escapes, as `repr` writes them. Letters of all languages stay.
"""

from __future__ import annotations


def escape_controls(text: str, *, keeps: str = "") -> str:
    """Return a text with everything escaped that is not printable, but spaces and the characters in `keeps`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keeps else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
