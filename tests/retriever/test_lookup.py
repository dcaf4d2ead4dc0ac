from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.lookup import lookup, stats

Made = Callable[..., KnowledgeBase]


def test_nearest_texts_by_cosine_whatever_their_length(made: Made) -> None:
    embeddings = np.array([[2.0, 0.0], [0.0, 3.0], [5.0, 5.0], [0.0, 0.0]], np.float32)
    kb = replace(made(4), text_embeddings=embeddings)
    found = lookup(kb, np.array([1.0, 0.0], np.float32), 3)
    assert [entry.id for entry in found] == [kb.ids[0], kb.ids[2], kb.ids[1]]
    assert [entry.score for entry in found] == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-6)
    assert found[0].text == kb.texts[0]
    assert len(lookup(kb, np.array([1.0, 0.0], np.float32), 99)) == 4


def test_questions_that_do_not_fit_are_refused(made: Made) -> None:
    with pytest.raises(KnowledgeBaseError, match=r"shape \(8,\), \(3,\)"):
        lookup(made(4), np.zeros(3, np.float32), 1)
    with pytest.raises(KnowledgeBaseError, match="top-k"):
        lookup(made(4), np.zeros(8, np.float32), 0)


def test_counts(made: Made) -> None:
    kb = made(10, missing=0.4)
    counted = stats(kb)
    assert (counted.entries, counted.groups, counted.largest_group, counted.texts) == (10, 3, 4, 10)
    assert counted.views["audio"] == (4, int(kb.has_view[:, 1].sum()))
    assert counted.values["text"] == (3, int(kb.has_value["text"].sum()))
    assert counted.sources == {"made.pkl · train": 10}
    assert counted.labels == {"1": 3, "2": 3}
    assert stats(replace(kb, labels=None)).labels == {}
