"""Trained floors on cases small enough to know what must come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.bench.baselines.completing import (
    Cascade,
    autoencoder,
    cascaded_residual_autoencoder,
    masked_mlp,
    modality_dropout,
)
from omg_graph.bench.baselines.correlation import (
    CanonicalRegression,
    CCAFill,
    canonical_weights,
    deep_cca,
    deep_cca_autoencoders,
    total_correlation,
)
from omg_graph.bench.baselines.fitted import FittedCache, Fitting
from omg_graph.bench.baselines.networks import NetworkRows, NetworkSettings, draw_visible, held_out
from omg_graph.bench.baselines.specialist import PatternLogistic, Specialist
from omg_graph.evaluation.floor_data import Shown, TrainingRows, validation_folds
from omg_graph.evaluation.floors import Floor
from omg_graph.evaluation.tables import LabelTarget

pytest.importorskip("sklearn")

NUMBERS = LabelTarget("mosi", degrees=(-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0))
CLASSES = LabelTarget("classes", names=("ant", "bee", "cat"))
SMALL = NetworkSettings(hidden=32, dropout=0.0, epochs=60, batch_size=32, learning_rate=5e-3, patience=10)


def rows_of(count: int = 120, seed: int = 0, prefix: str = "train") -> TrainingRows:
    """``b`` is a linear map of ``a``, ``c`` is noise, and the label the first number of ``a``."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(count, 3))
    b = a @ np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
    return TrainingRows(
        latents={"a": a, "b": b, "c": random.normal(size=(count, 2))},
        observed=np.ones((count, 3), bool),
        ids=tuple(f"{prefix}-{row}" for row in range(count)),
        groups=tuple(f"{prefix}-g{row // 4}" for row in range(count)),
        labels=a[:, 0].clip(-3, 3),
        source="here",
    )


def shown_of(rows: TrainingRows, *hidden: int) -> Shown:
    visible = np.ones_like(rows.observed)
    visible[:, list(hidden)] = False
    return Shown(
        latents={
            name: part * visible[:, column : column + 1]
            for column, (name, part) in enumerate(rows.latents.items())
        },
        visible=visible,
        ids=rows.ids,
        groups=rows.groups,
        evidence={name: np.zeros_like(part) for name, part in rows.latents.items()},
    )


def some(shown: Shown, *places: int) -> Shown:
    chosen = list(places)
    return Shown(
        latents={name: part[chosen] for name, part in shown.latents.items()},
        visible=shown.visible[chosen],
        ids=tuple(shown.ids[place] for place in chosen),
        groups=tuple(shown.groups[place] for place in chosen),
        evidence={name: part[chosen] for name, part in shown.evidence.items()},
    )


def classes_of(rows: TrainingRows) -> np.ndarray:
    """The third of the label's range."""
    return np.digitize(rows.labels, [-0.6, 0.6])


def every_floor(fitting: Fitting) -> list[Floor]:
    return [
        masked_mlp(SMALL, SMALL, fitting),
        modality_dropout(SMALL, fitting),
        PatternLogistic(fitting),
        Specialist(fitting),
        autoencoder(SMALL, fitting),
        cascaded_residual_autoencoder(SMALL, fitting),
        CCAFill(fitting),
        deep_cca(SMALL, fitting),
        deep_cca_autoencoders(SMALL, fitting),
    ]


NAMES = [floor.name for floor in every_floor(Fitting(0, FittedCache(Path("nowhere"))))]
COMPLETING = [name for name in NAMES if name not in ("modality dropout", "logistic per pattern")]


def rows_with_gaps() -> TrainingRows:
    """Some rows lack ``a``, some ``b``, and some the label."""
    rows = rows_of(180)
    rows.observed[:30, 1] = False
    rows.observed[30:50, 0] = False
    for column, part in enumerate(rows.latents.values()):
        part[~rows.observed[:, column]] = 0.0
    rows.labels[60:70] = np.nan
    return rows


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Fitting:
    return Fitting(3, FittedCache(tmp_path_factory.mktemp("fitted")))


