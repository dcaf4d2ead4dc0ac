from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from omg_graph.executor.denoiser import Conditions, Denoiser

Build = Callable[..., Denoiser]
TIME = torch.tensor([0.0, 3.0, 10.0, 25.0, 40.0, 48.0, 49.0])


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def other(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.flip(0) + 1.0 for name, value in values.items()}


def block_inputs(denoiser: Denoiser, *arguments: object) -> list[Tensor]:
    """What enters each layer, and what leaves the last."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for block in denoiser.blocks
    ]
    hooks.append(denoiser.final_norm.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
    with torch.no_grad():
        denoiser(*arguments)
    for hook in hooks:
        hook.remove()
    return seen


def test_zero_adapters_change_nothing_at_the_start(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """Eq. 13: the adapters' output layers are zero at first, so evidence has no say; then it has."""
    denoiser = make_denoiser(shaken=False)
    for _, head in denoiser.out.items():
        nn.init.ones_(head.weight)
    changed = replace(conditions, evidence=other(conditions.evidence))
    before = denoiser(states, latents, TIME, conditions)
    assert any(value.any() for value in before.values())
    assert equal(before, denoiser(states, latents, TIME, changed))
    nn.init.ones_(denoiser.adapters["0"].out.weight)
    assert not equal(denoiser(states, latents, TIME, conditions), denoiser(states, latents, TIME, changed))


