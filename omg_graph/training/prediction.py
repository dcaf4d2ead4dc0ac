"""Fits after the executor's training: trust, start of draws, task head and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import Guidance
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.metrics.features import frechet_distance
from omg_graph.predictor.direct import VALENCE_COLUMNS, DirectHead, DirectHeadConfig
from omg_graph.predictor.task import TaskHeadConfig, predictor_class
from omg_graph.seeding import seeded
from omg_graph.training.cache import Content
from omg_graph.training.config import DirectSettings
from omg_graph.training.executor_training import ExecutorTrainer, blocks_of, kept_weights
from omg_graph.training.fitting import EpochCallback, FitSettings, fit
from omg_graph.training.rows import IntArray, PairData

HEAD_STEPS = FitSettings(epochs=60, batch_size=64, learning_rate=1e-3, weight_decay=0.1, patience=12)
DIRECT_STEPS = FitSettings(epochs=100, batch_size=64, learning_rate=7e-4, weight_decay=0.01, patience=12)
DIRECTIONS = 100
"""Principal directions that a transcript's words are reduced to for the direct networks."""
STARTS = (1.0, 0.6, 0.4, 0.2)
"""Candidate starts of draws, as a share of T; 1 is the plain sampler from noise."""
START_DRAWS, START_PAIRS = 6, 192
GUIDANCES = ((1.0, 1.0), (1.5, 1.0), (1.5, 1.5), (2.0, 1.5), (2.0, 2.0))
"""Candidate weights of plan and evidence in draws."""
MOST_GUIDED = 1024
"""Validation pairs that they are compared on at most."""
BESIDE_ESTIMATES = 0.1
"""Of the learning rate, where the head reads an estimate of the label. At the full rate u_X and slots are
learned by heart: on CMU-MOSI's training rows, five folds by video, ACC2 is then .730, and .751 with this."""
SHARES = (0.0, 0.25, 0.5, 0.75)
"""Candidate shares of the direct networks in the prediction."""
SHARE_TOLERANCE = 0.002
"""Relative fall of the loss that is needed to keep the networks."""


def fit_trust_and_start(trainer: ExecutorTrainer) -> Content:
    """The stage: the weight of the network's mean estimate, where draws start, and their guidance."""
    trust, starts = fit_trust(trainer), fit_start(trainer)
    return kept_weights(trainer), {"trust": trust, "starts": starts, "guidance": fit_guidance(trainer)}


def fit_trust(trainer: ExecutorTrainer) -> dict[str, list[float]]:
    """How much of the network's mean estimate to add, from 0 to 1, on validation pairs.

    Least squares through the origin for each modality and number of observed ones: zero where the network
    adds nothing to the anchor, or no such pair occurs.
    """
    executor, data = trainer.executor, trainer.validation
    executor.eval()
    modalities = len(executor.names)
    products = torch.zeros(2, modalities, modalities, dtype=torch.float64, device=trainer.device)
    with torch.no_grad():
        for pairs in blocks_of(trainer.checked):
            batch, conditions = trainer.inputs(data, pairs)
            residuals = executor.mean_residuals(batch, conditions)
            targets = data.targets(pairs, trainer.device)
            count = (batch.observed.sum(dim=1) - 1).clamp(min=0)
            for column, name in enumerate(executor.names):
                anchor, rows = conditions.anchor[name], targets.known[:, column]
                truth = targets.latents[name] - anchor
                guess = executor.latent_estimate(name, residuals[name], torch.zeros_like(anchor))
                for place, terms in enumerate((truth * guess, guess.square())):
                    products[place, column].index_add_(0, count[rows], terms.sum(dim=1)[rows].double())
    trust = (products[0] / products[1].clamp(min=1e-12)).clamp(0.0, 1.0)
    executor.trust.copy_(trust)
    return dict(zip(executor.names, trust.tolist(), strict=True))


