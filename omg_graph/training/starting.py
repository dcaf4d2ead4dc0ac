"""Where draws start: the share of T that gives the best draws of validation rows."""

from __future__ import annotations

import torch

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.training.execution import CHECK_BLOCK, ExecutorTrainer

STARTS = (1.0, 0.6, 0.4, 0.2)
"""Candidates, the plain sampler from noise first."""
DRAWS = 6
PAIRS = 192


def fit_start(trainer: ExecutorTrainer) -> dict[str, float]:
    """Choose where draws start: by the fair energy score of a few draws of validation pairs.

    Every modality counts in units of what its anchor leaves. A sampler that was trained on few rows draws
    too narrowly; what the kernel conditional left of rows alike has the right spread, and the last part of
    the path fits it to the sample.

    Returns:
        The score of each candidate; none where there are no rows to take residuals from.
    """
    executor, data = trainer.executor, trainer.validation
    if not len(executor.kernel.known) or executor.anchor.kind == "none":
        return {}
    pairs = trainer.checked[:: max(1, len(trainer.checked) // PAIRS)]
    totals = dict.fromkeys(STARTS, 0.0)
    executor.eval()
    with torch.no_grad():
        for first in range(0, len(pairs), CHECK_BLOCK):
            block = pairs[first : first + CHECK_BLOCK]
            batch, conditions = trainer.inputs(data, block)
            targets = data.targets(block, trainer.device)
            for start in STARTS:
                executor.start.fill_(start)
                totals[start] += _energy(
                    executor, batch, conditions, targets.latents, targets.known, trainer.seed
                )
    executor.start.fill_(min(totals, key=lambda start: totals[start]))
    return {str(start): total / len(pairs) for start, total in totals.items()}


def _energy(
    executor: Executor,
    batch: ExecutorInput,
    conditions: Conditions,
    truth: dict[str, torch.Tensor],
    wanted: torch.Tensor,
    seed: int,
) -> float:
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in executor.names}
    similar = executor.similar_rows(batch)
    for draw in range(DRAWS):
        made = executor.draw(batch, conditions, seed=seed, draw=draw, similar=similar)
        for name, path in made.items():
            final = path.states[-1].to(batch.observed.device)
            drawn[name].append(executor.latent_estimate(name, final, conditions.anchor[name]))
    total = 0.0
    for column, name in enumerate(executor.names):
        # in units of what the anchor leaves, so that every modality counts
        draws = torch.stack(drawn[name]) / executor.residual_scale[column]
        error = (draws - truth[name] / executor.residual_scale[column]).norm(dim=2).mean(dim=0)
        among = torch.cdist(draws.transpose(0, 1), draws.transpose(0, 1)).sum(dim=(1, 2))
        score = error - among / (2 * DRAWS * (DRAWS - 1))
        total += float(score[wanted[:, column]].sum())
    return total
