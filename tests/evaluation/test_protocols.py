"""What the protocols hide, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.data.masks import MaskFile
from omg_graph.errors import ConfigError, DataError
from omg_graph.evaluation.protocols import RATES, conditions_of, fixed_patterns, imbalanced_masks, parse_rates


def split_of(observed: np.ndarray, names: tuple[str, ...] = ("text", "audio", "vision")) -> Split:
    rows = len(observed)
    return Split(
        name="test",
        ids=tuple(f"clip-{row}" for row in range(rows)),
        groups=tuple(f"video-{row // 2}" for row in range(rows)),
        modalities=tuple(ModalitySpec(name=name, kind="vector", shape=(2,)) for name in names),
        arrays={name: np.ones((rows, 2), np.float32) for name in names},
        observed={name: observed[:, column] for column, name in enumerate(names)},
        raw_text=tuple(f"words {row}" for row in range(rows)),
    )


def complete(rows: int, columns: int = 3) -> np.ndarray:
    return np.ones((rows, columns), bool)


def test_three_modalities_have_seven_patterns() -> None:
    found = [tuple(np.flatnonzero(row)) for row in fixed_patterns(("a", "b", "c"))]
    assert sorted(found) == [(0,), (0, 1), (0, 1, 2), (0, 2), (1,), (1, 2), (2,)]


def test_six_modalities_have_single_pairs_all_but_one_and_all() -> None:
    counts = [int(row.sum()) for row in fixed_patterns("abcdef")]
    assert [counts.count(size) for size in range(1, 7)] == [6, 15, 0, 0, 6, 1]


def test_four_modalities_name_no_pattern_twice() -> None:
    found = fixed_patterns("abcd")
    assert len(found) == len({row.tobytes() for row in found}) == 15


def test_listed_patterns_come_as_listed() -> None:
    found = fixed_patterns(("text", "audio"), [["audio"], ["audio", "text"]])
    assert [row.tolist() for row in found] == [[False, True], [True, True]]


@pytest.mark.parametrize("listed", [[["smell"]], [[]], [["text"], ["text"]]])
def test_patterns_that_make_no_sense(listed: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="--patterns"):
        fixed_patterns(("text", "audio"), listed)


def test_a_fixed_pattern_leaves_natural_gaps_and_drops_who_has_nothing_left() -> None:
    observed = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1]], bool)
    (condition,) = conditions_of(split_of(observed), "fixed", patterns=[["text", "audio"]])
    assert condition.visible.tolist() == [[True, True, False], [False, True, False], [True, False, False]]
    (alone,) = conditions_of(split_of(observed), "fixed", patterns=[["text"]])
    assert alone.rows.tolist() == [0, 2]
    assert alone.mask_seed is None
    assert alone.observed is not None
    assert alone.observed.tolist() == [True, False, False]


def test_random_has_eight_rates_and_as_many_seeds() -> None:
    found = conditions_of(split_of(complete(20)), "random", seeds=3)
    assert [condition.rate for condition in found] == [rate for rate in RATES for _ in range(3)]
    assert [condition.mask_seed for condition in found] == [0, 1, 2] * 8


@given(rate=st.floats(0.0, 1.0), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_random_realises_its_rate_and_empties_nobody(rate: float, seed: int) -> None:
    found = conditions_of(split_of(complete(12)), "random", rates=[rate], seeds=seed + 1)[seed]
    wanted = round(min(rate, 2 / 3) * 36)
    assert int((~found.visible).sum()) == wanted
    assert found.realised_rate == pytest.approx(wanted / 36)
    assert len(found.rows) == 12


@given(
    rates=st.lists(st.floats(0.0, 0.6), min_size=3, max_size=3),
    seed=st.integers(0, 9),
    natural=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_imbalanced_gives_each_modality_its_share(rates: list[float], seed: int, natural: int) -> None:
    observed = complete(30)
    observed[:natural, 0] = False
    hidden = imbalanced_masks(observed, rates, seed)
    left = observed & ~hidden
    assert not (hidden & ~observed).any()
    assert left.any(axis=1).all()
    missing = (~left).sum(axis=0)
    wanted = [max(round(rate * 30), lacking) for rate, lacking in zip(rates, (natural, 0, 0), strict=True)]
    assert (missing <= wanted).all()
    if sum(rates) < 1.0:  # then every share can be had whatever the order
        assert missing.tolist() == wanted


def test_imbalanced_keeps_what_is_not_named() -> None:
    found = conditions_of(split_of(complete(10)), "imbalanced", rates={"text": 0.5}, seeds=2)
    for condition in found:
        assert (~condition.visible).sum(axis=0).tolist() == [5, 0, 0]
        assert condition.rate == {"text": 0.5, "audio": 0.0, "vision": 0.0}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    split = split_of(complete(16))
    (drawn,) = conditions_of(split, "random", rates=[0.4], seeds=1)
    path = tmp_path / drawn.file_name
    drawn.mask.write(path)
    (again,) = conditions_of(split, "file", masks=[path])
    assert np.array_equal(again.visible, drawn.visible)
    assert again.mask == drawn.mask
    assert again.mask_seed == 0


def test_the_same_seed_draws_the_same_masks_and_another_others() -> None:
    split = split_of(complete(40))
    first, second = conditions_of(split, "random", rates=[0.5], seeds=2)
    again = conditions_of(split, "random", rates=[0.5], seeds=2)[0]
    assert np.array_equal(first.visible, again.visible)
    assert not np.array_equal(first.visible, second.visible)


def test_hiding_the_text_hides_the_transcript() -> None:
    split = split_of(complete(4))
    (condition,) = conditions_of(split, "fixed", patterns=[["audio"]])
    assert split.hide(condition.hidden).raw_text == (None,) * 4


def test_a_mask_that_hides_everything_leaves_nobody(tmp_path: Path) -> None:
    split = split_of(complete(2))
    path = tmp_path / "none.json"
    MaskFile.of(split, complete(2), seed=0, nominal_rate=1.0).write(path)
    with pytest.raises(DataError, match="something observed was expected"):
        conditions_of(split, "file", masks=[path])


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("sometimes", {}),
        ("file", {}),
        ("imbalanced", {}),
        ("imbalanced", {"rates": {"smell": 0.5}}),
        ("random", {"rates": {"text": 0.5}}),
        ("fixed", {"rates": [0.5]}),
        ("random", {"patterns": [["text"]]}),
        ("random", {"masks": [Path("m.json")]}),
        ("random", {"seeds": 0}),
    ],
)
def test_settings_that_do_not_fit(protocol: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--"):
        conditions_of(split_of(complete(4)), protocol, **options)  # type: ignore[arg-type]


def test_rates_as_they_are_typed() -> None:
    assert parse_rates(None, "random") is None
    assert parse_rates("0.7", "random") == [0.7]
    assert parse_rates("0.1, 0.5", "random") == [0.1, 0.5]
    assert parse_rates("text=0.7,audio=0.2", "imbalanced") == {"text": 0.7, "audio": 0.2}


@pytest.mark.parametrize(
    "text", ["", "much", "1.5", "-0.1", "text=0.7,0.2", "text=x", "text=.1,text=.2", "nan"]
)
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--missing-rate"):
        parse_rates(text, "random")
