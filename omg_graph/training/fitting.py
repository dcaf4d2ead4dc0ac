"""One plain loop for the small models: epochs of mini-batches, early stopping, the best weights kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from omg_graph.seeding import seeded

IntArray = npt.NDArray[np.int64]
EpochCallback = Callable[[int, int, float], None]
"""(epoch from 1, epochs, loss)."""


@dataclass(frozen=True)
class Fit:
    """How a fit went."""

    epochs: int
    """The epoch whose weights were kept, from 1."""
    training_loss: float
    validation_loss: float | None


@dataclass(frozen=True)
class FitSettings:
    """Sizes and steps of a fit."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int | None = None


def fit(
    module: nn.Module,
    loss_of: Callable[[IntArray, int], Tensor],
    examples_of: Callable[[int], IntArray],
    settings: FitSettings,
    *,
    seed: int,
    purpose: str,
    validate: Callable[[], float] | None = None,
    on_epoch: EpochCallback | None = None,
) -> Fit:
    """Train ``module`` in place with AdamW.

    Args:
        module: What is trained.
        loss_of: The loss of a batch of examples in a given epoch.
        examples_of: The examples of an epoch (from 0), in order.
        settings: Epochs, batch size, learning rate, weight decay, patience.
        seed: With ``purpose`` and the epoch it decides everything random.
        purpose: Name of the fit.
        validate: A loss on validation rows; where given, the best epoch's weights are kept and ``patience``
            epochs without improvement end the fit. Else all epochs run and the last weights stay.
        on_epoch: Called after every epoch.
    """
    # fused: these networks are so small that a loop over their parameters costs a third of a step
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    best: tuple[float, int, dict[str, Tensor]] | None = None
    training_loss = float("nan")
    for epoch in range(settings.epochs):
        module.train()
        examples = examples_of(epoch)
        total, count = 0.0, 0
        with seeded(seed, purpose, epoch):
            for start in range(0, len(examples), settings.batch_size):
                batch = examples[start : start + settings.batch_size]
                loss = loss_of(batch, epoch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
                total += float(loss.detach()) * len(batch)
                count += len(batch)
        training_loss = total / max(count, 1)
        module.eval()
        validation_loss = None
        if validate is not None:
            with torch.no_grad():
                validation_loss = validate()
            if best is None or validation_loss < best[0]:
                best = (validation_loss, epoch + 1, copy.deepcopy(module.state_dict()))
        if on_epoch is not None:
            on_epoch(
                epoch + 1, settings.epochs, training_loss if validation_loss is None else validation_loss
            )
        if best is not None and settings.patience is not None and epoch + 1 - best[1] >= settings.patience:
            break
    module.eval()
    if best is None:
        return Fit(settings.epochs, training_loss, None)
    module.load_state_dict(best[2])
    return Fit(best[1], training_loss, best[0])
