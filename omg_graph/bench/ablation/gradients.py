"""Whether semantic and noise losses pull the same weights in different directions, while a model trains.

The paper's claim of semantic-detail entanglement (section 1) is that in one end-to-end network they do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.executor.objective import draw_noising
from omg_graph.files import write_atomically
from omg_graph.seeding import generator
from omg_graph.training.executor_training import ExecutorTrainer

SEMANTIC = ("plan", "task")
"""L_plan and L_task, each against the noise loss."""
BATCHES = 4
ROWS = 64
EACH_EPOCH_UNTIL, THEN_EVERY = 5, 5


def gradient_cosine(first: Tensor, second: Tensor, shared: Sequence[nn.Parameter]) -> float | None:
    """The cosine between the gradients of two losses on the same weights, from -1 (conflict) to 1.

    Args:
        first: a loss.
        second: another.
        shared: the weights; what a loss doesn't reach has a gradient of zero.

    Returns:
        None where one of the gradients is zero throughout.
    """
    one, other = (_gradient(loss, shared) for loss in (first, second))
    if not (bool(one.any()) and bool(other.any())):
        return None
    return float(F.cosine_similarity(one, other, dim=0))


def _gradient(loss: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros(sum(weight.numel() for weight in shared), dtype=torch.float64)
    parts = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
    filled = [
        torch.zeros_like(weight) if part is None else part for part, weight in zip(parts, shared, strict=True)
    ]
    return torch.cat([part.detach().flatten().double() for part in filled])


class GradientProbe:
    """Measures the cosines after some epochs, always on the same training batches, noise and time steps.

    The shared weights are those of the denoiser's blocks, which every variant has. Records are kept
    in a file as they come: a training that is cut off and resumed loses none.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.records: dict[int, dict[str, Any]] = {
            record["epoch"]: record for record in (read_gradients(file) if file.is_file() else [])
        }

    def after_epoch(self, trainer: ExecutorTrainer, epoch: int) -> None:
        """Measure, where it is this epoch's turn (from 1)."""
        if epoch > EACH_EPOCH_UNTIL and epoch % THEN_EVERY:
            return
        self.records[epoch] = {"epoch": epoch, **self.measure(trainer)}
        content = json.dumps([self.records[key] for key in sorted(self.records)], indent=1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, content.encode())

    @staticmethod
    def measure(trainer: ExecutorTrainer) -> dict[str, list[float]]:
        """Semantic loss to its cosines with the noise loss, one for each batch where both have a gradient."""
        shared = list(trainer.executor.denoiser.blocks.parameters())
        pairs = trainer.training.pool.draw(trainer.seed, -1)[: BATCHES * ROWS]
        noise_alone = trainer.weights.model_copy(update={"mean_share": 0.0})
        found: dict[str, list[float]] = {name: [] for name in SEMANTIC}
        trainer.executor.eval()
        for number, start in enumerate(range(0, len(pairs), ROWS)):
            batch = pairs[start : start + ROWS]
            drawn = generator(trainer.seed, "gradients", number)
            noising = draw_noising(trainer.executor, len(batch), trainer.signals, noise_alone, drawn)
            losses = trainer.losses(trainer.training, batch, noising)
            for name in SEMANTIC:
                cosine = gradient_cosine(getattr(losses, name), losses.denoising, shared)
                if cosine is not None:
                    found[name].append(cosine)
        return found


def read_gradients(file: Path) -> list[dict[str, Any]]:
    """The records of a probe, by epoch."""
    records: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return records
