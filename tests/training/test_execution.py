"""The executor's training: where its parts lie, and what it leaves behind in the process."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph.errors import OmgError
from omg_graph.training.assembly import executor_trainer
from omg_graph.training.graph import build_training_graph
from omg_graph.training.session import TrainingRequest, TrainingSession


@pytest.fixture(scope="module")
def session(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> TrainingSession:
    """A run whose executor has been trained, on the CPU."""
    output = tmp_path_factory.mktemp("execution") / "model"
    request = TrainingRequest(data=str(tiny_data_file), output=str(output), overrides=tiny_settings)
    made = TrainingSession(request, lambda *_: None)
    for stage in ("prepare", "autoencoders", "planner", "executor"):
        getattr(made, stage)()
    return made


def test_all_that_is_trained_lies_on_the_device_and_all_that_encodes_on_the_cpu(
    session: TrainingSession,
) -> None:
    """The device that holds no numbers stands in for a GPU: it refuses to be mixed with the CPU as well."""
    elsewhere = torch.device("meta")
    space, read = deepcopy(session.space), deepcopy(session.read)
    trainer = executor_trainer(
        replace(session.run, device=elsewhere), space, read, deepcopy(session.prepared)
    )
    parts = [*trainer.executor.parameters(), *trainer.executor.buffers(), *trainer.encoder.parameters()]
    assert {part.device for part in parts} == {elsewhere}
    pairs = np.arange(8, dtype=np.int64)
    noising = trainer._noising(len(pairs), 0.5, "test")
    assert trainer.losses(trainer.training, pairs, noising).total(trainer.weights).device == elsewhere
    assert all(value.device.type == "cpu" for value in space.encode(session.run.valid).values())
    assert all(parameter.device.type == "cpu" for parameter in read.encoder.parameters())


def test_the_anchor_is_fitted_before_training(session: TrainingSession) -> None:
    executor = executor_trainer(session.run, session.space, session.read, deepcopy(session.prepared)).executor
    assert (executor.anchor.weights > 0).any()
    assert (executor.residual_scale != 1).all()


def test_one_process_trains_in_both_precisions_beside_a_host_that_accelerates(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    for state in (PartialState, AcceleratorState):  # whatever other tests have left there
        monkeypatch.setattr(state, "_shared_state", type(state._shared_state)())
    host = Accelerator(cpu=True, mixed_precision="bf16")
    for precision in ("bf16", "float32"):
        optimiser = tiny_settings["optimiser"] | {"precision": precision, "epochs": 1}
        build_training_graph().invoke(
            {
                "data": str(tiny_data_file),
                "output": str(tmp_path / precision),
                "overrides": tiny_settings | {"optimiser": optimiser},
            }
        )
    assert host.mixed_precision == "bf16"
    assert host.device.type == "cpu"


def test_a_run_that_diverges_leaves_no_model(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    wild = tiny_settings | {"optimiser": {"epochs": 2, "batch_size": 32, "learning_rate": 1e30}}
    with pytest.raises(OmgError, match="finite loss"):
        build_training_graph().invoke(
            {"data": str(tiny_data_file), "output": str(tmp_path / "model"), "overrides": wild}
        )
    assert not (tmp_path / "model").exists()
