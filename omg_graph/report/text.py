"""Text from anywhere, made fit to be shown: what a reader couldn't see is given a sign."""

from __future__ import annotations

import unicodedata

PICTURES = 0x2400
"""Unicode's pictures of the control characters begin here."""

DELETE = 0x7F
OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
"""Marks that turn the direction of what follows; the page sets each text's direction by its own letters."""


def visible(text: str) -> str:
    """Control characters by their pictures, marks of direction by their codes, halves of letters replaced.

    Letters of any script and joined signs (an emoji of several) stay as they are.
    """
    return "".join(_sign(letter) for letter in text)


def _sign(letter: str) -> str:
    code = ord(letter)
    if letter in OVERRIDES:
        return f"⟨U+{code:04X}⟩"
    category = unicodedata.category(letter)
    if category == "Cs" or (code & 0xFFFF) >= 0xFFFE:
        return "\ufffd"
    if category != "Cc" or letter in "\n\t":
        return letter
    if code == DELETE:
        return "\u2421"
    return chr(PICTURES + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def shortened(text: str, most: int) -> str:
    """At most ``most`` letters, with a sign where more follow."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
