"""One training of the clips, stage by stage, for all tests that look inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omg_graph.training.request import TrainingRequest
from omg_graph.training.stages import TrainingRun
from omg_graph.training.train import Training


@pytest.fixture(scope="session")
def tiny_run(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """Every stage, never saved. Read it, never write."""
    output = tmp_path_factory.mktemp("run") / "model"
    request = TrainingRequest(data=str(tiny_data_file), output=str(output), overrides=tiny_settings)
    run = Training(request).run
    _ = run.prediction
    return run
