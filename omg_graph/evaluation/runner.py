"""Run a model, or fit and run a floor, over all pairs of sample and pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph import pipeline
from omg_graph.data.dataset import Split
from omg_graph.evaluation.floor_data import Guess, Shown, TrainingRows
from omg_graph.evaluation.floors import Floor
from omg_graph.evaluation.outcomes import FeatureScorer, Outcomes, Pairs, gathered
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.features import DRAWS_FOR_90, PooledRatio
from omg_graph.metrics.labels import Numbers
from omg_graph.model.model import Model
from omg_graph.pipeline import Execution
from omg_graph.planner.rerank import Reranking
from omg_graph.retriever.evidence import Evidence

METHOD = "omg"
"""What results call the model."""
ANCHOR = "anchor"
"""The model with its network left out: anchors alone, in the same task head."""
MICRO_BATCH = 128

Progress = Callable[[int, int], None]
"""(pairs done, of)."""


@dataclass(frozen=True)
class ModelRun:
    """What a model made of all pairs."""

    outcomes: Outcomes
    anchor: Outcomes
    evidence: dict[str, Tensor]
    """E of each modality (Eq. 8), (pairs, latent); zeros where it is visible or nothing was found."""


@dataclass(frozen=True)
class ModelRunner:
    """One model on one split."""

    model: Model
    truth: Split
    target: LabelTarget
    draws: int = 19
    """Samples of each missing modality; with fewer than two there are no scores of draws."""
    seed: int = 0
    """Of plans and noise; each pair's depend on it and on the sample's id alone."""

    def run(self, pairs: Pairs, progress: Progress | None = None) -> ModelRun:
        """Plan, re-rank, retrieve and execute every pair, in micro-batches that change nothing."""
        collected = _Collected(self.model)
        for part in pairs.batches(MICRO_BATCH):
            self._measure(pairs, part, collected)
            if progress is not None:
                progress(part.stop, len(pairs))
        return collected.result()

    def _measure(self, pairs: Pairs, part: slice, collected: _Collected) -> None:
        model = self.model
        shown = pairs.shown(self.truth, part)
        run = pipeline.run(model, shown, seed=self.seed, draws=self.draws if self.draws >= 2 else 0)
        evidence, execution = run.evidence, run.execution
        collected.semantic.append(
            np.array([ranking.best.semantic_cost for ranking in run.ranked], dtype=np.float64)
        )
        collected.changed.append(np.array([float(_changed(ranking)) for ranking in run.ranked]))
        collected.add_evidence(evidence, len(shown))
        collected.polarity.append(self._polarity(evidence, pairs, part))
        self._add_features(execution, pairs, part, collected)
        if execution.outputs is not None and execution.outputs_anchor is not None:
            collected.outputs.append(execution.outputs.cpu())
            collected.anchor_outputs.append(execution.outputs_anchor.cpu())

    def _add_features(self, execution: Execution, pairs: Pairs, part: slice, collected: _Collected) -> None:
        scorer = FeatureScorer(self.model.latent_space, self.truth)
        for name in self.model.names:
            collected.errors[name].append(scorer.error(name, execution.estimates[name], pairs, part))
            collected.anchor_errors[name].append(scorer.error(name, execution.anchors[name], pairs, part))
            if self.draws < 2:
                continue
            if name in execution.draws:
                energy, covered = scorer.draws(name, execution.draws[name], pairs, part)
            else:
                rows = part.stop - part.start
                energy = np.full(rows, np.nan)
                nothing = PooledRatio(np.zeros(rows), np.zeros(rows))
                covered = nothing if self.draws == DRAWS_FOR_90 else None
            collected.energy[name].append(energy)
            if covered is not None:
                collected.coverage[name].append(covered)

    def _polarity(self, evidence: Mapping[str, Evidence], pairs: Pairs, part: slice) -> Numbers:
        """(pairs,): share of the labelled evidence's weight that has the truth's sign."""
        shares = np.full(part.stop - part.start, np.nan)
        kb, labels = self.model.knowledge_base, self.truth.labels
        if labels is None or self.target.family == "none" or self.target.is_classes:
            return shares
        of_entries = self.target.of_entries(kb)
        truths = self.target.numbers(labels)[pairs.rows[part]]
        for place, truth in enumerate(truths):
            if np.isnan(truth) or truth == 0:
                continue
            agreeing = total = 0.0
            for rows in evidence.values():
                for entry in rows.entries[place]:
                    row = kb.row_of.get(entry.id)
                    if row is None or np.isnan(of_entries[row]):
                        continue
                    total += entry.weight
                    agreeing += entry.weight * bool(np.sign(of_entries[row]) == np.sign(truth))
            if total > 0:
                shares[place] = agreeing / total
        return shares


def _changed(ranking: Reranking) -> bool:
    """Whether the semantic cost made another plan win than the most probable valid one."""
    return sum(ranking.best.log_probabilities) < sum(ranking.likeliest.log_probabilities)


class _Collected:
    """Micro-batches, one after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.errors: dict[str, list[PooledRatio]] = {name: [] for name in model.names}
        self.anchor_errors: dict[str, list[PooledRatio]] = {name: [] for name in model.names}
        self.energy: dict[str, list[Numbers]] = {name: [] for name in model.names}
        self.coverage: dict[str, list[PooledRatio]] = {name: [] for name in model.names}
        self.semantic: list[Numbers] = []
        self.changed: list[Numbers] = []
        self.costs: list[Numbers] = []
        self.polarity: list[Numbers] = []
        self.evidence: dict[str, list[Tensor]] = {name: [] for name in model.names}
        self.outputs: list[Tensor] = []
        self.anchor_outputs: list[Tensor] = []

    def add_evidence(self, evidence: Mapping[str, Evidence], samples: int) -> None:
        """E of every modality, and C_evi averaged over those with evidence."""
        cost, found = np.zeros(samples), np.zeros(samples)
        for name, width in self.model.executor.widths.items():
            if name not in evidence:
                self.evidence[name].append(torch.zeros(samples, width))
                continue
            rows = evidence[name]
            self.evidence[name].append(torch.from_numpy(rows.aggregated))
            cost += np.where(rows.found, rows.alignment_cost, 0.0)
            found += rows.found
        self.costs.append(np.where(found > 0, cost / np.maximum(found, 1), np.nan))

    def result(self) -> ModelRun:
        """All batches put together."""
        outcomes = Outcomes(
            METHOD,
            errors={name: gathered(parts) for name, parts in self.errors.items()},
            energy={name: np.concatenate(parts) for name, parts in self.energy.items() if parts},
            coverage={name: gathered(parts) for name, parts in self.coverage.items() if parts},
            semantic_cost=np.concatenate(self.semantic),
            reranked=np.concatenate(self.changed),
            evidence_cost=np.concatenate(self.costs),
            same_polarity=np.concatenate(self.polarity),
        )
        anchor = Outcomes(
            ANCHOR, errors={name: gathered(parts) for name, parts in self.anchor_errors.items()}
        )
        if self.outputs:
            self._predict(outcomes, torch.cat(self.outputs))
            self._predict(anchor, torch.cat(self.anchor_outputs))
        evidence = {name: torch.cat(parts) for name, parts in self.evidence.items()}
        return ModelRun(outcomes, anchor, evidence)

    def _predict(self, outcomes: Outcomes, outputs: Tensor) -> None:
        head = self.model.executor.task
        assert head is not None  # for the type checker: there were outputs
        if head.config.kind == "number":
            outcomes.value = head.value(outputs).double().numpy()
            return
        outcomes.probabilities = head.probabilities(outputs).double().numpy()
        if head.config.kind == "classes":
            outcomes.label = outcomes.probabilities.argmax(axis=1)
        else:
            outcomes.value = head.value(outputs).double().numpy()


