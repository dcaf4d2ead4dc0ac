"""Stage: the task head fitted once more on the finished executor's estimates, stopped by its own loss.

Beside it a direct head is fitted, and how much of it the prediction takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.predictor.task import TaskHead
from omg_graph.seeding import seeded
from omg_graph.training.config import TaskSettings
from omg_graph.training.direct import fit_direct
from omg_graph.training.execution import CHECK_BLOCK, ExecutorTrainer
from omg_graph.training.fitting import EpochCallback, Fit, FitSettings, fit
from omg_graph.training.pairs import IntArray, PairData, labelled_pairs, labels_of
from omg_graph.training.workspace import Workspace

BESIDE_READING = 0.1
"""Of the learning rate, where the head reads an estimate of the label. At the full rate u_X and slots are
learned by heart: on CMU-MOSI's training rows, five folds by video, ACC2 is then .730, and .751 with this."""


@dataclass(frozen=True)
class TaskFit:
    """How the fits of a head and of the networks beside it went."""

    head: Fit
    direct: dict[str, Any] | None
    """Their share, the loss at each share, and their epochs; None without any."""


def fit_task(
    trainer: ExecutorTrainer,
    settings: TaskSettings,
    seed: int,
    on_epoch: EpochCallback | None = None,
    workspace: Workspace | None = None,
) -> TaskFit | None:
    """Replace the jointly trained head by one that is chosen on L_task alone (Eq. 17).

    The executor's best epoch is chosen on all of Eq. 18, and a head overfits long before a denoiser has
    learned its part: each has a criterion of its own. The estimates come from the finished executor, and
    u_X of training rows is cross-fitted.

    Returns:
        How the fit went; None where there is no label.
    """
    executor = trainer.executor
    if executor.task is None or trainer.training.label is None:
        return None
    with seeded(seed, "task head"):
        head = TaskHead(executor.task.config).to(trainer.device)
    seen = np.arange(len(trainer.training.pool), dtype=np.int64)
    training = _filled(trainer, trainer.training, seen)
    labelled = ~trainer.training.label.isnan().numpy()
    checked = labelled_pairs(trainer.validation)
    validation = _filled(trainer, trainer.validation, checked)

    # beside an estimate that took all of it into account already, the rest has only corrections to make
    rate = settings.learning_rate * (BESIDE_READING if trainer.training.reading is not None else 1.0)

    def outputs_of(data: PairData, filled: dict[str, Tensor], pairs: IntArray, places: IntArray) -> Tensor:
        index = torch.from_numpy(pairs)
        outputs: Tensor = head(
            data.observation[index].to(trainer.device),
            {name: value[torch.from_numpy(places)] for name, value in filled.items()},
            None if data.reading is None else data.reading[index].to(trainer.device),
        )
        return outputs

    def loss_of(data: PairData, filled: dict[str, Tensor], pairs: IntArray, places: IntArray) -> Tensor:
        label = labels_of(data)[data.rows(pairs)].to(trainer.device)
        return head.loss(outputs_of(data, filled, pairs, places), label).mean()

    def examples(epoch: int) -> IntArray:
        pairs = trainer.training.pool.draw(seed + 3, epoch)
        return np.asarray(pairs[labelled[trainer.training.pool.rows[pairs]]], dtype=np.int64)

    def validate() -> float:
        places = np.arange(len(checked), dtype=np.int64)
        return float(loss_of(trainer.validation, validation, checked, places))

    report = fit(
        head,
        lambda batch, _epoch: loss_of(trainer.training, training, batch, batch),
        examples,
        FitSettings.of(settings.model_copy(update={"learning_rate": rate})),
        seed=seed,
        purpose="task head",
        validate=validate if len(checked) else None,
        on_epoch=on_epoch,
    )
    executor.task = head
    if not settings.direct.members:
        return TaskFit(report, None)
    places = np.arange(len(checked), dtype=np.int64)
    outputs = torch.zeros(0, head.config.outputs, device=trainer.device)
    if len(checked):
        with torch.no_grad():
            outputs = outputs_of(trainer.validation, validation, checked, places)
    direct = fit_direct(trainer, settings.direct, outputs, checked, seed, on_epoch, workspace)
    return TaskFit(report, direct)


def _filled(trainer: ExecutorTrainer, data: PairData, pairs: IntArray) -> dict[str, Tensor]:
    """One slot for each modality: encoded if visible, the executor's mean estimate if not."""
    parts: dict[str, list[Tensor]] = {name: [] for name in data.names}
    executor = trainer.executor
    with torch.no_grad():
        for start in range(0, len(pairs), CHECK_BLOCK):
            batch, conditions = trainer.inputs(data, pairs[start : start + CHECK_BLOCK])
            filled = executor.fill(batch, executor.estimate(batch, conditions))
            for name, value in filled.items():
                parts[name].append(value)
    return {name: torch.cat(rows) for name, rows in parts.items() if rows}
