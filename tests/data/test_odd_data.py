"""Whatever plain data a file holds, it is read or it is a data error."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.checking import check_content
from omg_graph.data.reader import read_mapping
from omg_graph.data.splits import choose_split, training_splits
from omg_graph.errors import DataError

NAMES = [
    "id",
    "group",
    "raw_text",
    "text",
    "text_lengths",
    "audio",
    "observed",
    "label",
    "class_label",
    "text_bert",
]
numbers = st.one_of(
    st.integers(-3, 3), st.floats(width=32), st.just(float("nan")), st.just(10**30), st.booleans(), st.none()
)
arrays = st.builds(
    lambda code, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(code),
    st.sampled_from(["f4", "f8", "i8", "u1", "b1", "U2", "S1"]),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
)
leaves = st.one_of(numbers, arrays, st.text(max_size=2), st.binary(max_size=1))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=2).map(tuple)
)
flags = st.dictionaries(st.sampled_from(["text", "audio", "x"]), values, max_size=2)
fields = st.dictionaries(st.sampled_from(NAMES), values | flags, max_size=5)
contents = st.one_of(
    values,
    fields,
    st.lists(fields, max_size=2),
    st.dictionaries(st.sampled_from(["train", "valid", "test"]), fields),
)


@settings(max_examples=400, deadline=None)
@given(contents, st.sampled_from([None, "zero", "mean"]))
def test_read_or_refused(content: Any, fill: Any) -> None:
    report = check_content(content, "memory", fill_nonfinite=fill)
    report.model_dump_json()
    try:
        data = read_mapping(content, source="memory", fill_nonfinite=fill)
    except DataError:
        data = None
    if data is None:
        assert not report.usable
        return
    wrong = [finding.message for finding in report.findings if finding.level == "error"]
    assert all("observed in any row" in message or "but (" in message for message in wrong)
    for split in data.splits.values():
        for name, array in split.arrays.items():
            assert array.shape == (len(split), *{spec.name: spec for spec in split.modalities}[name].shape)
            assert np.isfinite(array).all()
            assert not array[~split.observed[name]].any()
        for name, lengths in split.lengths.items():
            assert ((lengths > 0) == split.observed[name]).all()
    with suppress(DataError):
        assert choose_split(data, None)[0] in data.splits.values()
    with suppress(DataError):
        train, valid, _ = training_splits(data, 0)
        assert train.modalities == valid.modalities
        assert train.mask().any(axis=1).all()
