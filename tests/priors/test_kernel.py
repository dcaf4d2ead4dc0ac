from __future__ import annotations

from itertools import product

import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from torch import Tensor

from omg_graph.priors import kernel as kernel_module
from omg_graph.priors.kernel import KernelConditional, _Kept
from omg_graph.priors.kernel_fitting import LENGTHS, RIDGES, _spread_relevance, tune_kernel
from omg_graph.priors.prior import Shown
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
    model.relevance = torch.ones(1, 3, 3)


def showing(pattern: list[bool], count: int = ROWS) -> Tensor:
    return torch.tensor([pattern]).expand(count, 3)


def shown(
    latents: dict[str, Tensor], observed: Tensor, ids: tuple[str, ...], groups: tuple[str, ...]
) -> Shown:
    return Shown(ids=ids, groups=groups, latents=latents, observed=observed)


def test_one_modality_gives_gaussian_process_regression() -> None:
    model, new = kept(), rounded(rows(1, 7))
    process = GaussianProcessRegressor(
        Matern(length_scale=float(model.spreads[0].sqrt()), nu=1.5), alpha=0.05, optimizer=None
    ).fit(rounded(rows())["a"].numpy(), rounded(rows())["b"].numpy())
    predicted = model.predict("b", shown(new, showing([True, False, False], 7), NEW[:7], NEW[:7]))
    assert torch.allclose(predicted, torch.from_numpy(process.predict(new["a"].numpy())).float(), atol=1e-4)


@pytest.mark.parametrize("pattern", [[True, False, True], [True, False, False]])
def test_own_groups_are_left_out_exactly(pattern: list[bool]) -> None:
    """The closed form equals keeping only the others."""
    model, latents = kept(), rows()
    together = model.predict("b", shown(latents, showing(pattern), IDS, GROUPS))
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
        alone = others.predict("b", shown(part, showing(pattern, 3), NEW[:3], NEW[:3]))
        assert torch.allclose(together[own], alone, atol=1e-4)


def test_an_id_is_enough_to_be_left_out() -> None:
    model, latents = kept(groups=IDS), rows()
    pattern = showing([True, False, True])
    by_id = model.predict("b", shown(latents, pattern, IDS, NEW))
    assert torch.allclose(by_id, model.predict("b", shown(latents, pattern, NEW, IDS)), atol=1e-6)
    assert float((model.predict("b", shown(latents, pattern, NEW, NEW)) - by_id).abs().max()) > 0.05


def test_what_is_not_observed_is_not_read() -> None:
    model, latents = kept(), rows(2)
    noisy = {**latents, "b": torch.full_like(latents["b"], 9.0), "c.d": torch.full_like(latents["c.d"], 9.0)}
    pattern = showing([True, False, False])
    assert torch.equal(
        model.predict("b", shown(latents, pattern, NEW, NEW)),
        model.predict("b", shown(noisy, pattern, NEW, NEW)),
    )
    assert not model.predict("b", shown(latents, showing([False, True, False]), NEW, NEW)).any()


def test_rows_that_lack_the_target_never_serve_as_one() -> None:
    known = torch.ones(ROWS, 3, dtype=torch.bool)
    known[::2, 1] = False
    model, other = kept(known), kept(known)
    other.latents[::2, 3:5] = 99.0
    pattern = showing([True, False, True])
    assert torch.equal(
        model.predict("b", shown(rows(3), pattern, NEW, NEW)),
        other.predict("b", shown(rows(3), pattern, NEW, NEW)),
    )


