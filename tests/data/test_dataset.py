"""Names that results have no place for."""

from __future__ import annotations

import pytest

from omg_graph.data.dataset import check_names
from omg_graph.errors import DataError


def test_names_of_any_language_and_with_any_sign_will_do() -> None:
    check_names(["音频", "a/b", "../x", "[bold]", "x" * 300, "file", "keys", "audio std", "std"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["audio", "audio_std"], "audio_std.*array of modality 'audio'"),
        (["audio_reconstructed", "audio"], "--modalities"),
        (["ids"], "ids"),
        ([" "], "a name for each"),
        (["a\0b"], "control character"),
    ],
)
def test_names_that_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_names(names)
