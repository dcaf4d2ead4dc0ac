"""How often a planner's target is right under each missing pattern, beside floors, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph import pipeline
from omg_graph.bench.baselines import machines
from omg_graph.bench.planning.report import Figure, QuestionName, TargetAccuracy
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.evaluation.intervals import Resamples, average, interval
from omg_graph.metrics.labels import Numbers
from omg_graph.model.model import Model
from omg_graph.planner.schema import Schema
from omg_graph.planner.schemas import target_values
from omg_graph.training.folds import group_folds

FOLDS = 3
"""Of training groups, to choose a regression's C on."""


@dataclass(frozen=True)
class Answers:
    """The targets of the plans under one missing pattern."""

    visible: BoolArray
    """(modalities,)."""
    rows: IntArray
    """Of the split, those that show anything."""
    likely: tuple[str, ...]
    """The target's value in the most probable plan."""
    chosen: tuple[str, ...]
    """The target's value in the plan that re-ranking chose."""
    positive: BoolArray | None = None
    """Whether the planner's probability of a degree above 0 is the larger; None where it isn't known."""


@dataclass(frozen=True)
class Question:
    """What is asked of the target: the sign or the side of labels other than 0, the degree, or the class."""

    name: QuestionName
    codes: Mapping[str, int]
    """Of each value of the target."""

    def truths(self, schema: Schema, split: Split) -> IntArray:
        """(samples,): codes, -1 where a sample doesn't count."""
        values = target_values(schema, split.labels)
        if values is None or split.labels is None:
            return np.full(len(split), -1, np.int64)
        if self.name in ("sign", "side"):
            numbers = split.labels.values
            counts = np.isfinite(numbers) & (numbers != 0)
            return np.where(counts, numbers > 0, -1).astype(np.int64)
        return np.array([-1 if value is None else self.codes[value] for value in values], np.int64)

    def codes_of(self, values: Sequence[str]) -> IntArray:
        """(samples,): the codes of some answers."""
        return np.array([self.codes[value] for value in values], np.int64)


def questions(schema: Schema, split: Split) -> tuple[Question, ...]:
    """What can be asked of a schema's plans where the split's labels tell the target; nothing elsewhere."""
    if target_values(schema, split.labels) is None or schema.target_index is None:
        return ()
    values = schema.fields[schema.target_index].values or ()
    each = {value: code for code, value in enumerate(values)}
    if schema.degrees is None:
        return (Question("class", each),)
    signs = {value: int(schema.degrees[value] > 0) for value in values}
    return Question("sign", signs), Question("side", signs), Question("degree", each)


@dataclass(frozen=True)
class Graded:
    """Right or wrong under one missing pattern, of the planner and what stands beside it."""

    observed: tuple[str, ...]
    ids: tuple[str, ...]
    """Of the samples that count."""
    right: dict[str, BoolArray]
    """Method to (samples,)."""


def graded(
    model: Model,
    split: Split,
    train: Split | None,
    question: Question,
    patterns: Sequence[Answers],
    signs: Sequence[Graded] = (),
) -> list[Graded]:
    """Answers against labels, beside floors that are fitted on training rows of the same pattern.

    Args:
        model: Gives u_X and latents to the regressions.
        split: The samples.
        train: Labelled rows to fit floors on; the split's own majority stands for a floor without them.
        question: What is asked.
        patterns: What the planner answered.
        signs: The same patterns graded by sign: ``side`` asks the floors the same, and takes theirs.
    """
    if question.name == "side":
        if any(pattern.positive is None for pattern in patterns):
            return []
        return [
            _by_side(pattern, sign, split, question, model.schema)
            for pattern, sign in zip(patterns, signs, strict=True)
        ]
    truths = question.truths(model.schema, split)
    taught = None if train is None else question.truths(model.schema, train)
    return [_graded(model, split, train, question, pattern, truths, taught) for pattern in patterns]


def accuracies(
    question: QuestionName, runs: Sequence[Sequence[Graded]], resamples: Resamples
) -> list[TargetAccuracy]:
    """One row for each missing pattern, and their average.

    Args:
        question: What was asked.
        runs: What each run was graded, e.g. of several folds and seeds; they are pooled.
        resamples: Of the groups of all samples, the same ones for everything.
    """
    pooled: dict[tuple[str, ...], list[Graded]] = {}
    for run in runs:
        for found in run:
            pooled.setdefault(found.observed, []).append(found)
    resampled = {observed: _resampled(found, resamples) for observed, found in pooled.items()}
    counts = {observed: sum(len(one.ids) for one in found) for observed, found in pooled.items()}
    rows = [_row(question, values, observed, counts[observed]) for observed, values in resampled.items()]
    if rows:
        each = list(resampled.values())
        shared = [name for name in each[0] if all(name in values for values in each)]
        mean = {name: average([values[name] for values in each]) for name in shared}
        rows.append(_row(question, mean, None, sum(counts.values())))
    return rows


