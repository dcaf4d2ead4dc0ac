"""What there is to show of a trajectory, computed once: terminal, Studio, tool and page only lay it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omg_graph.record.trajectory import (
    CandidatePlan,
    DenoisingStep,
    EvidenceEntry,
    Plan,
    Prediction,
    ReconstructionError,
    Trajectory,
)

if TYPE_CHECKING:
    from omg_graph.record.artifacts import Array, ArrayRef
    from omg_graph.record.results import RunFacts, SavedArrays

CLASSES_SHOWN = 12
"""The most labels that are listed where they have no order."""

NUMBERS_SHOWN = 4


@dataclass(frozen=True)
class CandidateView:
    """A candidate plan as it is numbered and shown."""

    number: int
    chosen: bool
    drawn: CandidatePlan
    remarks: str
    """How it came about: ``greedy, ×3``."""
    weighted_cost: float | None
    """lambda_s C_sem: what is taken off the log-probability."""


@dataclass(frozen=True)
class PlanView:
    """The plan, its rivals, and why it won."""

    plan: Plan
    candidates: tuple[CandidateView, ...]
    """The winner first, then by score."""
    score: str
    """The formula of the score."""
    reason: str
    origin: dict[str, str]
    """How a language model made its plans, line by line; empty for the distilled planner's."""


@dataclass(frozen=True)
class EvidenceView:
    """The evidence for a missing modality, or for more than one where it is the same."""

    names: tuple[str, ...]
    entries: tuple[EvidenceEntry, ...]
    """The heaviest first."""
    cost: float | None
    left_out: int
    """Entries of the sample's own group, which were never considered."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the entries come from, each source once."""
        return tuple(dict.fromkeys(entry.source for entry in self.entries))

    def top(self, count: int) -> tuple[tuple[EvidenceEntry, ...], int, float]:
        """The heaviest ``count`` entries, how many more there are, and the weight of these together."""
        rest = self.entries[count:]
        return self.entries[:count], len(rest), sum(entry.weight for entry in rest)


@dataclass(frozen=True)
class FeatureView:
    """A named feature, in the input's units and in training deviations from the training mean."""

    name: str
    unit: str
    value: float
    mean: float
    distance: float


@dataclass(frozen=True)
class ReconstructionView:
    """What was reconstructed of a modality, and how."""

    name: str
    ref: ArrayRef
    steps: tuple[DenoisingStep, ...]
    error: ReconstructionError | None
    length: int | None
    """Frames of a padded sequence."""
    length_source: str
    features: tuple[FeatureView, ...]
    """Those with names, the furthest from the training mean first."""

    @property
    def size(self) -> str:
        """Its shape: ``50 x 74``."""
        return " x ".join(map(str, self.ref.shape))

    @property
    def span(self) -> str:
        """The range of its numbers: ``-1.5 to 20``; empty where nothing finite is in it."""
        numbers = self.ref.statistics
        return "" if numbers is None else f"{numbers.minimum:.4g} to {numbers.maximum:.4g}"

    @property
    def first(self) -> str:
        """Its first few numbers."""
        return ", ".join(f"{number:.4g}" for number in self.ref.preview[:NUMBERS_SHOWN]) + ", …"

    @property
    def changes(self) -> tuple[float, ...]:
        """How much the clean estimate changed at each step but the first."""
        return tuple(step.clean_change for step in self.steps[1:])


@dataclass(frozen=True)
class LabelView:
    """One label's probability, with the reconstruction and without."""

    label: str
    share: float
    without: float | None


@dataclass(frozen=True)
class TermView:
    """One term of the utility (Eq. 3)."""

    symbol: str
    meaning: str
    value: float | None
    weight: float

    @property
    def share(self) -> float | None:
        """What it adds to the utility."""
        return None if self.value is None else -self.weight * self.value


@dataclass(frozen=True)
class TrajectoryView:
    """One sample from what was observed to what was predicted."""

    trajectory: Trajectory
    observed: str
    missing: str
    plan: PlanView | None
    evidence: tuple[EvidenceView, ...]
    reconstructions: tuple[ReconstructionView, ...]
    prediction: str
    labels: tuple[LabelView, ...]
    """In the order of the label's degrees, else the most probable first."""
    ordered: bool
    """Whether the labels are degrees."""
    change: str
    """What the reconstruction changed of the prediction."""
    terms: tuple[TermView, ...]


