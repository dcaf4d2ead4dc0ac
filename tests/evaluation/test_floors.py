"""Floors on cases small enough to know what must come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_graph.evaluation.floor_data import Ridge, Shown, TrainingRows, group_folds
from omg_graph.evaluation.floors import (
    BestConstant,
    EvidenceFill,
    Floor,
    GaussianFill,
    MeanFill,
    Neighbours,
    PatternRidge,
)
from omg_graph.evaluation.tables import LabelTarget

NUMBERS = LabelTarget("mosi", degrees=(-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0))
CLASSES = LabelTarget("classes", names=("ant", "bee"))


def rows_of(count: int = 200, labels: np.ndarray | None = None) -> TrainingRows:
    """``b`` is a linear map of ``a``, and the label the first number of ``a``."""
    random = np.random.default_rng(0)
    a = random.normal(size=(count, 3))
    b = a @ np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
    return TrainingRows(
        latents={"a": a, "b": b},
        observed=np.ones((count, 2), bool),
        ids=tuple(f"train-{row}" for row in range(count)),
        groups=tuple(f"g{row // 4}" for row in range(count)),
        labels=a[:, 0].clip(-3, 3) if labels is None else labels,
        source="here",
    )


def shown_of(rows: TrainingRows, count: int = 10, hidden: int = 1, prefix: str = "new") -> Shown:
    """The first training rows again under new names, one modality hidden."""
    visible = np.ones((count, 2), bool)
    visible[:, hidden] = False
    latents = {name: part[:count].copy() for name, part in rows.latents.items()}
    for column, part in enumerate(latents.values()):
        part[~visible[:, column]] = 0.0
    return Shown(
        latents=latents,
        visible=visible,
        ids=tuple(f"{prefix}-{row}" for row in range(count)),
        groups=tuple(f"{prefix}-{row}" if prefix == "new" else f"g{row // 4}" for row in range(count)),
        evidence={name: np.full_like(part, 0.25) for name, part in latents.items()},
    )


def every_floor() -> list[Floor]:
    return [
        BestConstant("acc2"),
        MeanFill(),
        Neighbours(),
        PatternRidge(),
        GaussianFill(torch.full((2,), 1e-3)),
        EvidenceFill(),
    ]


@pytest.mark.parametrize("floor", every_floor(), ids=lambda floor: floor.name)
@pytest.mark.parametrize("hidden", [0, 1])
def test_a_sample_is_predicted_alike_alone_and_among_others(floor: Floor, hidden: int) -> None:
    rows = rows_of()
    floor.fit(rows, NUMBERS)
    shown = shown_of(rows, hidden=hidden)
    one = Shown(
        latents={name: part[3:4] for name, part in shown.latents.items()},
        visible=shown.visible[3:4],
        ids=shown.ids[3:4],
        groups=shown.groups[3:4],
        evidence={name: part[3:4] for name, part in shown.evidence.items()},
    )
    together, alone = floor.predict(shown), floor.predict(one)
    assert together.value is not None
    assert alone.value is not None
    assert alone.value[0] == pytest.approx(together.value[3], abs=1e-5)
    name = list(shown.latents)[hidden]
    assert np.allclose(alone.latents[name][0], together.latents[name][3], atol=1e-5)


@pytest.mark.parametrize(
    "floor", [PatternRidge(), GaussianFill(torch.full((2,), 1e-5))], ids=lambda f: f.name
)
def test_what_is_linear_is_recovered(floor: Floor) -> None:
    rows = rows_of()
    floor.fit(rows, NUMBERS)
    guess = floor.predict(shown_of(rows))
    assert np.allclose(guess.latents["b"], rows.latents["b"][:10], atol=0.02)
    assert guess.value is not None
    assert np.allclose(guess.value, rows.labels[:10], atol=0.1)


def test_mean_fill_is_the_training_mean() -> None:
    rows, floor = rows_of(), MeanFill()
    floor.fit(rows, NUMBERS)
    assert not floor.predict(shown_of(rows)).latents["b"].any()


def test_evidence_alone_is_the_evidence() -> None:
    rows, floor = rows_of(), EvidenceFill()
    floor.fit(rows, NUMBERS)
    assert (floor.predict(shown_of(rows)).latents["b"] == 0.25).all()


def test_neighbours_never_are_the_sample_or_its_group() -> None:
    rows, floor = rows_of(), Neighbours()
    floor.fit(rows, NUMBERS)
    own = floor.predict(shown_of(rows, prefix="train"))
    stranger = floor.predict(shown_of(rows))
    truth = rows.latents["b"][:10]
    assert (np.abs(own.draws["b"] - truth[None]).max(axis=2) > 0).all()
    assert (np.abs(stranger.draws["b"][0] - truth).max(axis=1) < 1e-9).all()


def test_ten_neighbours_by_hand() -> None:
    rows, floor = rows_of(30), Neighbours()
    floor.fit(rows, NUMBERS)
    shown = shown_of(rows)
    guess = floor.predict(shown)
    distance = np.linalg.norm(rows.latents["a"] - shown.latents["a"][0], axis=1)
    nearest = np.argsort(distance)[:10]
    assert np.allclose(guess.latents["b"][0], rows.latents["b"][nearest].mean(axis=0))
    assert guess.value is not None
    assert guess.value[0] == pytest.approx(rows.labels[nearest].mean())
    assert guess.probabilities is not None
    assert np.allclose(guess.probabilities.sum(axis=1), 1.0)


def test_neighbours_of_classes_vote() -> None:
    rows, floor = rows_of(labels=np.array([0.0, 1.0] * 100)), Neighbours()
    rows.labels[rows.latents["a"][:, 0] > 0] = 1.0
    rows.labels[rows.latents["a"][:, 0] <= 0] = 0.0
    floor.fit(rows, CLASSES)
    guess = floor.predict(shown_of(rows))
    assert guess.label is not None
    assert guess.probabilities is not None
    assert (guess.label == guess.probabilities.argmax(axis=1)).all()
    assert (guess.label == rows.labels[:10]).mean() >= 0.8


def test_the_best_constant_wins_on_its_metric() -> None:
    labels = np.array([-2.0] * 30 + [-1.0] * 25 + [3.0] * 45)
    rows = rows_of(100, labels)
    found = {}
    for metric in ("acc2", "acc7", "mae"):
        floor = BestConstant(metric)
        floor.fit(rows, NUMBERS)
        value = floor.predict(shown_of(rows)).value
        assert value is not None
        assert np.ptp(value) == 0
        found[metric] = value[0]
    assert found["acc2"] < 0  # 55 of 100 are negative
    assert found["acc7"] == 3.0  # the most frequent degree
    assert found["mae"] == -1.0  # the median


def test_the_constant_of_classes_is_the_most_frequent_with_frequencies_as_probabilities() -> None:
    rows = rows_of(100, np.array([1.0] * 70 + [0.0] * 30))
    floor = BestConstant("accuracy")
    floor.fit(rows, CLASSES)
    guess = floor.predict(shown_of(rows))
    assert guess.label is not None
    assert guess.label.tolist() == [1] * 10
    assert guess.probabilities is not None
    assert guess.probabilities[0].tolist() == [0.3, 0.7]


@pytest.mark.parametrize("floor", every_floor()[1:], ids=lambda floor: floor.name)
def test_without_labels_there_is_no_prediction(floor: Floor) -> None:
    rows = rows_of(labels=np.full(200, np.nan))
    floor.fit(rows, LabelTarget("none"))
    guess = floor.predict(shown_of(rows))
    assert guess.value is None
    assert guess.label is None


@pytest.mark.parametrize("floor", every_floor(), ids=lambda floor: floor.name)
def test_training_rows_with_gaps_serve_too(floor: Floor) -> None:
    rows = rows_of()
    rows.observed[:60, 1] = False
    rows.latents["b"][:60] = 0.0
    rows.observed[60:120, 0] = False
    rows.latents["a"][60:120] = 0.0
    floor.fit(rows, NUMBERS)
    shown = shown_of(rows_of())
    guess = floor.predict(shown)
    assert all(np.isfinite(part).all() for part in guess.latents.values())
    if isinstance(floor, (PatternRidge, Neighbours, GaussianFill)):
        error = np.square(guess.latents["b"] - rows_of().latents["b"][:10]).sum()
        assert error < 0.5 * np.square(rows_of().latents["b"][:10]).sum()


def test_ridge_equals_the_normal_equations_whichever_side_is_smaller() -> None:
    random = np.random.default_rng(1)
    for samples, inputs in ((40, 6), (12, 30)):
        x, y = random.normal(size=(samples, inputs)), random.normal(size=(samples, 2))
        ridge = Ridge.fit(x, y, np.zeros(samples, np.int64))
        centred = x - x.mean(axis=0)
        gram = centred.T @ centred
        strength = 10.0**-0.5 * np.trace(gram) / inputs  # the middle strength: there is one fold
        expected = np.linalg.solve(gram + strength * np.eye(inputs), centred.T @ (y - y.mean(axis=0)))
        assert np.allclose(ridge.weights, expected)


def test_ridge_shrinks_what_is_noise_and_keeps_what_is_signal() -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(120, 20))
    y = np.column_stack([x[:, 0], random.normal(size=120)])
    ridge = Ridge.fit(x, y, group_folds([str(row) for row in range(120)]), [slice(0, 1), slice(1, 2)])
    assert ridge.weights[0, 0] == pytest.approx(1.0, abs=0.01)
    assert np.abs(ridge.weights[:, 1]).max() < 0.1


def test_folds_keep_groups_together() -> None:
    groups = [f"g{row % 13}" for row in range(90)]
    folds = group_folds(groups)
    assert set(folds.tolist()) == set(range(5))
    assert all(len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1 for name in groups)
    assert np.array_equal(folds, group_folds(groups))
