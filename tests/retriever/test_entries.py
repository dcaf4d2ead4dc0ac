from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever.entries import KnowledgeBase

Made = Callable[..., KnowledgeBase]


def test_entries_are_kept_in_the_order_of_their_ids(made: Made) -> None:
    kb = made(12)
    order = list(range(11, -1, -1))
    fields = {
        name: tuple(getattr(kb, name)[row] for row in order) for name in ("ids", "groups", "texts", "sources")
    }
    turned = replace(
        kb,
        **fields,
        keys=kb.keys[order],
        has_view=kb.has_view[order],
        values={name: array[order] for name, array in kb.values.items()},
        has_value={name: flags[order] for name, flags in kb.has_value.items()},
        text_embeddings=kb.text_embeddings[order],
        labels=tuple((kb.labels or ())[row] for row in order),
    )
    assert list(kb.ids) == sorted(kb.ids)
    assert turned.ids == kb.ids
    assert turned.fingerprint == kb.fingerprint
    np.testing.assert_array_equal(turned.values["audio"], kb.values["audio"])


def test_the_fingerprint_is_of_the_content(made: Made) -> None:
    kb = made(8)
    assert replace(kb, name="another name").fingerprint == kb.fingerprint
    assert made(8).fingerprint == kb.fingerprint
    values = kb.values | {"audio": kb.values["audio"] + np.float32(1e-6)}
    changed = [
        replace(kb, values=values),
        replace(kb, texts=("other", *kb.texts[1:])),
        replace(kb, model_fingerprint="other"),
        replace(kb, labels=None),
        kb.take(range(7)),
    ]
    assert len({other.fingerprint for other in changed} | {kb.fingerprint}) == 6


def test_extending_adds_and_replaces_by_id(made: Made) -> None:
    mine, other = made(8, seed=1), made(12, seed=2).take(range(6, 12))
    both = mine.extended(other)
    assert set(both.ids) == set(mine.ids) | set(other.ids)
    for source, ids in ((other, other.ids), (mine, set(mine.ids) - set(other.ids))):
        for entry_id in ids:
            np.testing.assert_array_equal(
                both.keys[both.row_of[entry_id]], source.keys[source.row_of[entry_id]]
            )
    assert mine.extended(mine).fingerprint == mine.fingerprint


def test_labels_of_one_side_are_kept(made: Made) -> None:
    mine, other = made(4), replace(made(8).take(range(4, 8)), labels=None)
    both = mine.extended(other)
    assert both.labels is not None
    assert both.labels[both.row_of[other.ids[0]]] is None
    assert both.labels[both.row_of[mine.ids[1]]] == (mine.labels or ())[1]


def test_another_model_or_width_is_refused(made: Made) -> None:
    kb = made(4)
    with pytest.raises(
        KnowledgeBaseError, match="entries of model model were expected, they are of model other"
    ):
        kb.extended(made(4, model="other"))
    wider = replace(kb, values=kb.values | {"audio": np.zeros((4, 9), np.float32)})
    with pytest.raises(KnowledgeBaseError, match=r"'audio': 3.*were expected.*'audio': 9.*came"):
        kb.extended(wider)
    kb.require("model", kb.views, kb.value_widths, 8)
    with pytest.raises(KnowledgeBaseError, match="'text': 9"):
        kb.require("model", kb.views, kb.value_widths, 9)


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    kb = made(4)
    bad = kb.values["audio"].copy()
    bad[1] = np.nan
    with pytest.raises(KnowledgeBaseError, match="at least one entry"):
        kb.take([])
    with pytest.raises(KnowledgeBaseError, match="comes twice"):
        kb.take([0, 0])
    with pytest.raises(KnowledgeBaseError, match="unit-length"):
        replace(kb, keys=kb.keys * np.float32(2))
    with pytest.raises(KnowledgeBaseError, match="view audio, lengths"):
        replace(kb, has_view=kb.has_view & [True, False, True])
    with pytest.raises(KnowledgeBaseError, match=r"finite float32.*values\.audio.*3 non-finite"):
        replace(kb, values=kb.values | {"audio": bad})
    with pytest.raises(KnowledgeBaseError, match="for texts"):
        replace(kb, texts=kb.texts[1:])