def test_targets_that_other_rows_know_do_not_get_in_each_other_s_way() -> None:
    known = torch.ones(ROWS, 3, dtype=torch.bool)
    known[::2, 1] = False
    used, pattern = kept(known), showing([True, False, False])
    for target in ("b", "c.d", "b"):
        fresh = kept(known).predict(target, shown(rows(3), pattern, NEW, NEW))
        assert torch.equal(used.predict(target, shown(rows(3), pattern, NEW, NEW)), fresh)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_alone_is_the_row_in_its_batch(pattern: list[bool]) -> None:
    model, latents = kept(), rows()
    together = model.predict("c.d", shown(latents, showing(pattern), IDS, GROUPS))
    for row in (0, 20):
        part = {name: value[row : row + 1] for name, value in latents.items()}
        alone = model.predict(
            "c.d", shown(part, showing(pattern, 1), IDS[row : row + 1], GROUPS[row : row + 1])
        )
        assert torch.allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_an_observed_set_takes_what_the_most_similar_took() -> None:
    model = kept()
    model.patterns = torch.tensor([[True, False, False], [True, False, True], [True, True, True]])
    model.lengths, model.ridges = torch.tensor([[1.0], [2.0], [4.0]]).expand(3, 3), torch.ones(3, 3)
    model.relevance = torch.ones(3, 3, 3)
    assert model._chosen(1, torch.tensor([True, False, True]))[0] == 2.0
    assert model._chosen(1, torch.tensor([False, False, True]))[0] == 2.0
    assert model._chosen(1, torch.tensor([True, False, False]))[0] == 1.0


def test_what_was_kept_is_loaded_with_its_size() -> None:
    model = kept()
    loaded = KernelConditional(WIDTHS)
    assert not loaded.predict("b", shown(rows(), showing([True, False, False]), NEW, NEW)).any()
    loaded.load_state_dict(model.state_dict())
    pattern = showing([True, False, True])
    assert torch.equal(
        loaded.predict("b", shown(rows(), pattern, IDS, GROUPS)),
        model.predict("b", shown(rows(), pattern, IDS, GROUPS)),
    )


def test_a_neighbour_s_residual_is_what_the_others_left_of_it() -> None:
    model, latents = kept(), rows()
    pattern = [True, False, True]
    left = rounded(latents)["b"] - model.predict("b", shown(latents, showing(pattern), IDS, GROUPS))
    unit = left / left.square().mean().sqrt()
    first = model.similar_rows("b", shown(latents, showing(pattern), NEW, NEW)).residuals(FIRST)
    assert torch.allclose(first, unit, atol=1e-3)  # the most alike of a row that nobody knows is itself


def test_residuals_never_come_from_the_own_group() -> None:
    model, latents = kept(), rows()
    pattern = showing([True, False, True])
    unit = model._left("b", pattern[0])
    similar = model.similar_rows("b", shown(latents, pattern, IDS, GROUPS))
    for rank in (0, 1, 44, 45):
        taken = similar.residuals(torch.full((ROWS,), rank))
        source = torch.cdist(taken, unit).argmin(dim=1)
        assert all(GROUPS[row] != GROUPS[int(other)] for row, other in enumerate(source))
    assert torch.equal(similar.residuals(torch.full((ROWS,), 45)), similar.residuals(FIRST))


def test_where_all_rows_are_its_own_a_sample_gets_nothing() -> None:
    model, latents = kept(groups=("one",) * ROWS), rows()
    pattern, one = showing([True, False, True]), ("one",) * ROWS
    ranks = torch.arange(ROWS)
    assert not model.similar_rows("b", shown(latents, pattern, NEW, one)).residuals(ranks).any()
    assert torch.allclose(
        model.predict("b", shown(latents, pattern, NEW, one)), torch.zeros(ROWS, 2), atol=1e-6
    )


def test_a_neighbour_is_the_same_alone_and_in_a_batch() -> None:
    """Also among rows that are alike to the last digit."""
    values = rows()
    values = {name: value[:12].repeat(4, 1) for name, value in values.items()}
    model = KernelConditional.keep(values, torch.ones(ROWS, 3, dtype=torch.bool), IDS, IDS)
    pattern, ranks = [True, False, True], torch.arange(ROWS) % 7
    together = model.similar_rows("b", shown(values, showing(pattern), NEW, NEW)).residuals(ranks)
    for row in range(ROWS):
        part = {name: value[row : row + 1] for name, value in values.items()}
        name, rank = NEW[row : row + 1], ranks[row : row + 1]
        alone = model.similar_rows("b", shown(part, showing(pattern, 1), name, name)).residuals(rank)
        assert torch.equal(alone[0], together[row])


