from __future__ import annotations

from itertools import product

import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from torch import Tensor

from omg_graph.executor.kernel import LENGTHS, RIDGES, KernelConditional
from omg_graph.seeding import generator

WIDTHS = {"a": 3, "b": 2, "c.d": 1}
ROWS = 48
IDS = tuple(f"row{row}" for row in range(ROWS))
GROUPS = tuple(f"group{row // 3}" for row in range(ROWS))
NEW = tuple(f"new{row}" for row in range(ROWS))
FIRST = torch.zeros(ROWS, dtype=torch.int64)
PATTERNS = [list(pattern) for pattern in product((False, True), repeat=3) if any(pattern)]


def rows(seed: int = 0, count: int = ROWS) -> dict[str, Tensor]:
    source = generator("kernel rows", seed)
    a, c = torch.randn(count, 3, generator=source), torch.randn(count, 1, generator=source)
    return {"a": a, "b": torch.tanh(2 * a[:, :2]) + 0.2 * c, "c.d": c}


def kept(known: Tensor | None = None, groups: tuple[str, ...] = GROUPS) -> KernelConditional:
    known = torch.ones(ROWS, 3, dtype=torch.bool) if known is None else known
    model = KernelConditional.keep(rows(), known, IDS, groups)
    set_ridge(model)
    return model


