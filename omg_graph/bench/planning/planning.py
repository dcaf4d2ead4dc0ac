"""Measuring a planner on held-out samples under every missing pattern, beside floors that see as much."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omg_graph import pipeline
from omg_graph.bench.baselines import machines
from omg_graph.bench.planning.accuracy import Answers, Graded, accuracies, graded, questions
from omg_graph.bench.planning.report import (
    Bin,
    Calibration,
    Perplexity,
    PlannerReport,
    QuestionName,
    Speed,
    Teacher,
)
from omg_graph.bench.planning.speed import speeds
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.errors import OmgError
from omg_graph.evaluation.intervals import Resamples
from omg_graph.metrics.labels import BINS, bins_of
from omg_graph.model.model import Model
from omg_graph.planner.interface import Planner, PlannerInput, RescoringPlanner, StoredPlanner
from omg_graph.planner.rerank import Reranking
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.schema_choice import choose_schema
from omg_graph.planner.schemas import target_values
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.training.validation import patterns_of

BATCH = 128

Progress = Callable[[int, int], None]
"""(patterns done, of)."""
Surprise = tuple[float, int]
"""Of a teacher's plan: -log pi in nats, and its tokens."""


@dataclass(frozen=True)
class _Planned:
    """What was planned under one missing pattern, for the rows that show anything."""

    answers: Answers
    plans: int
    valid: int
    surprises: list[Surprise]
    sure: list[tuple[float, bool]]
    """Probability of the likeliest plan's target, and whether that is right; of labelled rows."""
    changed: list[tuple[bool, bool]]
    """Whether re-ranking chose another plan than the likeliest, and another target, of each row."""


@dataclass(frozen=True)
class Measured:
    """What was found of a planner on one split, to be pooled with others."""

    split: Split
    planned: list[_Planned]
    grades: dict[QuestionName, list[Graded]]