@pytest.fixture(scope="module")
def fitted(shared: Fitting) -> dict[str, Floor]:
    """Every floor, trained on numbers."""
    floors = {floor.name: floor for floor in every_floor(shared)}
    for floor in floors.values():
        floor.fit(rows_with_gaps(), NUMBERS)
    return floors


@pytest.mark.parametrize("name", COMPLETING)
def test_what_is_linear_is_learned_and_noise_is_not(name: str, fitted: dict[str, Floor]) -> None:
    new = rows_of(60, seed=1, prefix="new")
    guess = fitted[name].predict(shown_of(new, 1, 2))
    for modality, most in {"b": 0.25, "c": 1.25}.items():
        error = np.square(guess.latents[modality] - new.latents[modality]).sum()
        assert error < most * np.square(new.latents[modality]).sum()


@pytest.mark.parametrize("name", NAMES)
def test_the_label_beats_a_constant(name: str, fitted: dict[str, Floor]) -> None:
    new = rows_of(60, seed=1, prefix="new")
    value = fitted[name].predict(shown_of(new, 1)).value
    assert value is not None
    assert ((value > 0) == (new.labels > 0)).mean() > 0.85
    assert np.abs(value - new.labels).mean() < 0.8 * np.abs(new.labels).mean()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_predicted_alike_alone_and_among_others(name: str, fitted: dict[str, Floor]) -> None:
    shown = shown_of(rows_of(12, seed=1, prefix="new"), 1)
    together, alone = fitted[name].predict(shown), fitted[name].predict(some(shown, 7))
    assert together.value is not None
    assert alone.value is not None
    assert alone.value[0] == pytest.approx(together.value[7], abs=1e-4)
    if "b" in together.latents:
        assert np.allclose(alone.latents["b"][0], together.latents["b"][7], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_depends_on_what_is_hidden(name: str, fitted: dict[str, Floor]) -> None:
    """A floor sees zeros where a modality is hidden, so another truth there changes nothing."""
    rows = rows_of(12, seed=1, prefix="new")
    other = replace(rows, latents=rows.latents | {"b": rows.latents["b"] + 5.0}, labels=-rows.labels)
    first, second = (fitted[name].predict(shown_of(new, 1)) for new in (rows, other))
    assert np.array_equal(np.asarray(first.value), np.asarray(second.value))
    if "b" in first.latents:
        assert np.array_equal(first.latents["b"], second.latents["b"])


@pytest.mark.parametrize("name", NAMES)
def test_a_second_fit_is_read_from_the_cache_and_says_the_same(
    name: str, fitted: dict[str, Floor], shared: Fitting
) -> None:
    shown = shown_of(rows_of(5, seed=1, prefix="new"), 1)
    first, made = fitted[name].predict(shown), shared.cache.fitted
    (floor,) = (floor for floor in every_floor(shared) if floor.name == name)
    floor.fit(rows_with_gaps(), NUMBERS)
    again = floor.predict(shown)
    assert shared.cache.fitted == made > 0
    assert np.array_equal(np.asarray(first.value), np.asarray(again.value))
    assert all(np.array_equal(part, again.latents[key]) for key, part in first.latents.items())


@pytest.mark.parametrize(
    "name", ["MLP with mask", "modality dropout", "specialist", "logistic per pattern", "CCA"]
)
def test_classes_that_can_be_told_apart_are(name: str, shared: Fitting) -> None:
    rows, new = rows_of(), rows_of(60, seed=1, prefix="new")
    labelled = replace(rows, labels=classes_of(rows).astype(float))
    (floor,) = (floor for floor in every_floor(shared) if floor.name == name)
    floor.fit(labelled, CLASSES)
    guess = floor.predict(shown_of(new, 2))
    assert guess.label is not None
    assert (guess.label == classes_of(new)).mean() > 0.75
    if guess.probabilities is not None:
        assert np.allclose(guess.probabilities.sum(axis=1), 1.0)
        assert (guess.probabilities.argmax(axis=1) == guess.label).all()


def test_a_cascade_without_blocks_is_the_identity_and_so_is_an_untrained_one() -> None:
    latents = {"a": torch.randn(4, 2), "b": torch.randn(4, 4)}
    for blocks in (0, 3):
        made = Cascade({"a": 2, "b": 4}, 8, 0.0, blocks)(latents, torch.ones(4, 2))
        assert all(torch.equal(made[name], part) for name, part in latents.items())


def test_cca_finds_a_planted_correlation() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(400, 1))
    x, y = random.normal(size=(400, 5)), random.normal(size=(400, 3))
    x[:, 2:3] += 3.0 * shared
    y[:, 1:2] += 3.0 * shared
    found = CanonicalRegression.fit(x, y, validation_folds([str(row) for row in range(400)]))
    assert found.rotation.shape[1] == 1  # one direction is shared, the rest is noise
    assert np.abs(found.rotation[2, 0]) > 5 * np.abs(np.delete(found.rotation[:, 0], 2)).max()
    residual = np.square(y - found.predict(x)).sum(axis=0) / np.square(y - y.mean(axis=0)).sum(axis=0)
    assert residual[1] < 0.3
    assert residual[[0, 2]].min() > 0.9


