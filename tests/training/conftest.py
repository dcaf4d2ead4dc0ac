"""One training of the clips, stage by stage, for all tests that look inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.training import request as request_module
from omg_graph.training.request import TrainingRequest
from omg_graph.training.stages import TrainingRun
from omg_graph.training.train import Training


@dataclass(frozen=True)
class Counted:
    """A training that went through every stage, with what it read and encoded."""

    run: TrainingRun
    read: list[Path]
    encoded: Counter[tuple[str, ...]]


@pytest.fixture(scope="session")
def counted_run(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Counted:
    """Every stage, never saved. Read it, never write."""
    folder = tmp_path_factory.mktemp("run")
    request = TrainingRequest(
        data=str(tiny_data_file),
        output=str(folder / "model"),
        overrides=tiny_settings,
        shared_stages=str(folder / "stages"),
    )
    read: list[Path] = []
    encoded: Counter[tuple[str, ...]] = Counter()
    really_read, really_encode = request_module.read_data_file, LatentSpace.encode

    def count_read(path: Path, **more: Any) -> Any:
        read.append(path)
        return really_read(path, **more)

    def count_encode(space: LatentSpace, split: Split) -> Any:
        encoded[split.ids] += 1
        return really_encode(space, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_module, "read_data_file", count_read)
        patch.setattr(LatentSpace, "encode", count_encode)
        training = Training(request)
        for stage in ("prepare", "codecs", "priors", "plans", "evidence", "executor", "prediction"):
            getattr(training, stage)()
        _ = training.run.model
    return Counted(training.run, read, encoded)


@pytest.fixture(scope="session")
def tiny_run(counted_run: Counted) -> TrainingRun:
    """The same, for what its stages hold."""
    return counted_run.run