def view(
    trajectory: Trajectory, facts: RunFacts | None = None, arrays: SavedArrays | None = None
) -> TrajectoryView:
    """Compute what there is to show of a trajectory.

    Args:
        trajectory: Of any sample, at any stage of the graph.
        facts: Of its run: the names of features and the order of labels; without them neither is shown.
        arrays: Of its run; without them no feature is listed.
    """
    observed = list(trajectory.observed)
    missing = [f"{n} (hidden on request)" if n in trajectory.hidden else n for n in trajectory.missing]
    labels, ordered = _labels(trajectory, None if facts is None else facts.degrees)
    return TrajectoryView(
        trajectory=trajectory,
        observed=", ".join(observed) or "nothing",
        missing=", ".join(missing) or "nothing",
        plan=None if trajectory.plan is None else plan_view(trajectory.plan),
        evidence=tuple(_evidence(trajectory)),
        reconstructions=tuple(
            ReconstructionView(
                name=name,
                ref=ref,
                steps=(trajectory.denoising or {}).get(name, ()),
                error=trajectory.errors.get(name),
                length=trajectory.lengths.get(name),
                length_source=trajectory.length_source.get(name, ""),
                features=_features(name, ref, facts, arrays),
            )
            for name, ref in trajectory.reconstruction.items()
        ),
        prediction=prediction_text(trajectory.prediction),
        labels=labels,
        ordered=ordered,
        change=_change(trajectory.prediction, trajectory.prediction_without),
        terms=_terms(trajectory),
    )


def plan_view(plan: Plan) -> PlanView:
    """The candidates, the winner first, then by score."""
    candidates = tuple(
        candidate_view(plan.candidates[index], number, index == plan.chosen, plan.semantic_weight)
        for number, index in enumerate(plan.ranked(), start=1)
    )
    origin = {
        "confidence": plan.confidence or "",
        "values": plan.decoding or "",
        "recordings": ", ".join(map(str, plan.recordings)),
    }
    return PlanView(
        plan,
        candidates,
        f"log p - {plan.semantic_weight:g} C_sem",
        _reason(plan, candidates),
        {what: text for what, text in origin.items() if text},
    )


def candidate_view(drawn: CandidatePlan, number: int, chosen: bool, semantic_weight: float) -> CandidateView:
    """One row of the table of candidates.

    Args:
        drawn: The candidate.
        number: Its place in the table, from 1.
        chosen: Whether it won.
        semantic_weight: lambda_s of Eq. 5.
    """
    remarks = (
        ("greedy", drawn.greedy),
        (f"×{drawn.times}", drawn.times > 1),
        ("edited", drawn.edited),
    )
    cost = drawn.semantic_cost
    return CandidateView(
        number,
        chosen,
        drawn,
        ", ".join(remark for remark, holds in remarks if holds),
        None if cost is None else semantic_weight * cost,
    )


def prediction_text(prediction: Prediction | None) -> str:
    """A prediction in a few words: ``positive +2.29 (57%)``; ``-`` where there is none."""
    if prediction is None:
        return "-"
    parts = [] if prediction.label is None else [prediction.label]
    if prediction.value is not None:
        parts.append(f"{prediction.value:+.2f}")
    share = prediction.probabilities.get(prediction.label or "")
    return " ".join([*parts, *([] if share is None else [f"({share:.0%})"])])