def test_the_plan_enters_deep_layers_only(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """Eq. 12: nothing before the first deep layer's end depends on c_S."""
    denoiser = make_denoiser()
    changed = replace(conditions, plan=conditions.plan.flip(0))
    left = block_inputs(denoiser, states, latents, TIME, conditions)
    right = block_inputs(denoiser, states, latents, TIME, changed)
    first = min(denoiser.deep)
    same = [torch.equal(a, b) for a, b in zip(left, right, strict=True)]
    assert same == [True] * (first + 1) + [False] * (len(left) - first - 1)


def test_evidence_enters_shallow_layers_only(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """Eq. 13: without the shallow adapters E has no way in, and each of them is one."""
    denoiser = make_denoiser()
    changed = replace(conditions, evidence=other(conditions.evidence))
    assert set(denoiser.adapters) == {str(layer) for layer in denoiser.shallow}
    for layer in denoiser.shallow:
        closed = make_denoiser()
        for name, adapter in closed.adapters.items():
            if name != str(layer):
                nn.init.zeros_(adapter.out.weight)
        left = block_inputs(closed, states, latents, TIME, conditions)
        right = block_inputs(closed, states, latents, TIME, changed)
        same = [torch.equal(a, b) for a, b in zip(left, right, strict=True)]
        assert same == [True] * (layer + 1) + [False] * (len(left) - layer - 1)
        nn.init.zeros_(closed.adapters[str(layer)].out.weight)
        assert equal(closed(states, latents, TIME, conditions), closed(states, latents, TIME, changed))


def test_states_count_where_missing_and_nowhere_else(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """An observed slot's noisy state and a missing slot's clean input are never read."""
    denoiser = make_denoiser()
    before = denoiser(states, latents, TIME, conditions)
    for column, name in enumerate(denoiser.names):
        seen = conditions.observed[:, column]
        moved = states | {name: states[name] + 1.0}
        after = denoiser(moved, latents, TIME, conditions)
        assert torch.equal(before[name][seen], after[name][seen])
        assert bool((before[name][~seen] != after[name][~seen]).any(dim=1).all())
        moved = latents | {name: latents[name] + 1.0}
        after = denoiser(states, moved, TIME, conditions)
        # another modality's output, which must change through the slots' attention alone
        reader = denoiser.names[(column + 1) % 3]
        assert torch.equal(before[reader][~seen], after[reader][~seen])
        assert bool((before[reader][seen] != after[reader][seen]).any(dim=1).all())


def test_the_literal_equation_10_sees_no_clean_latents(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """Eq. 10 as printed: eps(z_t, t; u_X, c_S, E); what is observed arrives through u_X alone."""
    denoiser = make_denoiser(observed_slots=False)
    before = denoiser(states, latents, TIME, conditions)
    assert equal(before, denoiser(states, other(latents), TIME, conditions))
    moved = replace(conditions, observation=conditions.observation.flip(0))
    assert not equal(before, denoiser(states, latents, TIME, moved))


def test_the_mean_token_reads_neither_state_nor_time(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    denoiser = make_denoiser()
    every = torch.ones(len(TIME), dtype=torch.bool)
    mean = denoiser(states, latents, TIME, conditions, every)
    assert equal(mean, denoiser(other(states), latents, TIME.flip(0), conditions, every))
    # mixed with rows that are denoised, each row is what it is alone
    some = torch.arange(len(TIME)) % 2 == 0
    mixed = denoiser(states, latents, TIME, conditions, some)
    plain = denoiser(states, latents, TIME, conditions)
    for name in denoiser.names:
        assert torch.allclose(mixed[name][some], mean[name][some], rtol=1e-4, atol=1e-5)
        assert torch.allclose(mixed[name][~some], plain[name][~some], rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_every_parameter(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    denoiser = make_denoiser()
    some = torch.arange(len(TIME)) % 2 == 0
    outputs = denoiser(states, latents, TIME, conditions, some)
    sum(value.square().sum() for value in outputs.values()).backward()
    without = [
        name
        for name, parameter in denoiser.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_a_row_alone_is_the_row_in_its_batch(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    denoiser = make_denoiser()
    together = denoiser(states, latents, TIME, conditions)
    for row in range(len(TIME)):
        index = torch.tensor([row])
        alone = denoiser(
            {name: value[index] for name, value in states.items()},
            {name: value[index] for name, value in latents.items()},
            TIME[index],
            conditions.take(index),
        )
        for name in denoiser.names:
            assert torch.allclose(alone[name], together[name][index], rtol=1e-4, atol=1e-5)


def test_a_saved_denoiser_is_the_same(
    make_denoiser: Build,
    states: dict[str, Tensor],
    latents: dict[str, Tensor],
    conditions: Conditions,
    tmp_path: Path,
) -> None:
    """Bit-identical, and with the modalities in their order: diffusers writes dictionaries sorted by key."""
    denoiser = make_denoiser()
    denoiser.save_pretrained(tmp_path)
    loaded = Denoiser.from_folder(tmp_path).eval()
    assert loaded.names == denoiser.names == ("keys", "a.b", "items")
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    assert equal(denoiser(states, latents, TIME, conditions), loaded(states, latents, TIME, conditions))


@pytest.mark.parametrize("sort", [False, True])
def test_equal_widths_are_not_mistaken_for_each_other(tmp_path: Path, sort: bool) -> None:
    """With equal widths a wrong order would load without complaint."""
    names = sorted(("vision", "audio")) if sort else ["vision", "audio"]
    denoiser = Denoiser(dict.fromkeys(names, 4), 6, width=16, heads=2)
    denoiser.save_pretrained(tmp_path)
    loaded = Denoiser.from_folder(tmp_path)
    for name in names:
        assert torch.equal(loaded.state_in[name].weight, denoiser.state_in[name].weight)


def old_weights(denoiser: Denoiser) -> dict[str, Tensor]:
    """The weights as version 0.1.0 would have written them: gates were one plus the modulation's."""
    new = ("position", "no_evidence", "no_plan", "trusted_plan", "guidable")
    old = {name: value for name, value in denoiser.state_dict().items() if name not in new}
    for name, value in old.items():
        if name.endswith("modulation.1.bias"):
            gates = torch.zeros(6, denoiser.width)
            gates[[2, 5]] = 1.0
            old[name] = value - gates.flatten()
    return old


def test_a_folder_of_version_0_1_gives_the_same(
    make_denoiser: Build,
    states: dict[str, Tensor],
    latents: dict[str, Tensor],
    conditions: Conditions,
    tmp_path: Path,
) -> None:
    denoiser = make_denoiser()
    with torch.no_grad():
        for name in ("position", "trusted_plan"):
            getattr(denoiser, name).zero_()
    denoiser.save_pretrained(tmp_path)
    save_file(old_weights(denoiser), tmp_path / "diffusion_pytorch_model.safetensors")
    loaded = Denoiser.from_folder(tmp_path).eval()
    every = torch.ones(len(TIME), dtype=torch.bool)
    given = replace(conditions, plan_given=every, evidence_given=every)
    before, after = (some(states, latents, TIME, given) for some in (denoiser, loaded))
    for name in denoiser.names:
        assert torch.allclose(before[name], after[name], atol=1e-6)
    assert not loaded.guidable
    assert denoiser.guidable


def test_what_is_dropped_has_no_say(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """A row without its plan or evidence doesn't depend on it, nor on who made the plan."""
    denoiser = make_denoiser()
    changed = replace(
        conditions,
        plan=conditions.plan.flip(1),
        trusted=~conditions.trusted,
        evidence=other(conditions.evidence),
    )
    before, after = (denoiser(states, latents, TIME, some) for some in (conditions, changed))
    neither = ~conditions.plan_given & ~conditions.evidence_given
    assert neither.any()
    for name in denoiser.names:
        assert torch.equal(before[name][neither], after[name][neither])
        told = ~neither & ~conditions.observed.all(dim=1)
        assert bool((before[name][told] != after[name][told]).any(dim=1).all())


def test_who_made_the_plan_counts(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    denoiser = make_denoiser()
    changed = replace(conditions, trusted=~conditions.trusted)
    before, after = (denoiser(states, latents, TIME, some) for some in (conditions, changed))
    for name in denoiser.names:
        differs = (before[name] != after[name]).any(dim=1)
        assert torch.equal(differs, conditions.plan_given)


def test_tokens_are_parts_of_a_latent_in_order(
    make_denoiser: Build, states: dict[str, Tensor], latents: dict[str, Tensor], conditions: Conditions
) -> None:
    """Each token's output depends on where it stands; without attention nothing else does."""
    name = "items"
    denoiser = make_denoiser(tokens={name: 2})
    for block in denoiser.blocks:
        nn.init.zeros_(block.attention_out.weight)
    half = latents[name].shape[1] // 2
    moved = states | {name: torch.cat([states[name][:, :half], states[name][:, half:] + 1.0], dim=1)}
    before, after = (denoiser(some, latents, TIME, conditions)[name] for some in (states, moved))
    missing = ~conditions.observed[:, denoiser.names.index(name)]
    assert torch.equal(before[:, :half][missing], after[:, :half][missing])
    assert not torch.equal(before[:, half:][missing], after[:, half:][missing])
    alike = states | {name: states[name][:, :half].repeat(1, 2)}
    out = denoiser(alike, latents, TIME, conditions)[name]
    assert not torch.equal(out[:, :half], out[:, half:])
