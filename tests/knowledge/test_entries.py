"""Knowledge bases for a trained model: which samples are taken, and what an entry depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.data.dataset import Split
from omg_graph.errors import DataError, KnowledgeBaseError
from omg_graph.knowledge.entries import EntrySource, build_knowledge_base, choose_plans, read_sources
from omg_graph.model.model import Model
from omg_graph.priors.prior import Shown


@pytest.fixture
def split(model: Model) -> Split:
    rng, specs = np.random.default_rng(0), model.config.modalities
    return Split(
        name="some",
        ids=tuple("abcdef"),
        groups=tuple("aabbcc"),
        modalities=specs,
        arrays={spec.name: rng.standard_normal((6, *spec.shape)).astype(np.float32) for spec in specs},
        observed={spec.name: np.ones(6, dtype=np.bool_) for spec in specs},
    )


def save(path: Path, model: Model, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        f"{name}/{spec.name}": rng.standard_normal((2, *spec.shape))
        for name in names
        for spec in model.config.modalities
    }
    ids = {f"{name}/id": np.array([f"{name}1", f"{name}2"]) for name in names}
    np.savez(path, **arrays, **ids)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [
        (["valid", "train", "test"], [], ["train"]),
        (["other"], [], ["other"]),
        (["valid", "train", "test"], ["test", "valid"], ["test", "valid"]),
    ],
)
def test_which_splits_are_taken(
    model: Model, tmp_path: Path, there: list[str], asked: list[str], taken: list[str]
) -> None:
    sources, notes = read_sources(model, [save(tmp_path / "x.npz", model, there)], splits=asked)
    assert [source.split.name for source in sources] == taken
    assert [source.source for source in sources] == [f"x.npz · {name}" for name in taken]
    assert all(any(repr(name) in note for note in notes) for name in taken)


@pytest.mark.parametrize(
    ("there", "asked"), [(["valid", "test"], []), (["train"], ["test"]), (["train"], ["train", "test"])]
)
def test_a_split_that_isnt_there(model: Model, tmp_path: Path, there: list[str], asked: list[str]) -> None:
    with pytest.raises(DataError, match="--split"):
        read_sources(model, [save(tmp_path / "x.npz", model, there)], splits=asked)


def test_a_plan_depends_on_its_sample_alone(model: Model, split: Split) -> None:
    together = choose_plans(model, split, seed=3)
    assert [choose_plans(model, split.take([row]), seed=3)[0] for row in reversed(range(6))] == together[::-1]


def test_entries_miss_what_their_samples_miss(model: Model, split: Split) -> None:
    missing = np.zeros(split.mask().shape, dtype=np.bool_)
    missing[0, 0] = missing[4, 1] = True
    told: list[tuple[int, int]] = []
    kb = build_knowledge_base(
        model,
        [EntrySource(split.hide(missing), "here")],
        name="x",
        on_progress=lambda done, of: told.append((done, of)),
    )
    for column, name in enumerate(split.names):
        np.testing.assert_array_equal(kb.has_value[name], ~missing[:, column])
    assert told[-1] == (6, 6)
    assert len(model.with_knowledge_base(kb).knowledge_base) == 6


def test_two_samples_of_one_id(model: Model, split: Split) -> None:
    sources = [EntrySource(split, "one"), EntrySource(split.take([2]), "two")]
    with pytest.raises(KnowledgeBaseError, match="'c' comes from one and from two"):
        build_knowledge_base(model, sources, name="x")
    with pytest.raises(KnowledgeBaseError, match="got none"):
        build_knowledge_base(model, [], name="x")


def kept_rows(model: Model) -> int:
    return len(model.executor.state_dict()["anchor.priors.kernel.regression.known"])


def test_entries_that_came_later_are_rows_of_the_kernel_regression_too(model: Model, split: Split) -> None:
    kb = build_knowledge_base(model, [EntrySource(split, "later")], name="later")
    rows = kept_rows(model)
    more = model.with_knowledge_base(model.knowledge_base.extended(kb))
    assert kept_rows(more) == rows + len(split)
    assert kept_rows(model) == rows
    assert more.executor.denoiser is model.executor.denoiser
    back = more.with_knowledge_base(model.knowledge_base)
    assert back.executor is model.executor
    again = more.with_knowledge_base(kb)
    assert kept_rows(again) == rows + len(split)


def test_a_later_entry_of_one_s_own_group_takes_no_part(model: Model, split: Split) -> None:
    kb = build_knowledge_base(model, [EntrySource(split, "later")], name="later")
    more = model.with_knowledge_base(model.knowledge_base.extended(kb))
    latents = model.latent_space.encode(split)
    target, pattern = model.names[0], torch.ones(6, len(model.names), dtype=torch.bool)
    pattern[:, 0] = False

    def predicted(one: Model, groups: tuple[str, ...]) -> torch.Tensor:
        new = tuple(f"new{row}" for row in range(6))
        shown = Shown(ids=new, groups=groups, latents=latents, observed=pattern)
        return one.executor.anchor.prior("kernel").predict(target, shown)

    nobody = tuple(f"nobody{row}" for row in range(6))
    assert not torch.allclose(predicted(more, nobody), predicted(model, nobody), atol=1e-4)
    only = model.with_knowledge_base(
        model.knowledge_base.extended(kb.take([row for row in range(6) if split.groups[row] != "a"]))
    )
    of_a = ("a",) * 6
    assert torch.allclose(predicted(more, of_a), predicted(only, of_a), atol=1e-4)