def _graded(
    model: Model,
    split: Split,
    train: Split | None,
    question: Question,
    pattern: Answers,
    truths: IntArray,
    taught: IntArray | None,
) -> Graded:
    counted = truths[pattern.rows] >= 0
    rows = pattern.rows[counted]
    truth = truths[rows]
    right = {
        "planner": question.codes_of(pattern.likely)[counted] == truth,
        "chosen": question.codes_of(pattern.chosen)[counted] == truth,
    }
    known = truths[truths >= 0] if taught is None else taught[taught >= 0]
    if len(known):
        right["majority"] = np.bincount(known).argmax() == truth
    if train is not None and taught is not None and len(rows) and machines.available():
        shown, lent = _shown(train, pattern.visible), _shown(split.take(rows), pattern.visible)
        use = np.flatnonzero((taught >= 0) & shown.mask().any(axis=1))
        for name, x, z in zip(
            ("regression", "features"), _inputs(model, shown.take(use)), _inputs(model, lent), strict=True
        ):
            answer = _regressed(x, taught[use], shown.take(use).groups, z)
            if answer is not None:
                right[name] = answer == truth
    observed = tuple(np.array(split.names)[pattern.visible].tolist())
    return Graded(observed, tuple(split.ids[row] for row in rows.tolist()), right)


def _by_side(pattern: Answers, sign: Graded, split: Split, question: Question, schema: Schema) -> Graded:
    """A pattern by the likelier side, with the floors of its grades by sign."""
    if pattern.positive is None:
        raise ValueError("a planner that says how probable each side is was expected")
    truth = question.truths(schema, split)[pattern.rows]
    counted = truth >= 0
    right = {"planner": pattern.positive[counted] == truth[counted]}
    floors = {name: found for name, found in sign.right.items() if name not in ("planner", "chosen")}
    return Graded(sign.observed, sign.ids, right | floors)


def _shown(split: Split, visible: BoolArray) -> Split:
    return split.hide(np.broadcast_to(~visible, split.mask().shape))


def _inputs(model: Model, split: Split) -> tuple[Numbers, Numbers]:
    """u_X, and the latents of what is observed at unit scale; zeros where a row misses a modality."""
    seen = pipeline.observe(model, split)
    scales = model.config.encoder.scales
    latents = [
        seen.latents[name].cpu().numpy() * split.mask()[:, [column]] / scales[name]
        for column, name in enumerate(split.names)
        if split.observed[name].any()
    ]
    return seen.embedding.astype(np.float64), np.concatenate(latents, axis=1).astype(np.float64)


def _regressed(x: Numbers, codes: IntArray, groups: tuple[str, ...], z: Numbers) -> IntArray | None:
    """(samples,): a logistic regression's answers, its C chosen by leaving out groups; None of one class."""
    if len(np.unique(codes)) < 2:
        return None
    folds = group_folds(groups, FOLDS, 0)
    count = int(codes.max()) + 1
    cost = machines.LogisticSearch.over(x, codes, folds, count).cost
    return np.asarray(machines.Logistic.fit(x, codes, cost).probabilities(z, count).argmax(axis=1), np.int64)


def _resampled(found: Sequence[Graded], resamples: Resamples) -> dict[str, Numbers]:
    """(resamples + 1,): each method's accuracy in each resample of groups."""
    units = np.array([resamples.unit_of[sample] for one in found for sample in one.ids], np.int64)
    counts = resamples.counts.astype(np.float64)
    asked = counts @ np.bincount(units, minlength=resamples.units)
    values = {}
    for name in found[0].right:
        if not all(name in one.right for one in found):
            continue
        right = np.concatenate([one.right[name] for one in found]).astype(np.float64)
        total = counts @ np.bincount(units, weights=right, minlength=resamples.units)
        values[name] = np.where(asked > 0, total / np.maximum(asked, 1.0), np.nan)
    if resamples.units == 1:  # resampling a single group says nothing about others
        for resampled in values.values():
            resampled[1:] = np.nan
    return values


def _row(
    question: QuestionName, values: Mapping[str, Numbers], observed: tuple[str, ...] | None, samples: int
) -> TargetAccuracy:
    def figure(name: str) -> Figure | None:
        return Figure.of(interval(values[name])) if name in values else None

    def difference(name: str, other: str) -> Figure | None:
        if name not in values or other not in values:
            return None
        return Figure.of(interval(values[name] - values[other]))

    return TargetAccuracy(
        observed=observed,
        question=question,
        samples=samples,
        planner=Figure.of(interval(values["planner"])),
        chosen=figure("chosen"),
        majority=figure("majority"),
        regression=figure("regression"),
        features=figure("features"),
        over_majority=difference("planner", "majority"),
        over_regression=difference("planner", "regression"),
        over_features=difference("planner", "features"),
        reranking=difference("chosen", "planner"),
    )
