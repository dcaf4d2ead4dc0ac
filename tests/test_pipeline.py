"""One pipeline: what evaluation, validation and the study measure is what the compiled graph gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from omg_graph import pipeline
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError
from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.state import Settings

TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def clips(tiny_data_file: Path) -> Split:
    """Validation clips that miss different things: audio and vision, vision alone, nothing."""
    split = read_data_file(tiny_data_file).splits["valid"]
    hidden = np.zeros((len(split), len(split.names)), dtype=np.bool_)
    hidden[::3, 1:], hidden[1::3, 2] = True, True
    return split.hide(hidden)


def through_the_graph(
    model: Model, clips: Split, file: Path, settings: Settings
) -> tuple[list[Trajectory], MemoryArtifactStore]:
    """The same clips as a caller would send them: written out, what is missing as None."""
    samples = [
        {
            "id": clips.ids[row],
            "group": clips.groups[row],
            "raw_text": None if clips.raw_text is None else clips.raw_text[row],
        }
        | {name: clips.arrays[name][row] if clips.observed[name][row] else None for name in clips.names}
        for row in range(len(clips))
    ]
    store = MemoryArtifactStore()
    graph = build_graph(model, artifacts=store)
    made: list[Trajectory] = graph.invoke({"samples": samples}, context=settings)["trajectories"]
    return made, store


@pytest.mark.parametrize("draws", [1, 3])
def test_run_gives_what_the_compiled_graph_gives(
    model: Model, clips: Split, tiny_data_file: Path, draws: int
) -> None:
    trajectories, store = through_the_graph(
        model, clips, tiny_data_file, Settings(seed=4, draws=draws, steps=3)
    )
    run = pipeline.run(model, clips, seed=4, draws=draws, steps=3)
    head = model.executor.task
    assert head is not None
    assert run.execution.outputs is not None
    values = head.value(run.execution.outputs).numpy()
    for row, trajectory in enumerate(trajectories):
        assert trajectory.plan is not None
        assert tuple(link.value for link in trajectory.plan.constraints) == run.plans[row]
        assert trajectory.prediction is not None
        assert trajectory.prediction.value == pytest.approx(float(values[row]), rel=1e-4, abs=1e-5)
        for name in trajectory.missing:
            found = run.evidence[name].entries[row]
            assert [entry.id for entry in trajectory.evidence[name]] == [entry.id for entry in found]
            point = model.latent_space.decode(name, run.execution.estimates[name])[row]
            np.testing.assert_allclose(store.get(trajectory.reconstruction[name]), point, **TOLERANCE)
            if draws > 1:
                drawn = [model.latent_space.decode(name, one)[row] for one in run.execution.draws[name]]
                kept = store.get(trajectory.arrays[f"draws/{name}"])
                np.testing.assert_allclose(kept, drawn, **TOLERANCE)


def test_without_draws_the_point_estimate_and_the_label_are_the_same(model: Model, clips: Split) -> None:
    """Validation and evaluation draw nothing where only the estimate is scored."""
    with_draws, without = (pipeline.run(model, clips, draws=draws).execution for draws in (2, 0))
    assert not without.draws
    for name in model.names:
        torch.testing.assert_close(with_draws.estimates[name], without.estimates[name])
    torch.testing.assert_close(with_draws.outputs, without.outputs)


def test_an_estimate_is_a_mean_or_the_first_draw(model: Model, clips: Split) -> None:
    """Of vectors and sequences the mean, unless asked otherwise; no sample without a draw."""
    run = pipeline.run(model, clips)
    vectors = {name: found.aggregated for name, found in run.evidence.items()}

    def made(estimate: Literal["mean", "sample"] | None, draws: int = 1) -> pipeline.Execution:
        return pipeline.execute(
            model, run.observation, run.plan_embeddings, vectors, draws=draws, estimate=estimate
        )

    sampled, mean = made("sample"), made("mean")
    for name in model.names:
        assert torch.equal(sampled.estimates[name], sampled.draws[name][0])
        assert torch.equal(mean.estimates[name], made(None).estimates[name])
        assert torch.equal(mean.draws[name], sampled.draws[name])
    assert not made("mean", draws=0).paths
    with pytest.raises(ConfigError, match="expected one draw or more"):
        made("sample", draws=0)


def test_who_measures_calls_the_pipeline(
    model: Model, tiny_data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation and evaluation get every estimate from ``pipeline.run``."""
    from omg_graph.evaluation.outcomes import Pairs
    from omg_graph.evaluation.protocols import conditions_of
    from omg_graph.evaluation.runner import ModelRunner
    from omg_graph.evaluation.tables import choose_target
    from omg_graph.training.validation import validate

    calls: Counter[str] = Counter()
    run = pipeline.run

    def counted(model: Model, split: Split, **options: Any) -> pipeline.Run:
        calls["samples"] += len(split)
        return run(model, split, **options)

    monkeypatch.setattr(pipeline, "run", counted)
    data = read_data_file(tiny_data_file)
    valid = data.splits["valid"]
    pairs = Pairs.of(conditions_of(valid, "fixed", rates=None, patterns=[["text"]], masks=(), seeds=1))
    ModelRunner(model, valid, choose_target(model, valid.labels, "auto"), draws=0).run(pairs)
    assert calls["samples"] == len(valid)
    validate(model, data.splits["train"], valid, lambda *_: None)
    assert calls["samples"] == 8 * len(valid)  # seven patterns more