def fit_start(trainer: ExecutorTrainer) -> dict[str, float]:
    """Choose where draws start: by the fair energy score of a few draws of validation pairs.

    Each modality is measured in units of its residual from the anchor. A sampler trained on few rows draws
    too narrowly. The kernel regression's residuals of similar rows have the right spread, and the last part
    of the path adapts them to the sample.

    Returns:
        The score of each candidate; none where there are no rows to take residuals from.
    """
    executor, data = trainer.executor, trainer.validation
    if not executor.anchor.keeps_rows or trainer.latent_space.sampled:
        return {}
    pairs = trainer.checked[:: max(1, len(trainer.checked) // START_PAIRS)]
    totals = dict.fromkeys(STARTS, 0.0)
    executor.eval()
    with torch.no_grad():
        for block in blocks_of(pairs):
            batch, conditions = trainer.inputs(data, block)
            targets = data.targets(block, trainer.device)
            for start in STARTS:
                executor.start.fill_(start)
                totals[start] += _energy(
                    executor, batch, conditions, targets.latents, targets.known, trainer.seed
                )
    executor.start.fill_(min(totals, key=lambda start: totals[start]))
    return {str(start): total / len(pairs) for start, total in totals.items()}


def fit_guidance(trainer: ExecutorTrainer) -> dict[str, float]:
    """Choose how strongly plan and evidence steer draws, where draws are what is wanted.

    By the Fréchet distance of one draw for each validation pair from the training rows, in latents, over all
    modalities whose estimate is a draw. Too little guidance blurs one meaning into another, too much makes
    everything alike: both show in it.

    Returns:
        The distance of each candidate, by "plan, evidence"; none where nothing is to be chosen.
    """
    executor, data, sampled = trainer.executor, trainer.validation, trainer.latent_space.sampled
    if not sampled or not bool(executor.denoiser.guidable):
        return {}
    pairs = trainer.checked[:MOST_GUIDED]
    totals = {}
    executor.eval()
    for weights in GUIDANCES:
        drawn: dict[str, list[Tensor]] = {name: [] for name in sampled}
        for block in blocks_of(pairs):
            with torch.no_grad():
                batch, conditions = trainer.inputs(data, block)
                made = executor.draw(
                    batch, conditions, seed=trainer.seed, draw=0, guidance=Guidance(*weights)
                )
            latents = executor.drawn_latents(made, conditions)
            for name in sampled:
                hidden = ~batch.observed[:, executor.names.index(name)]
                drawn[name].append(latents[name][hidden].cpu())
        totals[weights] = sum(
            frechet_distance(
                torch.cat(rows).numpy(),
                trainer.training.latents[name][trainer.training.known[:, executor.names.index(name)]].numpy(),
            )
            for name, rows in drawn.items()
        )
    executor.guidance_weights.copy_(torch.tensor(min(totals, key=lambda weights: totals[weights])))
    return {f"{plan:g}, {evidence:g}": total for (plan, evidence), total in totals.items()}


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
    for draw in range(START_DRAWS):
        made = executor.draw(batch, conditions, seed=seed, draw=draw, similar=similar)
        for name, latents in executor.drawn_latents(made, conditions).items():
            drawn[name].append(latents)
    total = 0.0
    for column, name in enumerate(executor.names):
        # in units of the residual from the anchor, so that all modalities count equally
        draws = torch.stack(drawn[name]) / executor.residual_scale[column]
        error = (draws - truth[name] / executor.residual_scale[column]).norm(dim=2).mean(dim=0)
        among = torch.cdist(draws.transpose(0, 1), draws.transpose(0, 1)).sum(dim=(1, 2))
        score = error - among / (2 * START_DRAWS * (START_DRAWS - 1))
        total += float(score[wanted[:, column]].sum())
    return total


# the direct networks, which don't depend on the executor


def fit_direct_networks(
    task: TaskHeadConfig,
    training: PairData,
    validation: PairData,
    settings: DirectSettings,
    seed: int,
    *,
    device: torch.device,
    on_epoch: EpochCallback | None = None,
) -> Content:
    """The stage: direct networks from the observation to the label, each with early stopping.

    Args:
        task: What is predicted.
        training: Labelled pairs.
        validation: Pairs to choose epochs on, where some have a label.
        settings: How many networks, their width and epochs.
        seed: Of first weights, patterns and order.
        device: Where they are trained.
        on_epoch: Called after every epoch.
    """
    words = training.words
    terms = 0 if words is None else words.shape[1] - VALENCE_COLUMNS
    config = DirectHeadConfig(
        members=settings.members,
        hidden=settings.hidden,
        terms=terms,
        components=min(DIRECTIONS, terms),
    )
    with seeded(seed, "direct head"):
        head = predictor_class(task.predictor)(task.model_copy(update={"direct": config}))
    if words is not None and head.direct is not None:
        head.direct.fit_directions(words[words.any(dim=1)])
    head.to(device)
    networks, checked = _networks(head), validation.labelled()
    epochs = []
    for member in range(settings.members):

        def loss_of(data: PairData, pairs: IntArray, member: int = member) -> Tensor:
            votes = _votes(head, data, pairs, device, slice(member, member + 1))
            losses: Tensor = head.loss(votes[0], data.labels[data.rows(pairs)].to(device))
            return losses.mean()

        report = fit(
            networks.members[member],
            lambda batch, _epoch, loss_of=loss_of: loss_of(training, batch),  # type: ignore[misc]
            # patterns are drawn apart from those of the head
            lambda epoch, member=member: training.labelled(training.pool.draw(seed + 5 + member, epoch)),  # type: ignore[misc]
            replace(DIRECT_STEPS, epochs=settings.epochs),
            seed=seed,
            purpose=f"direct head {member}",
            validate=(lambda loss_of=loss_of: float(loss_of(validation, checked))) if len(checked) else None,  # type: ignore[misc]
            on_epoch=on_epoch,
        )
        epochs.append(report.epochs)
    return networks.state_dict(), {"epochs": epochs, "config": config.model_dump(mode="json")}


def _votes(
    head: Any, data: PairData, pairs: IntArray, device: torch.device, members: slice = slice(None)
) -> Tensor:
    """(member, pair, output)."""
    rows, visible = data.rows(pairs), data.visible(pairs).to(device)
    latents = {name: value[rows].to(device) for name, value in data.latents.items()}
    votes: Tensor = _networks(head)(latents, visible, data.visible_words(pairs, device), members)
    return votes


def _networks(head: Any) -> DirectHead:
    networks: DirectHead | None = head.direct
    if networks is None:
        raise ValueError("expected a head with direct networks")
    return networks


# the task head


def fit_prediction(
    trainer: ExecutorTrainer,
    epochs: int | None,
    calibrated: bool,
    direct: Content | None,
    seed: int,
    *,
    on_epoch: EpochCallback | None = None,
) -> Content:
    """The stage: the task head, its share of the direct networks, and its calibration.

    Args:
        trainer: With the finished executor.
        epochs: Of the head, at most; None to keep the one that was trained jointly.
        calibrated: Whether temperature and spread are fitted.
        direct: Direct networks to average the head with.
        seed: Decides everything random.
        on_epoch: Called after every epoch.
    """
    facts: dict[str, Any] = {"task": None, "direct": None, "temperature": None, "spread": None}
    if epochs is not None and trainer.executor.task is not None and trainer.training.label is not None:
        facts |= _fit_head(trainer, epochs, direct, seed, on_epoch)
    if calibrated:
        facts |= _calibrate(trainer)
    head = trainer.executor.task
    networks = None if head is None else head.config.direct
    facts["networks"] = None if networks is None else networks.model_dump(mode="json")
    return kept_weights(trainer), facts


def put_head(trainer: ExecutorTrainer, facts: Mapping[str, Any]) -> None:
    """Give the executor a head of the kind that was fitted, to load weights into."""
    head = trainer.executor.task
    if head is not None and facts["networks"] is not None:
        networks = DirectHeadConfig.model_validate(facts["networks"])
        trainer.executor.add_task(head.config.model_copy(update={"direct": networks}))
        trainer.executor.to(trainer.device)


def _fit_head(
    trainer: ExecutorTrainer,
    epochs: int,
    direct: Content | None,
    seed: int,
    on_epoch: EpochCallback | None,
) -> dict[str, Any]:
    """Replace the jointly trained head by one selected on L_task alone (Eq. 17).

    The executor's best epoch is chosen on all of Eq. 18, but a head overfits long before the denoiser has
    converged, so each has its own criterion. The estimates come from the trained executor, and u_X of
    training rows is out-of-fold.
    """
    executor, training, validation = trainer.executor, trainer.training, trainer.validation
    if executor.task is None:
        raise ValueError("a task head was expected")
    with seeded(seed, "task head"):
        config = executor.task.config
        head = predictor_class(config.predictor)(config).to(trainer.device)
    seen, checked = training.pool.everything, validation.labelled()
    filled = {
        "training": _filled(trainer, training, seen),
        "validation": _filled(trainer, validation, checked),
    }
    # the label estimate uses the observation already: u_X and slots need only small corrections
    rate = HEAD_STEPS.learning_rate * (BESIDE_ESTIMATES if training.label_estimates is not None else 1.0)

    def outputs_of(data: PairData, slots: Mapping[str, Tensor], pairs: IntArray, places: IntArray) -> Tensor:
        index = torch.from_numpy(pairs)
        estimates = data.label_estimates
        outputs: Tensor = head(
            data.observation[index].to(trainer.device),
            {name: value[torch.from_numpy(places)] for name, value in slots.items()},
            None if estimates is None else estimates[index].to(trainer.device),
        )
        return outputs

    def checked_outputs() -> Tensor:
        return outputs_of(validation, filled["validation"], checked, np.arange(len(checked), dtype=np.int64))

    def loss_of(data: PairData, pairs: IntArray, outputs: Tensor) -> Tensor:
        losses: Tensor = head.loss(outputs, data.labels[data.rows(pairs)].to(trainer.device))
        return losses.mean()

    report = fit(
        head,
        lambda batch, _epoch: loss_of(
            training, batch, outputs_of(training, filled["training"], batch, batch)
        ),
        lambda epoch: training.labelled(training.pool.draw(seed + 3, epoch)),
        replace(HEAD_STEPS, epochs=epochs, learning_rate=rate),
        seed=seed,
        purpose="task head",
        validate=(lambda: float(loss_of(validation, checked, checked_outputs()))) if len(checked) else None,
        on_epoch=on_epoch,
    )
    executor.task = head
    facts: dict[str, Any] = {"task": vars(report)}
    if direct is not None:
        with torch.no_grad():
            outputs = checked_outputs() if len(checked) else torch.zeros(0, head.config.outputs)
        facts["direct"] = _share(trainer, head, direct, outputs, checked)
    return facts


def _share(
    trainer: ExecutorTrainer, plain: Any, direct: Content, outputs: Tensor, checked: IntArray
) -> dict[str, Any]:
    """Average the head with direct networks, unless the validation loss is lower without them.

    Returns:
        The share (one half where there are no rows to choose on), the loss at each, the networks' epochs.
    """
    weights, facts = direct
    head = plain.with_networks(DirectHeadConfig.model_validate(facts["config"]), weights).eval()
    losses: dict[float, float] = {}
    if len(checked):
        data = trainer.validation
        label = data.labels[data.rows(checked)].to(trainer.device)
        with torch.no_grad():
            votes = _votes(head, data, checked, trainer.device)
            for share in SHARES:
                head.share.fill_(share)
                losses[share] = float(head.loss(head.mixed(outputs, votes), label).mean())
    share = 0.5
    if losses:
        best = min(losses, key=lambda one: losses[one])
        share = best if losses[best] < losses[0.0] * (1 - SHARE_TOLERANCE) else 0.0
    head.share.fill_(share)
    if share:
        trainer.executor.task = head
    by_share = {f"{one:g}": loss for one, loss in losses.items()}
    return {"share": share, "losses": by_share, "epochs": facts["epochs"]}


def _filled(trainer: ExecutorTrainer, data: PairData, pairs: IntArray) -> dict[str, Tensor]:
    """One slot for each modality: encoded if visible, the executor's mean estimate if not."""
    parts: dict[str, list[Tensor]] = {name: [] for name in data.names}
    with torch.no_grad():
        for block in blocks_of(pairs):
            batch, conditions = trainer.inputs(data, block)
            filled = trainer.executor.fill(batch, trainer.executor.estimate(batch, conditions))
            for name, value in filled.items():
                parts[name].append(value)
    return {name: torch.cat(rows) for name, rows in parts.items() if rows}


def _calibrate(trainer: ExecutorTrainer) -> dict[str, float]:
    """Calibrate on validation rows with a label; every missing pattern counts the same."""
    head, data = trainer.executor.task, trainer.validation
    pairs = data.labelled()
    if head is None or not len(pairs):
        return {}
    parts = []
    with torch.no_grad():
        for block in blocks_of(pairs):
            batch, conditions = trainer.inputs(data, block)
            slots = trainer.executor.fill(batch, trainer.executor.estimate(batch, conditions))
            parts.append(head(batch.observation, slots, batch.label_estimates, batch.observed, batch.words))
    outputs = torch.cat(parts)
    return head.calibrate(outputs, data.labels[data.rows(pairs)].to(outputs.device))
