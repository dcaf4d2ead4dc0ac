"""A model of components that another package registers: trained, saved, loaded and run like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omg_graph import load_model, pipeline, plugins
from omg_graph.predictor.task import LabelHead, TaskHeadConfig
from omg_graph.priors.prior import Examples, Shown
from omg_graph.retriever.retriever import ChromaRetriever
from omg_graph.training.request import TrainingRequest, read_file
from omg_graph.training.train import Training


class MeanOfOthers(nn.Module):
    """Each latent by the mean of what is shown, times a factor that is fitted."""

    cross_fitting = "folds"
    reads_plans = False

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.register_buffer("factor", torch.zeros(()))
        self.factor: Tensor

    @classmethod
    def fit(cls, rows: Examples, seed: int) -> MeanOfOthers:
        prior = cls(rows.widths)
        prior.factor.fill_(0.1)
        return prior

    def refit(self, rows: Examples) -> MeanOfOthers:
        return self.fit(rows, 0)

    def predict(self, target: str, shown: Shown) -> Tensor:
        means = [value.mean(dim=1, keepdim=True) for value in shown.latents.values()]
        return self.factor * sum(means).expand(-1, self.widths[target])  # type: ignore[union-attr]


class SlotHead(LabelHead):
    """A linear map of the slots."""

    def __init__(self, config: TaskHeadConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(sum(config.widths.values()), config.outputs)

    def logits(self, observation: Tensor, latents: Mapping[str, Tensor], *_: Any) -> Tensor:
        slots: Tensor = self.linear(torch.cat([latents[name] for name in self.config.widths], dim=1))
        return slots


class OneEntry(ChromaRetriever):
    """The nearest entry alone."""

    name = "one entry"

    def retrieve(self, *asked: Any, **wanted: Any) -> Any:
        return super().retrieve(*asked, **{**wanted, "k": 1})


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {
        "omg_graph.priors": {"mine": f"{__name__}:MeanOfOthers"},
        "omg_graph.predictors": {"mine": f"{__name__}:SlotHead"},
        "omg_graph.retrievers": {"mine": f"{__name__}:OneEntry"},
    }
    for group, entries in mine.items():
        monkeypatch.setitem(plugins.OWN, group, plugins.OWN[group] | entries)


@pytest.mark.usefixtures("registered")
def test_a_model_of_other_components_is_trained_saved_and_run(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = tiny_settings | {
        "executor": tiny_settings.get("executor", {}) | {"priors": ["mine"]},
        "task": tiny_settings.get("task", {}) | {"predictor": "mine"},
        "retriever": tiny_settings.get("retriever", {}) | {"kind": "mine"},
    }
    request = TrainingRequest(data=str(tiny_data_file), output=str(tmp_path / "model"), overrides=settings)
    Training(request).complete()
    model = load_model(tmp_path / "model")
    assert isinstance(model.executor.anchor.priors["mine"], MeanOfOthers)
    assert float(model.executor.anchor.priors["mine"].factor) == pytest.approx(0.1)
    assert isinstance(model.executor.task, SlotHead)
    assert isinstance(model.retriever, OneEntry)
    valid = read_file(request).splits["valid"]
    hidden = torch.zeros(len(valid), len(valid.names), dtype=torch.bool).numpy()
    hidden[:, 0] = True
    run = pipeline.run(model, valid.hide(hidden).take([0, 1, 2]))
    assert all(len(entries) <= 1 for entries in run.evidence[valid.names[0]].entries)
    assert run.execution.outputs is not None
    assert bool(run.execution.outputs.isfinite().all())
