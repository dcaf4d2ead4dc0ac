"""The executor's training: where its parts lie, and what it leaves behind in the process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph.errors import OmgError
from omg_graph.training.graph import build_training_graph
from omg_graph.training.stages import TrainingRun


def test_all_that_is_trained_lies_on_the_device_and_all_that_encodes_on_the_cpu(
    tiny_run: TrainingRun, tmp_path: Path
) -> None:
    """The device that holds no numbers stands in for a GPU: it refuses to be mixed with the CPU as well."""
    elsewhere = torch.device("meta")
    run = replace(tiny_run.variant(tiny_run.config, tmp_path), device=elsewhere)
    trainer = run.trainer.value
    parts = [*trainer.executor.parameters(), *trainer.executor.buffers(), *trainer.encoder.parameters()]
    assert {part.device for part in parts} == {elsewhere}
    pairs = np.arange(8, dtype=np.int64)
    noising = trainer.noising(len(pairs), 0.5, "test")
    assert trainer.losses(trainer.training, pairs, noising).total(trainer.weights).device == elsewhere
    assert all(value.device.type == "cpu" for value in run.codecs.value.encode(run.data.valid).values())
    assert all(parameter.device.type == "cpu" for parameter in run.encoder.value.parameters())


def test_the_anchor_is_fitted_before_training(tiny_run: TrainingRun, tmp_path: Path) -> None:
    executor = tiny_run.variant(tiny_run.config, tmp_path).trainer.value.executor
    assert (executor.anchor.weights > 0).any()
    assert (executor.residual_scale != 1).all()


def test_one_process_trains_in_both_precisions_beside_a_host_that_accelerates(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tiny_stages: Path, tmp_path: Path
) -> None:
    from accelerate import Accelerator

    host = Accelerator(cpu=True)
    kept = host.mixed_precision
    for precision in ("bf16", "float32"):
        optimiser = tiny_settings["optimiser"] | {"precision": precision, "epochs": 1}
        build_training_graph().invoke(
            {
                "data": str(tiny_data_file),
                "output": str(tmp_path / precision),
                "overrides": tiny_settings | {"optimiser": optimiser},
                "shared_stages": str(tiny_stages),
            }
        )
    assert host.mixed_precision == kept
    assert host.device.type == "cpu"


def test_a_run_that_diverges_leaves_no_model(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tiny_stages: Path, tmp_path: Path
) -> None:
    wild = tiny_settings | {"optimiser": {"epochs": 2, "batch_size": 32, "learning_rate": 1e30}}
    with pytest.raises(OmgError, match="finite loss"):
        build_training_graph().invoke(
            {
                "data": str(tiny_data_file),
                "output": str(tmp_path / "model"),
                "overrides": wild,
                "shared_stages": str(tiny_stages),
            }
        )
    assert not (tmp_path / "model").exists()
