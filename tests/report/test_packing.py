"""Arrays as few letters, and back."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from omg_graph.report.packing import bundle, packed, rounded


@pytest.mark.parametrize(("use", "kind", "top"), [("picture", "<u1", 255), ("curve", "<u2", 65535)])
def test_numbers_come_back_within_half_a_level(use: str, kind: str, top: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    told = bundle({"one": numbers, "two": numbers * 2}, use)
    levels = np.frombuffer(base64.b64decode(told["series"]["one"]), dtype=kind)
    assert told["levels"] == top
    back = told["low"] + (told["high"] - told["low"]) * levels / (top - 1)
    step = (told["high"] - told["low"]) / (top - 1)
    # the ends are told with five digits
    np.testing.assert_allclose(back, numbers.ravel(), atol=step / 2 + 1e-4)


def test_what_is_no_number_has_the_last_level() -> None:
    levels = base64.b64decode(packed(np.array([0.0, np.nan, 1.0, np.inf]), 0.0, 1.0, "picture"))
    assert list(levels) == [0, 255, 254, 255]


def test_a_constant_is_no_division_by_zero() -> None:
    told = bundle({"one": np.full(3, 7.0)}, "curve")
    assert (told["low"], told["high"]) == (7.0, 7.0)
    assert np.frombuffer(base64.b64decode(told["series"]["one"]), "<u2").tolist() == [0, 0, 0]


def test_json_has_no_word_for_infinity() -> None:
    assert rounded(float("inf")) is None
    assert rounded(1234567.0) == 1234600.0