def pooled_errors(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Normalised squared error of each hidden modality over all samples: a sum over a sum."""
    pooled = {}
    for name in dict.fromkeys(name for trajectory in trajectories for name in trajectory.errors):
        errors = [trajectory.errors[name] for trajectory in trajectories if name in trajectory.errors]
        deviation = sum(error.squared_deviation for error in errors)
        pooled[name] = sum(error.squared_error for error in errors) / deviation
    return pooled


def _reason(plan: Plan, rows: Sequence[CandidateView]) -> str:
    """Why the first of ``rows`` is the plan, in a sentence or two."""
    if plan.chosen_by in ("edited", "person"):
        return f"A person {'wrote' if plan.chosen_by == 'edited' else 'chose'} this plan."
    drawn = [row.drawn for row in rows]
    winner, rivals = drawn[0], [each for each in drawn[1:] if each.score is not None]
    if plan.chosen_by == "utility":
        best = max((winner, *rivals), key=lambda each: _or_least(each.score))
        other = "" if best is winner else f" By its score alone “{best.text}” would have won."
        return "Its whole trajectory has the greatest utility (Eq. 2)." + other
    count = sum(1 for each in drawn if each.violations)
    broken = f" {count} broke the schema and couldn't win." if count else ""
    if len(drawn) == 1 and winner.times > 1:
        return f"All {winner.times} candidates are this plan."
    if not rivals or winner.score is None or rivals[0].score is None:
        return "It is the only valid plan that was drawn." + broken
    ahead = f"Its score is the highest, {winner.score - rivals[0].score:.2f} above the next."
    likeliest = max((winner, *rivals), key=lambda each: _or_least(each.log_probability))
    if likeliest is winner:
        return f"{ahead} It is also the most probable." + broken
    return f"{ahead} The most probable plan is “{likeliest.text}”; C_sem decided against it." + broken


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _evidence(trajectory: Trajectory) -> Iterator[EvidenceView]:
    """The evidence for each missing modality; the same evidence once, with all its modalities."""
    same: dict[tuple[tuple[EvidenceEntry, ...], float | None, int], list[str]] = {}
    for name, entries in trajectory.evidence.items():
        key = entries, trajectory.evidence_cost.get(name), trajectory.left_out.get(name, 0)
        same.setdefault(key, []).append(name)
    for (entries, cost, left_out), names in same.items():
        heaviest = tuple(sorted(entries, key=lambda entry: -entry.weight))
        yield EvidenceView(tuple(names), heaviest, cost, left_out)


def _features(
    name: str, ref: ArrayRef, facts: RunFacts | None, arrays: SavedArrays | None
) -> tuple[FeatureView, ...]:
    if facts is None or arrays is None or name not in facts.feature_names:
        return ()
    values, scale = arrays.find(ref), arrays.scale(name)
    if values is None or scale is None or values.ndim != 1:
        return ()
    names = facts.feature_names[name]
    return features(names, facts.feature_units.get(name, ("",) * len(names)), values, scale)


def features(
    names: Sequence[str], units: Sequence[str], values: Array, scale: tuple[Array, Array]
) -> tuple[FeatureView, ...]:
    """Named features, the furthest from the training mean first.

    Args:
        names: Of each feature.
        units: Of each feature; ``1`` is none.
        values: (features,) in the input's units.
        scale: The training mean and deviation of each.
    """
    mean, deviation = scale
    distance = (values - mean) / deviation
    return tuple(
        FeatureView(
            names[index],
            "" if units[index] == "1" else units[index],
            float(values[index]),
            float(mean[index]),
            float(distance[index]),
        )
        for index in np.argsort(-np.abs(distance), kind="stable").tolist()
    )


def _labels(
    trajectory: Trajectory, degrees: Mapping[str, float] | None
) -> tuple[tuple[LabelView, ...], bool]:
    prediction, without = trajectory.prediction, trajectory.prediction_without
    shares = {} if prediction is None else prediction.probabilities
    ordered = degrees is not None and set(shares) <= set(degrees)
    if degrees is not None and ordered:
        names = sorted(shares, key=degrees.__getitem__)
    else:
        names = sorted(shares, key=shares.__getitem__, reverse=True)[:CLASSES_SHOWN]
    return tuple(
        LabelView(name, shares[name], None if without is None else without.probabilities.get(name))
        for name in names
    ), ordered


def _change(prediction: Prediction | None, without: Prediction | None) -> str:
    if prediction is None:
        return "The model was trained without labels: there is no prediction."
    if without is None:
        return "There is nothing to compare it with: no prediction without the reconstruction was kept."
    if prediction.label != without.label:
        return f"Without the reconstruction it would have been {prediction_text(without)}."
    if prediction.value is not None and without.value is not None:
        moved = prediction.value - without.value
        return f"The reconstruction moves it by {moved:+.2f}, from {without.value:+.2f}."
    if prediction.label is None:
        return "There is no label to compare."
    before = without.probabilities.get(prediction.label, 0.0)
    after = prediction.probabilities.get(prediction.label, 0.0)
    return f"The label stays; its probability goes from {before:.2f} to {after:.2f}."


def _terms(trajectory: Trajectory) -> tuple[TermView, ...]:
    utility = trajectory.utility
    if utility is None:
        return ()
    weight = utility.weights
    return (
        TermView("L_rec", "reconstruction against the truth", utility.reconstruction, 1.0),
        TermView("C_sem", "plan against observation", utility.semantic, weight.get("semantic", 0.0)),
        TermView("C_evi", "evidence against plan", utility.evidence, weight.get("evidence", 0.0)),
        TermView("C_path", "how much the clean estimate moved", utility.path, weight.get("path", 0.0)),
    )