def measure_planner(
    model: Model,
    split: Split,
    *,
    train: Split | None = None,
    planner: Planner | None = None,
    plans: Sequence[Plan | None] | None = None,
    seed: int = 0,
    limit: int | None = None,
    timing: bool = True,
    teacher: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> PlannerReport:
    """Plan every sample under every missing pattern, and compare with labels, floors and a teacher's plans.

    Args:
        model: Whose psi, g and schema are used.
        split: Held-out samples.
        train: The training rows, for the floors.
        planner: Measured instead of the model's own.
        plans: A teacher's plans of the split, for perplexity; the lexical annotator's by default.
        seed: Of what is drawn.
        limit: Only the first so many samples.
        timing: Whether to measure times.
        teacher: What is known of a teacher, its ``name`` among it: shown beside.
        progress: Told of every pattern.

    Raises:
        PlanError: if a sample has no valid plan.
    """
    if planner is not None:
        model = model.with_planner(planner)
    teacher_plans = list(plans) if plans is not None else _lexical_plans(model.schema, split, seed)
    if limit is not None and limit < len(split):
        split, teacher_plans = split.take(np.arange(limit)), teacher_plans[:limit]
    found = measured(model, split, teacher_plans, train=train, seed=seed, progress=progress)
    return report(
        model,
        [found],
        fitted=train is not None,
        speed=speeds(model, split) if timing else (),
        teacher=teacher,
    )


def measured(
    model: Model,
    split: Split,
    teacher_plans: Sequence[Plan | None],
    *,
    train: Split | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """Plan every sample under every missing pattern, and grade the targets.

    Args:
        model: Whose planner is asked.
        split: Held-out samples.
        teacher_plans: A teacher's plans of them.
        train: The training rows, for the floors.
        seed: Of what is drawn.
        progress: Told of every pattern.
    """
    planned = []
    visibles = patterns_of(len(split.names))
    for number, visible in enumerate(visibles):
        pattern = _planned(model, split, visible, teacher_plans, seed)
        if len(pattern.answers.rows):
            planned.append(pattern)
        if progress is not None:
            progress(number + 1, len(visibles))
    answers = [pattern.answers for pattern in planned]
    grades: dict[QuestionName, list[Graded]] = {}
    for question in questions(model.schema, split):
        grades[question.name] = graded(model, split, train, question, answers, grades.get("sign", ()))
    return Measured(split, planned, grades)


def report(
    model: Model,
    runs: Sequence[Measured],
    *,
    fitted: bool,
    speed: tuple[Speed, ...] = (),
    teacher: Mapping[str, Any] | None = None,
) -> PlannerReport:
    """One report of all that was found, pooled.

    Args:
        model: What they have in common.
        runs: At least one.
        fitted: Whether there were training rows for the floors.
        speed: What was timed.
        teacher: What is known of a teacher.
    """
    planned = [pattern for run in runs for pattern in run.planned]
    count = sum(pattern.plans for pattern in planned)
    changed = np.array([pair for pattern in planned for pair in pattern.changed]).reshape(-1, 2)
    shares = changed.mean(axis=0) if len(changed) else np.zeros(2)
    ids = [sample for run in runs for sample in run.split.ids]
    resamples = Resamples.of(ids, [group for run in runs for group in run.split.groups])
    return PlannerReport(
        planner=model.planner.name,
        model=model.manifest.fingerprint,
        split=runs[0].split.name,
        samples=len(set(ids)),
        candidates=model.config.planning.candidates,
        plans=count,
        valid=sum(pattern.valid for pattern in planned) / max(1, count),
        accuracy=tuple(
            row
            for name in runs[0].grades
            for row in accuracies(name, [run.grades[name] for run in runs], resamples)
        ),
        reranked=float(shares[0]),
        reranked_target=None if model.schema.target_index is None else float(shares[1]),
        perplexity=_perplexity([one for pattern in planned for one in pattern.surprises]),
        calibration=_calibration([one for pattern in planned for one in pattern.sure]),
        speed=speed,
        teacher=None if teacher is None else Teacher.model_validate(dict(teacher)),
        notes=_notes(fitted, resamples)
        if runs[0].grades
        else ("the labels don't tell the target: no accuracy",),
    )


def _lexical_plans(schema: Schema, split: Split, seed: int) -> list[Plan | None]:
    """What the default teacher writes; None where it can't tell, as for clusters."""
    try:
        return list(choose_schema(split, schema, seed=seed).plans)
    except OmgError:
        return [None] * len(split)


def _notes(fitted: bool, resamples: Resamples) -> tuple[str, ...]:
    notes = [resamples.note]
    if not fitted:
        notes.append("no training rows were given: the floor is the commonest answer of these samples")
    elif not machines.available():
        notes.append("no regressions beside: they need scikit-learn (pip install 'omg-graph[bench]')")
    return tuple(notes)


def _planned(
    model: Model, split: Split, visible: BoolArray, teacher_plans: Sequence[Plan | None], seed: int
) -> _Planned:
    schema, target = model.schema, model.schema.target_index
    hidden = split.hide(np.broadcast_to(~visible, split.mask().shape)).without_labels()
    rows = np.flatnonzero(hidden.mask().any(axis=1))
    rankings: list[Reranking] = []
    surprises: list[Surprise] = []
    positive: list[BoolArray] = []
    for start in range(0, len(rows), BATCH):
        index = rows[start : start + BATCH]
        part = hidden.take(index)
        observation = pipeline.observe(model, part)
        candidates = pipeline.propose(model, part, observation, seed=seed)
        ranked = pipeline.rerank(model, candidates, observation.embedding)
        rankings += ranked
        inputs = pipeline.planner_input(part, observation)
        surprises += _surprises(model.planner, inputs, [teacher_plans[row] for row in index.tolist()])
        planner = model.planner
        # the model's own: another one would take long to say how likely every degree is
        if isinstance(planner, StoredPlanner) and schema.degrees is not None:
            positive.append(_positive(schema, planner, inputs, [one.likeliest for one in ranked]))
    likely = [ranking.likeliest for ranking in rankings]
    chosen = [ranking.best for ranking in rankings]
    place = target or 0
    return _Planned(
        Answers(
            visible,
            rows,
            tuple(plan.values[place] for plan in likely),
            tuple(plan.values[place] for plan in chosen),
            np.concatenate(positive) if positive else None,
        ),
        plans=sum(len(ranking.candidates) for ranking in rankings),
        valid=sum(one.valid for ranking in rankings for one in ranking.candidates),
        surprises=surprises,
        sure=_sure(schema, split, rows, likely),
        changed=[
            (one.values != other.values, one.values[place] != other.values[place])
            for one, other in zip(likely, chosen, strict=True)
        ],
    )


def _positive(
    schema: Schema, planner: RescoringPlanner, inputs: PlannerInput, plans: Sequence[CandidatePlan]
) -> BoolArray:
    """Whether degrees above 0 are together likelier than those below, given what each plan says before."""
    degrees, target = schema.degrees or {}, schema.target_index or 0
    mass = np.zeros(len(plans))
    for value, degree in degrees.items():
        others = [(*plan.values[:target], value, *plan.values[target + 1 :]) for plan in plans]
        scored = planner.rescore(inputs, others)
        mass += np.sign(degree) * np.array(
            [0.0 if one is None else math.exp(one.log_probabilities[target]) for one in scored]
        )
    return np.asarray(mass > 0, np.bool_)


def _surprises(planner: Planner, inputs: PlannerInput, plans: Sequence[Plan | None]) -> list[Surprise]:
    rows = [row for row, plan in enumerate(plans) if plan is not None]
    if not rows or not isinstance(planner, RescoringPlanner):
        return []
    scored = planner.rescore(inputs.take(rows), [plan for plan in plans if plan is not None])
    return [(-sum(one.log_probabilities), sum(one.token_counts)) for one in scored if one is not None]


def _perplexity(surprises: Sequence[Surprise]) -> Perplexity | None:
    if not surprises:
        return None
    nats, tokens = (math.fsum(column) for column in zip(*surprises, strict=True))
    return Perplexity(
        token=math.exp(nats / tokens), plan=math.exp(nats / len(surprises)), plans=len(surprises)
    )


def _sure(
    schema: Schema, split: Split, rows: IntArray, plans: Sequence[CandidatePlan]
) -> list[tuple[float, bool]]:
    truths, target = target_values(schema, split.labels), schema.target_index
    if truths is None or target is None:
        return []
    return [
        (math.exp(plan.log_probabilities[target]), plan.values[target] == truths[row])
        for row, plan in zip(rows.tolist(), plans, strict=True)
        if truths[row] is not None
    ]


def _calibration(sure: Sequence[tuple[float, bool]]) -> Calibration | None:
    """Of the target's probability in the likeliest plan, against the value that the label calls for."""
    if not sure:
        return None
    confidence, hits = np.array(sure, np.float64).T
    bins = bins_of(confidence, BINS)
    found = [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            samples=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(hits[inside].mean()),
        )
        for number in range(BINS)
        if (inside := bins == number).any()
    ]
    gaps = [one.samples * abs(one.accuracy - one.confidence) for one in found]
    return Calibration(ece=sum(gaps) / len(sure), bins=tuple(found))
