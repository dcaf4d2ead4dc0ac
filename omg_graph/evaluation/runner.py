"""Run a model, or fit and run a floor, over all pairs of sample and pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omg_graph import pipeline
from omg_graph.data.dataset import Split
from omg_graph.evaluation.floor_data import Guess, Shown, TrainingRows
from omg_graph.evaluation.floors import Floor
from omg_graph.evaluation.outcomes import FeatureScorer, Outcomes, Pairs, joined
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.features import DRAWS_FOR_90, PooledRatio
from omg_graph.metrics.labels import Numbers
from omg_graph.model.model import Model
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
        parts = []
        for part in pairs.batches(MICRO_BATCH):
            parts.append(self._measure(pairs, part))
            if progress is not None:
                progress(part.stop, len(pairs))
        return ModelRun(
            joined([part.outcomes for part in parts]),
            joined([part.anchor for part in parts]),
            {name: torch.cat([part.evidence[name] for part in parts]) for name in self.model.names},
        )

    def _measure(self, pairs: Pairs, part: slice) -> ModelRun:
        model, scorer = self.model, FeatureScorer(self.model.latent_space, self.truth)
        shown = pairs.shown(self.truth, part)
        run = pipeline.run(model, shown, seed=self.seed, draws=self.draws if self.draws >= 2 else 0)
        execution = run.execution
        outcomes = Outcomes(
            METHOD,
            errors={name: scorer.error(name, execution.estimates[name], pairs, part) for name in model.names},
            semantic_cost=np.array([ranking.best.semantic_cost for ranking in run.ranked], np.float64),
            reranked=np.array([float(_changed(ranking)) for ranking in run.ranked]),
            evidence_cost=_evidence_cost(run.evidence, len(shown)),
            same_polarity=self._polarity(run.evidence, pairs, part),
        )
        if self.draws >= 2:
            self._add_draws(outcomes, execution.draws, scorer, pairs, part)
        anchor = Outcomes(
            ANCHOR,
            errors={name: scorer.error(name, execution.anchors[name], pairs, part) for name in model.names},
        )
        for made, outputs in ((outcomes, execution.outputs), (anchor, execution.outputs_anchor)):
            if outputs is not None:
                self._add_predictions(made, outputs.cpu())
        evidence = {
            name: torch.from_numpy(run.evidence[name].aggregated)
            if name in run.evidence
            else torch.zeros(len(shown), width)
            for name, width in model.executor.widths.items()
        }
        return ModelRun(outcomes, anchor, evidence)

    def _add_draws(
        self,
        outcomes: Outcomes,
        draws: Mapping[str, Tensor],
        scorer: FeatureScorer,
        pairs: Pairs,
        part: slice,
    ) -> None:
        """Energy scores, and coverage where there are 19 draws; nothing scored where all is visible."""
        rows = part.stop - part.start
        for name in self.model.names:
            energy = np.full(rows, np.nan)
            covered: PooledRatio | None = PooledRatio(np.zeros(rows), np.zeros(rows))
            if name in draws:
                energy, covered = scorer.draws(name, draws[name], pairs, part)
            outcomes.energy[name] = energy
            if covered is not None and self.draws == DRAWS_FOR_90:
                outcomes.coverage[name] = covered

    def _add_predictions(self, outcomes: Outcomes, outputs: Tensor) -> None:
        head = self.model.executor.task
        assert head is not None  # for the type checker: there were outputs
        if head.config.kind != "number":
            outcomes.probabilities = head.probabilities(outputs).double().numpy()
        if head.config.kind == "classes":
            assert outcomes.probabilities is not None  # for the type checker
            outcomes.label = outcomes.probabilities.argmax(axis=1)
        else:
            outcomes.value = head.value(outputs).double().numpy()

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


def _evidence_cost(evidence: Mapping[str, Evidence], samples: int) -> Numbers:
    """(samples,): C_evi averaged over the modalities with evidence; NaN without any."""
    cost, found = np.zeros(samples), np.zeros(samples)
    for rows in evidence.values():
        cost += np.where(rows.found, rows.alignment_cost, 0.0)
        found += rows.found
    return np.where(found > 0, cost / np.maximum(found, 1), np.nan)


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
    parts = []
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
        parts.append(
            Outcomes(
                floor.name,
                value=guess.value,
                label=guess.label,
                probabilities=guess.probabilities,
                errors={name: _error(scorer, name, guess, pairs, part) for name in model.names},
                energy={name: _energy(scorer, name, guess, pairs, part) for name in model.names},
            )
        )
        if progress is not None:
            progress(part.stop, len(pairs))
    return joined(parts)


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
