"""Text from anywhere, made fit to be shown."""

from __future__ import annotations

import pytest

from omg_graph.report.text import shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 漢字", "plain, ünïcode, 漢字"),
        ("a\x00b\x1b[31m\x7f", "a␀b␛[31m␡"),
        ("abc\u202edcba", "abc⟨U+202E⟩dcba"),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),
        ("half \ud83d of one", "half \ufffd of one"),
        ("line\nand\ttab", "line\nand\ttab"),
        ("\x85", "⟨U+0085⟩"),
    ],
)
def test_what_cannot_be_seen_gets_a_sign(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_text_is_cut_with_a_sign() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abc defg", 5) == "abc…"