def test_samples_that_observe_the_target_get_zeros() -> None:
    model, latents = kept(), rows()
    pattern = torch.tensor([[True, True, False], [True, False, True]]).repeat(ROWS // 2, 1)
    together = model.predict("b", shown(latents, pattern, IDS, GROUPS))
    assert not together[pattern[:, 1]].any()
    alone = model.predict("b", shown(latents, showing([True, False, True]), IDS, GROUPS))
    assert torch.allclose(together[~pattern[:, 1]], alone[~pattern[:, 1]], atol=1e-6)
    assert (
        not model.similar_rows("b", shown(latents, pattern, NEW, NEW)).residuals(FIRST)[pattern[:, 1]].any()
    )


def test_new_samples_are_predicted_alike_without_the_inverse() -> None:
    """In use a system is solved for its right side alone; in training its inverse is at hand."""
    training, used = kept().train(), kept().eval()
    for pattern, target in product(([True, False, True], [True, False, False]), ("b", "c.d")):
        one, other = (m.predict(target, shown(rows(5), showing(pattern), NEW, NEW)) for m in (training, used))
        assert torch.allclose(one, other, atol=1e-6)
    assert training._last_inverse is not None
    assert used._last_inverse is None
    own = used.predict("b", shown(rows(), showing([True, False, True]), IDS, GROUPS))
    assert torch.allclose(
        own, training.predict("b", shown(rows(), showing([True, False, True]), IDS, GROUPS))
    )


def test_what_is_kept_of_solutions_changes_no_result() -> None:
    model, forgetful = kept(), kept()
    forgetful._solved = _Kept(3000)
    for pattern, target in product(PATTERNS * 2, WIDTHS):
        asked = (target, shown(rows(5), showing(pattern), NEW, NEW))
        assert torch.allclose(model.predict(*asked), forgetful.predict(*asked), atol=1e-6)
        one, other = (m.similar_rows(*asked).residuals(FIRST) for m in (model, forgetful))
        assert torch.allclose(one, other, atol=1e-5)
        assert forgetful._solved.bytes <= 3000
    assert model._solved.bytes > 3000


def test_a_kernel_is_the_same_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = showing([True, True, False])
    whole = kept().predict("c.d", shown(rows(5), pattern, NEW, NEW))
    monkeypatch.setattr(kernel_module, "BLOCK", 7)
    assert torch.allclose(kept().predict("c.d", shown(rows(5), pattern, NEW, NEW)), whole, atol=1e-6)


def test_rows_in_groups_of_their_own_are_left_out_one_by_one() -> None:
    """Some alone and some together give what each gives by itself."""
    mixed = tuple(name if row < 24 else f"group{row // 3}" for row, name in enumerate(IDS))
    model, latents = kept(groups=mixed), rows()
    pattern = [True, False, True]
    left = rounded(latents)["b"] - model.predict("b", shown(latents, showing(pattern), IDS, mixed))
    unit = left / left.square().mean().sqrt()
    assert torch.allclose(model._left("b", torch.tensor(pattern)), unit, atol=1e-3)


def test_nothing_solved_survives_a_move() -> None:
    model = kept()
    model.predict("b", shown(rows(), showing([True, False, True]), IDS, GROUPS))
    assert model._solved.bytes
    model.to("meta")
    assert not model._solved.bytes
    assert model._last_factor is None
    assert model._last_inverse is None
    assert model._last_references is None


def test_what_half_precision_cannot_hold_stays_finite() -> None:
    values = {name: value.clone() for name, value in rows().items()}
    values["a"][0] = 1e6
    model = KernelConditional.keep(values, torch.ones(ROWS, 3, dtype=torch.bool), IDS, GROUPS)
    assert bool(model.predict("b", shown(values, showing([True, False, True]), IDS, GROUPS)).isfinite().all())


def test_more_rows_are_as_if_they_had_been_kept_from_the_start() -> None:
    latents, every = rows(), torch.ones(ROWS, 3, dtype=torch.bool)
    every[40:, 1] = False
    first = {name: value[:30] for name, value in latents.items()}
    model = KernelConditional.keep(first, every[:30], IDS[:30], GROUPS[:30])
    whole = KernelConditional.keep(latents, every, IDS, GROUPS)
    whole.spreads.copy_(model.spreads)
    for one in (model, whole):
        set_ridge(one)
    extended = model.extended(latents, every, IDS, GROUPS)
    pattern = showing([True, False, True])
    assert torch.allclose(
        extended.predict("b", shown(rows(5), pattern, NEW, NEW)),
        whole.predict("b", shown(rows(5), pattern, NEW, NEW)),
    )
    assert len(model.known) == 30
    assert model.extended(first, every[:30], IDS[:30], GROUPS[:30]) is model
    assert len(model.extended(latents, every, IDS, GROUPS, most=5).known) == 35


def test_tuning_learns_what_there_is_and_shrinks_what_there_is_not() -> None:
    """b follows from a, and c.d from nothing: there the strongest ridge predicts best."""
    model = kept()
    tune_kernel(model, torch.tensor([[True, False, False], [True, False, True], [True, True, False]]))
    assert float(model.ridges[0, 1]) <= 1.0
    assert float(model.ridges[0, 2]) >= 10.0
    new = rows(4)
    error = (
        (model.predict("b", shown(new, showing([True, False, False]), NEW, NEW)) - new["b"]).square().mean()
    )
    assert float(error) < 0.35 * float(new["b"].square().mean())


def test_tuning_finds_the_smallest_error_without_own_groups() -> None:
    """What was chosen beats every other candidate when rows are predicted without their groups."""
    model, pattern = kept(), [True, False, True]
    tune_kernel(model, torch.tensor([pattern]), ["b"])
    chosen = (float(model.lengths[0, 1]), float(model.ridges[0, 1]))
    errors = {}
    for length, ridge in product(LENGTHS, RIDGES):
        model.lengths.fill_(length)
        model.ridges.fill_(ridge)
        model.load_state_dict(model.state_dict())
        guess = model.predict("b", shown(rows(), showing(pattern), IDS, GROUPS))
        errors[length, ridge] = float((guess - rows()["b"]).square().sum())
    assert errors[min(errors, key=lambda pair: errors[pair])] == pytest.approx(
        min(value for (length, ridge), value in errors.items() if close(chosen, (length, ridge))), rel=1e-3
    )


def close(left: tuple[float, float], right: tuple[float, float]) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(left, right, strict=True))


