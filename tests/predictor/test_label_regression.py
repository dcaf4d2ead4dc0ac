from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer

from omg_graph.predictor.label_regression import WordEncoder

TEXTS = (
    "The acting is not bad",
    "The acting is bad, really bad",
    "not a good film",
    "A GOOD film, good acting",
    None,
)


def test_it_is_tf_idf_over_words_and_pairs() -> None:
    encoder = WordEncoder.fit(TEXTS)
    there = [text for text in TEXTS if text is not None]
    reference = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\w+", vocabulary=encoder.terms
    ).fit(there)
    assert np.allclose(encoder.encode(there), reference.transform(there).toarray(), atol=1e-6)


def test_terms_stand_in_two_texts_at_least_and_the_commonest_are_kept() -> None:
    encoder = WordEncoder.fit(TEXTS)
    assert "film" in encoder.terms
    assert "acting is" in encoder.terms
    assert "really" not in encoder.terms  # one text, though twice were fine
    few = WordEncoder.fit(TEXTS, limit=3)
    assert few.width == 3
    assert "acting" in few.terms  # in three texts


def test_rows_have_unit_length_unless_nothing_is_known_of_them() -> None:
    encoder = WordEncoder.fit(TEXTS)
    rows = encoder.encode([*TEXTS, "xylophone", ""])
    assert np.allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 0, 0, 0])


def test_it_survives_json() -> None:
    encoder = WordEncoder.fit(TEXTS)
    again = WordEncoder.model_validate_json(encoder.model_dump_json())
    assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def test_a_rarity_is_needed_for_each_term() -> None:
    with pytest.raises(ValidationError, match="2 terms need as many rarities, 1 came"):
        WordEncoder(terms=("a", "b"), rarity=(1.0,))


def test_no_texts_make_an_encoder_of_no_width() -> None:
    encoder = WordEncoder.fit([])
    assert encoder.encode(["anything", None]).shape == (2, 0)
