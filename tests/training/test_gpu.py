"""Training on a GPU: the same stages, resumable, and a model that gives the same results on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph import MemoryArtifactStore, Settings, build_training_graph, load_model, reconstruct
from omg_graph.model.model import choose_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def test_a_model_trained_on_cuda_resumes_and_gives_the_same_on_the_cpu(
    tmp_path: Path, tiny_data_file: Path, tiny_settings: dict[str, Any]
) -> None:
    request = {
        "data": str(tiny_data_file),
        "output": str(tmp_path / "model"),
        "overrides": tiny_settings,
        "device": "cuda",
    }
    whole = build_training_graph().invoke(request)
    shutil.move(tmp_path / "model", tmp_path / "first")
    again = build_training_graph().invoke(request | {"resume": True})
    assert again["fingerprint"] == whole["fingerprint"]

    model = load_model(tmp_path / "model")
    values = {}
    for device in ("cpu", "cuda"):
        store = MemoryArtifactStore()
        found = reconstruct(
            model.to(choose_device(device)),
            tiny_data_file,
            split="valid",
            missing=["audio"],
            settings=Settings(seed=3),
            artifacts=store,
        )
        values[device] = np.stack([store.get(t.reconstruction["audio"]) for t in found])
    np.testing.assert_allclose(values["cuda"], values["cpu"], rtol=1e-3, atol=1e-3)