def test_a_modality_that_says_nothing_of_who_is_alike_loses_relevance() -> None:
    source = generator("relevance")
    count = 200
    a, noise = torch.randn(count, 3, generator=source), torch.randn(count, 2, generator=source)
    latents = {"a": a, "b": 3 * noise, "c.d": torch.sin(2 * a[:, :1])}
    names = tuple(f"row{row}" for row in range(count))
    every = torch.ones(count, 3, dtype=torch.bool)
    model = KernelConditional.keep(latents, every, names, names)
    tune_kernel(model, torch.tensor([[True, False, False], [True, True, False]]), ["c.d"])
    assert model.relevance[1, 2, 0] == 1
    assert float(model.relevance[1, 2, 1]) < 0.1
    assert torch.equal(model.relevance[0, 2, :1], torch.ones(1))  # alone there is nothing to weigh it against
    observed = torch.tensor([[True, True, False]]).expand(count, 3)
    weighed = model.predict("c.d", shown(latents, observed, names, names))
    model.relevance = torch.ones_like(model.relevance)
    model.forget()
    alike = model.predict("c.d", shown(latents, observed, names, names))
    errors = [float((guess - latents["c.d"]).square().mean()) for guess in (weighed, alike)]
    assert errors[0] < 0.7 * errors[1]


def test_modalities_that_tell_alike_count_alike() -> None:
    """What a search could gain by chance is left."""
    source = generator("alike")
    hidden = torch.randn(150, 1, generator=source)
    noisy = [hidden + 0.5 * torch.randn(150, 1, generator=source) for _ in range(2)]
    latents = {"a": noisy[0], "b": noisy[1], "c": hidden}
    names = tuple(f"row{row}" for row in range(150))
    model = KernelConditional.keep(latents, torch.ones(150, 3, dtype=torch.bool), names, names)
    tune_kernel(model, torch.tensor([[True, True, False]]), ["c"])
    assert torch.equal(model.relevance, torch.ones(1, 3, 3))


def test_relevance_of_a_set_that_was_not_tuned_is_that_of_the_sets_that_were() -> None:
    model = kept()
    model.patterns = torch.tensor([[True, False, False], [True, False, True]])
    model.relevance = torch.ones(2, 3, 3)
    model.relevance[1, 1] = torch.tensor([1.0, 1.0, 0.25])
    _spread_relevance(model, 1)
    assert model.relevance[:, 1].tolist() == [[1, 1, 0.25], [1, 1, 0.25]]