def test_cca_has_the_directions_of_scikit_learns() -> None:
    from sklearn.cross_decomposition import CCA

    random = np.random.default_rng(1)
    x = random.normal(size=(300, 6)) @ random.normal(size=(6, 6))
    y = x[:, :4] @ random.normal(size=(4, 4)) + 2.0 * random.normal(size=(300, 4))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    theirs = x @ CCA(n_components=3, scale=False, max_iter=5000, tol=1e-12).fit(x, y).x_rotations_
    ours = x @ canonical_weights(x, y, 3)
    for component in range(3):
        assert abs(np.corrcoef(ours[:, component], theirs[:, component])[0, 1]) == pytest.approx(
            1.0, abs=1e-3
        )


def test_cca_of_unrelated_modalities_predicts_the_mean() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 4)), random.normal(size=(200, 3))
    found = CanonicalRegression.fit(x, y, validation_folds([str(row) for row in range(200)]))
    assert np.allclose(found.predict(x), y.mean(axis=0))


def test_total_correlation_is_the_number_of_shared_directions() -> None:
    random = np.random.default_rng(0)
    first = torch.from_numpy(random.normal(size=(4000, 3)))
    turned = first @ torch.from_numpy(random.normal(size=(3, 3)))
    unrelated = torch.from_numpy(random.normal(size=(4000, 3)))
    assert total_correlation(first, turned).item() == pytest.approx(3.0, abs=0.2)
    assert total_correlation(first, unrelated).item() < 0.2
    half = torch.cat([first[:, :1], unrelated[:, 1:]], dim=1)
    assert total_correlation(first, half).item() == pytest.approx(1.0, abs=0.15)


def test_patterns_show_a_part_of_what_is_there_and_never_nothing() -> None:
    observed = np.array([[True, True, True], [True, False, True], [False, True, False]] * 300)
    visible = draw_visible(observed, np.random.default_rng(0))
    assert not (visible & ~observed).any()
    assert visible.any(axis=1).all()
    sizes = np.bincount(visible[::3].sum(axis=1), minlength=4)[1:] / 300
    assert np.allclose(sizes, 1 / 3, atol=0.1)


def test_the_error_is_of_what_is_hidden_and_known_and_nothing_else() -> None:
    rows = rows_of(4)
    rows.observed[0, 1] = False
    data = NetworkRows.of(rows)
    which, visible = np.arange(2), np.array([[True, False, True], [True, False, True]])
    estimates = {name: torch.zeros(2, width, requires_grad=True) for name, width in data.widths.items()}
    error = data.hidden_error(which, visible, estimates)
    assert error.item() == pytest.approx(data.latents["b"][1].square().mean().item())
    nothing = data.hidden_error(which, np.ones_like(visible), estimates)
    assert nothing.item() == 0.0
    nothing.backward()
    assert estimates["a"].grad is not None


def test_rows_that_choose_epochs_share_no_group_with_the_others() -> None:
    groups = tuple(f"g{row // 5}" for row in range(100))
    held = held_out(groups)
    assert 0.1 < held.mean() < 0.3
    assert not {g for g, out in zip(groups, held, strict=True) if out} & {
        g for g, out in zip(groups, held, strict=True) if not out
    }
    assert 0 < held_out(("one",) * 10).sum() < 10
