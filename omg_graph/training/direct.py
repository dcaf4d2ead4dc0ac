"""Stage: the direct head's networks, each stopped by its own loss, and their share in the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.predictor.direct import VALENCE_COLUMNS, DirectHead, DirectHeadConfig
from omg_graph.predictor.task import TaskHead
from omg_graph.seeding import seeded
from omg_graph.training.config import DirectSettings
from omg_graph.training.execution import ExecutorTrainer
from omg_graph.training.fitting import EpochCallback, FitSettings, fit
from omg_graph.training.pairs import IntArray, PairData, labels_of
from omg_graph.training.workspace import Workspace

STAGE = "direct"
SHARES = (0.0, 0.25, 0.5, 0.75)
TOLERANCE = 0.002
"""By so much of itself the loss has to fall for the networks to be kept."""
SHIFT = 5
"""Patterns are drawn apart from those of the head."""


def fit_direct(
    trainer: ExecutorTrainer,
    settings: DirectSettings,
    outputs: Tensor,
    checked: IntArray,
    seed: int,
    on_epoch: EpochCallback | None = None,
    workspace: Workspace | None = None,
) -> dict[str, Any]:
    """Give the finished task head a direct head, unless validation rows are better off without one.

    Args:
        trainer: Its executor's head is replaced by one with networks beside.
        settings: Sizes and steps of the networks.
        outputs: What the head makes of the pairs to choose on.
        checked: These pairs, of validation rows with a label; where there are none the share is one half.
        seed: Of first weights, patterns and order.
        on_epoch: Told of every epoch.
        workspace: Where the fitted networks are kept: they read nothing of executor or head, so that runs
            which differ in these alone can share them. None to keep nothing.

    Returns:
        The share, the loss at each share, and the networks' epochs.
    """
    plain = trainer.executor.task
    if plain is None or trainer.training.label is None:
        raise ValueError("a labelled split and a task head are needed")
    head = _with_networks(plain, trainer.training, settings, seed)
    if workspace is not None and workspace.has(STAGE):
        tensors, facts = workspace.load(STAGE)
        _networks(head).load_state_dict(tensors)
        epochs = facts["epochs"]
    else:
        epochs = [
            _fit_member(head, trainer, settings, member, checked, seed, on_epoch)
            for member in range(settings.members)
        ]
        if workspace is not None:
            workspace.save(STAGE, _networks(head).state_dict(), {"epochs": epochs})
    head.eval()
    losses = _losses(head, trainer, outputs, checked)
    share = 0.5
    if losses:
        best = min(losses, key=lambda one: losses[one])
        share = best if losses[best] < losses[0.0] * (1 - TOLERANCE) else 0.0
    head.share.fill_(share)
    if share:
        trainer.executor.task = head
    return {"share": share, "losses": {f"{one:g}": loss for one, loss in losses.items()}, "epochs": epochs}


def _with_networks(plain: TaskHead, training: PairData, settings: DirectSettings, seed: int) -> TaskHead:
    """The same head with networks of random weights beside."""
    words = training.words
    terms = 0 if words is None else words.shape[1] - VALENCE_COLUMNS
    config = DirectHeadConfig(
        members=settings.members,
        hidden=settings.hidden,
        dropout=settings.dropout,
        terms=terms,
        components=min(settings.components, terms),
    )
    device = plain.linear.weight.device
    with seeded(seed, "direct head"):
        head = TaskHead(plain.config.model_copy(update={"direct": config}))
    head.load_state_dict(plain.state_dict(), strict=False)
    if words is not None and head.direct is not None:
        head.direct.fit_directions(words[words.any(dim=1)])
    return head.to(device)


def _fit_member(
    head: TaskHead,
    trainer: ExecutorTrainer,
    settings: DirectSettings,
    member: int,
    checked: IntArray,
    seed: int,
    on_epoch: EpochCallback | None,
) -> int:
    training = trainer.training
    labelled = ~labels_of(training).isnan().numpy()

    def loss_of(data: PairData, pairs: IntArray) -> Tensor:
        votes = _votes(head, trainer, data, pairs, slice(member, member + 1))
        return head.loss(votes[0], labels_of(data)[data.rows(pairs)].to(trainer.device)).mean()

    def examples(epoch: int) -> IntArray:
        pairs = training.pool.draw(seed + SHIFT + member, epoch)
        return np.asarray(pairs[labelled[training.pool.rows[pairs]]], dtype=np.int64)

    return fit(
        _networks(head).members[member],
        lambda batch, _epoch: loss_of(training, batch),
        examples,
        FitSettings.of(settings),
        seed=seed,
        purpose=f"direct head {member}",
        validate=(lambda: float(loss_of(trainer.validation, checked))) if len(checked) else None,
        on_epoch=on_epoch,
    ).epochs


def _votes(
    head: TaskHead, trainer: ExecutorTrainer, data: PairData, pairs: IntArray, members: slice = slice(None)
) -> Tensor:
    """(member, pair, output)."""
    rows, visible = data.rows(pairs), data.visible(pairs).to(trainer.device)
    latents = {name: value[rows].to(trainer.device) for name, value in data.latents.items()}
    votes: Tensor = _networks(head)(latents, visible, data.visible_words(pairs, trainer.device), members)
    return votes


def _networks(head: TaskHead) -> DirectHead:
    if head.direct is None:
        raise ValueError("a head with networks beside was expected")
    return head.direct


def _losses(
    head: TaskHead, trainer: ExecutorTrainer, outputs: Tensor, checked: IntArray
) -> dict[float, float]:
    """L_task of validation pairs at each share of the direct head."""
    if not len(checked):
        return {}
    data = trainer.validation
    label = labels_of(data)[data.rows(checked)].to(trainer.device)
    losses = {}
    with torch.no_grad():
        votes = _votes(head, trainer, data, checked)
        for share in SHARES:
            head.share.fill_(share)
            losses[share] = float(head.loss(head.mixed(outputs, votes), label).mean())
    return losses
