"""The bounded view of a text: all of a short one; head, a sample and tail of a long one. Pure.

Whatever the caller sends, every later step reads at most `WHOLE` characters and a separator per piece, so that a
prompt of a megabyte costs as much as one of six thousand characters.
"""

HEAD = 2560
TAIL = 2048
PIECES = 6
PIECE = 256
WHOLE = HEAD + TAIL + PIECES * PIECE
"""Characters of the longest text that is read whole."""


def excerpt(text: str) -> str:
    """Cut a text down to what is read of it.

    Args:
        text: of any length and with any characters.

    Returns:
        The text itself up to `WHOLE` characters; else its head, `PIECES` pieces at even distances and its tail,
        each on lines of its own. The same text gives the same excerpt.
    """
    if len(text) <= WHOLE:
        return text
    middle = (len(text) - HEAD - TAIL) / PIECES
    starts = (HEAD + int((index + 0.5) * middle) - PIECE // 2 for index in range(PIECES))
    return "\n".join((text[:HEAD], *(text[start : start + PIECE] for start in starts), text[-TAIL:]))