def test_each_sample_is_encoded_once_and_only_what_is_missing_is_decoded(
    model: Model, clips: Split, tiny_data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    encode, decode, predict = LatentSpace.encode, LatentSpace.standard, LabelRegression.predict

    def encoded(space: LatentSpace, split: Split) -> Any:
        calls["encoded"] += len(split)
        return encode(space, split)

    def decoded(space: LatentSpace, name: str, latents: torch.Tensor, *lengths: Any) -> Any:
        calls[f"decoded {name}"] += len(latents)
        return decode(space, name, latents, *lengths)

    def read(regression: LabelRegression, latents: Any, observed: torch.Tensor, *rest: Any) -> Any:
        calls["label estimates"] += len(observed)
        return predict(regression, latents, observed, *rest)

    monkeypatch.setattr(LatentSpace, "encode", encoded)
    monkeypatch.setattr(LatentSpace, "standard", decoded)
    monkeypatch.setattr(LabelRegression, "predict", read)
    through_the_graph(model, clips, tiny_data_file, Settings(pictures=False))
    missing = (~clips.mask()).sum(axis=0)
    expected = {f"decoded {name}": int(missing[column]) for column, name in enumerate(clips.names)}
    wanted = {"encoded": len(clips), "label estimates": len(clips)} | {k: n for k, n in expected.items() if n}
    assert dict(calls) == wanted

    calls.clear()  # pictures decode the clean estimate at each step, and the nearest entry, once more
    through_the_graph(model, clips, tiny_data_file, Settings(steps=3))
    assert calls["encoded"] == len(clips)
    assert calls["decoded vision"] == missing[2] * (1 + 3 + 1)
    assert "decoded text" not in calls


def test_without_trust_the_label_is_that_of_the_prior(tiny_model_folder: Path, clips: Split) -> None:
    """The prior as a floor has the same head and the same label estimates: only the network is left out."""
    model = load_model(tiny_model_folder)
    with_trust = pipeline.run(model, clips, draws=0).execution
    model.executor.trust.zero_()
    without = pipeline.run(model, clips, draws=0).execution
    assert without.outputs is not None
    assert without.outputs_anchor is not None
    assert with_trust.outputs_anchor is not None
    assert torch.equal(without.outputs, without.outputs_anchor)
    assert torch.equal(with_trust.outputs_anchor, without.outputs_anchor)