def rounded(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """To half precision, as rows are kept and inputs are read."""
    return {name: value.half().float() for name, value in values.items()}


def set_ridge(model: KernelConditional, ridge: float = 0.05) -> None:
    model.patterns = torch.tensor([[True, False, False]])
    model.lengths, model.ridges = torch.ones(1, 3), torch.full((1, 3), ridge)


def showing(pattern: list[bool], count: int = ROWS) -> Tensor:
    return torch.tensor([pattern]).expand(count, 3)


def test_one_modality_gives_gaussian_process_regression() -> None:
    model, new = kept(), rounded(rows(1, 7))
    process = GaussianProcessRegressor(
        Matern(length_scale=float(model.spreads[0].sqrt()), nu=1.5), alpha=0.05, optimizer=None
    ).fit(rounded(rows())["a"].numpy(), rounded(rows())["b"].numpy())
    predicted = model.predict("b", new, showing([True, False, False], 7), NEW[:7], NEW[:7])
    assert torch.allclose(predicted, torch.from_numpy(process.predict(new["a"].numpy())).float(), atol=1e-4)


@pytest.mark.parametrize("pattern", [[True, False, True], [True, False, False]])
def test_own_groups_are_left_out_exactly(pattern: list[bool]) -> None:
    """The closed form equals keeping only the others."""
    model, latents = kept(), rows()
    together = model.predict("b", latents, showing(pattern), IDS, GROUPS)
    for group in range(0, ROWS // 3, 5):
        own = torch.tensor([name == f"group{group}" for name in GROUPS])
        names = [name for name, mine in zip(IDS, own.tolist(), strict=True) if not mine]
        others = KernelConditional.keep(
            {name: value[~own] for name, value in latents.items()},
            torch.ones(ROWS - 3, 3, dtype=torch.bool),
            names,
            names,
        )
        set_ridge(others)
        others.spreads.copy_(model.spreads)
        part = {name: value[own] for name, value in latents.items()}
        alone = others.predict("b", part, showing(pattern, 3), NEW[:3], NEW[:3])
        assert torch.allclose(together[own], alone, atol=1e-4)


def test_an_id_is_enough_to_be_left_out() -> None:
    model, latents = kept(groups=IDS), rows()
    pattern = showing([True, False, True])
    by_id = model.predict("b", latents, pattern, IDS, NEW)
    assert torch.allclose(by_id, model.predict("b", latents, pattern, NEW, IDS), atol=1e-6)
    assert float((model.predict("b", latents, pattern, NEW, NEW) - by_id).abs().max()) > 0.05


def test_what_is_not_observed_is_not_read() -> None:
    model, latents = kept(), rows(2)
    noisy = {**latents, "b": torch.full_like(latents["b"], 9.0), "c.d": torch.full_like(latents["c.d"], 9.0)}
    pattern = showing([True, False, False])
    assert torch.equal(
        model.predict("b", latents, pattern, NEW, NEW), model.predict("b", noisy, pattern, NEW, NEW)
    )
    assert not model.predict("b", latents, showing([False, True, False]), NEW, NEW).any()


def test_rows_that_lack_the_target_never_serve_as_one() -> None:
    known = torch.ones(ROWS, 3, dtype=torch.bool)
    known[::2, 1] = False
    model, other = kept(known), kept(known)
    other.latents[::2, 3:5] = 99.0
    pattern = showing([True, False, True])
    assert torch.equal(
        model.predict("b", rows(3), pattern, NEW, NEW), other.predict("b", rows(3), pattern, NEW, NEW)
    )


def test_targets_that_other_rows_know_do_not_get_in_each_other_s_way() -> None:
    known = torch.ones(ROWS, 3, dtype=torch.bool)
    known[::2, 1] = False
    used, pattern = kept(known), showing([True, False, False])
    for target in ("b", "c.d", "b"):
        fresh = kept(known).predict(target, rows(3), pattern, NEW, NEW)
        assert torch.equal(used.predict(target, rows(3), pattern, NEW, NEW), fresh)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_alone_is_the_row_in_its_batch(pattern: list[bool]) -> None:
    model, latents = kept(), rows()
    together = model.predict("c.d", latents, showing(pattern), IDS, GROUPS)
    for row in (0, 20):
        part = {name: value[row : row + 1] for name, value in latents.items()}
        alone = model.predict("c.d", part, showing(pattern, 1), IDS[row : row + 1], GROUPS[row : row + 1])
        assert torch.allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_tuning_learns_what_there_is_and_shrinks_what_there_is_not() -> None:
    """b follows from a, and c.d from nothing: there the strongest ridge predicts best."""
    model = kept()
    model.tune(torch.tensor([[True, False, False], [True, False, True], [True, True, False]]))
    assert float(model.ridges[0, 1]) <= 1.0
    assert float(model.ridges[0, 2]) >= 10.0
    new = rows(4)
    error = (model.predict("b", new, showing([True, False, False]), NEW, NEW) - new["b"]).square().mean()
    assert float(error) < 0.35 * float(new["b"].square().mean())


def test_tuning_finds_the_smallest_error_without_own_groups() -> None:
    """What was chosen beats every other candidate when rows are predicted without their groups."""
    model, pattern = kept(), [True, False, True]
    model.tune(torch.tensor([pattern]), ["b"])
    chosen = (float(model.lengths[0, 1]), float(model.ridges[0, 1]))
    errors = {}
    for length, ridge in product(LENGTHS, RIDGES):
        model.lengths.fill_(length)
        model.ridges.fill_(ridge)
        model.load_state_dict(model.state_dict())
        guess = model.predict("b", rows(), showing(pattern), IDS, GROUPS)
        errors[length, ridge] = float((guess - rows()["b"]).square().sum())
    assert errors[min(errors, key=lambda pair: errors[pair])] == pytest.approx(
        min(value for (length, ridge), value in errors.items() if close(chosen, (length, ridge))), rel=1e-3
    )


def close(left: tuple[float, float], right: tuple[float, float]) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(left, right, strict=True))


def test_an_observed_set_takes_what_the_most_alike_took() -> None:
    model = kept()
    model.patterns = torch.tensor([[True, False, False], [True, False, True], [True, True, True]])
    model.lengths, model.ridges = torch.tensor([[1.0], [2.0], [4.0]]).expand(3, 3), torch.ones(3, 3)
    assert model._chosen(1, torch.tensor([True, False, True]))[0] == 2.0
    assert model._chosen(1, torch.tensor([False, False, True]))[0] == 2.0
    assert model._chosen(1, torch.tensor([True, False, False]))[0] == 1.0


def test_what_was_kept_is_loaded_with_its_size() -> None:
    model = kept()
    loaded = KernelConditional(WIDTHS)
    assert not loaded.predict("b", rows(), showing([True, False, False]), NEW, NEW).any()
    loaded.load_state_dict(model.state_dict())
    pattern = showing([True, False, True])
    assert torch.equal(
        loaded.predict("b", rows(), pattern, IDS, GROUPS), model.predict("b", rows(), pattern, IDS, GROUPS)
    )


def test_a_neighbour_s_residual_is_what_the_others_left_of_it() -> None:
    model, latents = kept(), rows()
    pattern = [True, False, True]
    left = rounded(latents)["b"] - model.predict("b", latents, showing(pattern), IDS, GROUPS)
    unit = left / left.square().mean().sqrt()
    first = model.alike_rows("b", latents, showing(pattern), NEW, NEW).residuals(FIRST)
    assert torch.allclose(first, unit, atol=1e-3)  # the most alike of a row that nobody knows is itself


def test_residuals_never_come_from_the_own_group() -> None:
    model, latents = kept(), rows()
    pattern = showing([True, False, True])
    unit = model._left("b", pattern[0])
    alike = model.alike_rows("b", latents, pattern, IDS, GROUPS)
    for rank in (0, 1, 44, 45):
        taken = alike.residuals(torch.full((ROWS,), rank))
        source = torch.cdist(taken, unit).argmin(dim=1)
        assert all(GROUPS[row] != GROUPS[int(other)] for row, other in enumerate(source))
    assert torch.equal(alike.residuals(torch.full((ROWS,), 45)), alike.residuals(FIRST))


def test_where_all_rows_are_its_own_a_sample_gets_nothing() -> None:
    model, latents = kept(groups=("one",) * ROWS), rows()
    pattern, one = showing([True, False, True]), ("one",) * ROWS
    ranks = torch.arange(ROWS)
    assert not model.alike_rows("b", latents, pattern, NEW, one).residuals(ranks).any()
    assert torch.allclose(model.predict("b", latents, pattern, NEW, one), torch.zeros(ROWS, 2), atol=1e-6)


def test_a_neighbour_is_the_same_alone_and_in_a_batch() -> None:
    """Also among rows that are alike to the last digit."""
    values = rows()
    values = {name: value[:12].repeat(4, 1) for name, value in values.items()}
    model = KernelConditional.keep(values, torch.ones(ROWS, 3, dtype=torch.bool), IDS, IDS)
    pattern, ranks = [True, False, True], torch.arange(ROWS) % 7
    together = model.alike_rows("b", values, showing(pattern), NEW, NEW).residuals(ranks)
    for row in range(ROWS):
        part = {name: value[row : row + 1] for name, value in values.items()}
        name, rank = NEW[row : row + 1], ranks[row : row + 1]
        alone = model.alike_rows("b", part, showing(pattern, 1), name, name).residuals(rank)
        assert torch.equal(alone[0], together[row])


def test_nothing_solved_survives_a_move() -> None:
    model = kept()
    model.predict("b", rows(), showing([True, False, True]), IDS, GROUPS)
    assert model._solved
    model.to("meta")
    assert not model._solved
    assert model._last_inverse is None
    assert model._last_references is None


def test_what_half_precision_cannot_hold_stays_finite() -> None:
    values = {name: value.clone() for name, value in rows().items()}
    values["a"][0] = 1e6
    model = KernelConditional.keep(values, torch.ones(ROWS, 3, dtype=torch.bool), IDS, GROUPS)
    assert bool(model.predict("b", values, showing([True, False, True]), IDS, GROUPS).isfinite().all())