BATCH = 256


def run_floor(
    floor: Floor,
    rows: TrainingRows,
    target: LabelTarget,
    *,
    model: Model,
    truth: Split,
    pairs: Pairs,
    evidence: dict[str, torch.Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Fit a floor and score it on all pairs, exactly like the model."""
    floor.fit(rows, target)
    scorer = FeatureScorer(model.latent_space, truth)
    errors: dict[str, list[PooledRatio]] = {name: [] for name in model.names}
    energy: dict[str, list[Numbers]] = {name: [] for name in model.names}
    guesses: list[Guess] = []
    for part in pairs.batches(BATCH):
        shown = pairs.shown(truth, part)
        latents = model.latent_space.encode(shown)
        guess = floor.predict(
            Shown(
                latents={name: value.double().numpy() for name, value in latents.items()},
                visible=pairs.visible[part],
                ids=shown.ids,
                groups=shown.groups,
                evidence={name: value[part].double().numpy() for name, value in evidence.items()},
            )
        )
        for name in model.names:
            errors[name].append(_error(scorer, name, guess, pairs, part))
            energy[name].append(_energy(scorer, name, guess, pairs, part))
        guesses.append(guess)
        if progress is not None:
            progress(part.stop, len(pairs))
    return Outcomes(
        floor.name,
        value=_joined([guess.value for guess in guesses]),
        label=_joined([guess.label for guess in guesses]),
        probabilities=_joined([guess.probabilities for guess in guesses]),
        errors={name: gathered(parts) for name, parts in errors.items()},
        energy={name: np.concatenate(parts) for name, parts in energy.items()},
    )


def _error(scorer: FeatureScorer, name: str, guess: Guess, pairs: Pairs, part: slice) -> PooledRatio:
    """Squared error and deviation, 0 of 0 where a floor estimates no features."""
    if name not in guess.latents:
        zeros = np.zeros(part.stop - part.start)
        return PooledRatio(zeros, zeros.copy())
    return scorer.error(name, torch.from_numpy(guess.latents[name]).float(), pairs, part)


def _energy(scorer: FeatureScorer, name: str, guess: Guess, pairs: Pairs, part: slice) -> Numbers:
    """(pairs,): fair energy scores of a floor's draws, NaN where it has none."""
    scores = np.full(part.stop - part.start, np.nan)
    if name not in guess.draws:
        return scores
    drawn = guess.draws[name]
    chosen = np.flatnonzero(np.isfinite(drawn).all(axis=(0, 2)))
    few = Pairs(pairs.rows[part][chosen], pairs.visible[part][chosen])
    scores[chosen] = scorer.draws(name, torch.from_numpy(drawn[:, chosen]).float(), few, slice(0, len(few)))[
        0
    ]
    return scores


def _joined(parts: Sequence[npt.NDArray[Any] | None]) -> Any:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None
