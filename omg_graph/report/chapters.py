"""A trajectory in the order in which a reader wants it: every table of the page, ready to be filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omg_graph.record.results import RunFacts
from omg_graph.record.trajectory import (
    Constraint,
    EvidenceEntry,
    Plan,
    Trajectory,
)
from omg_graph.record.words import prediction_text
from omg_graph.report.text import shortened

CANDIDATES_SHOWN = 20
ENTRIES_SHOWN = 25
LABELS_SHOWN = 12
TEXT_LENGTH = 400
"""The most letters of an entry's text."""


@dataclass(frozen=True)
class Candidate:
    """A plan that was drawn, as often as it was."""

    text: str
    chosen: bool
    greedy: bool
    times: int
    constraints: tuple[Constraint, ...]
    log_probability: float | None
    per_token: float | None
    semantic_cost: float | None
    weighted_cost: float | None
    """lambda_s C_sem: what is taken off the log-probability."""
    score: float | None
    violations: tuple[str, ...]
    edited: bool

    @property
    def remarks(self) -> str:
        """How it came about."""
        told = [
            ("greedy", self.greedy),
            ("edited", self.edited),
            (f"drawn {self.times} times", self.times > 1),
        ]
        return ", ".join(remark for remark, holds in told if holds)


@dataclass(frozen=True)
class PlanChapter:
    """Why the plan is what it is."""

    candidates: tuple[Candidate, ...]
    more: int
    """Different candidates that aren't shown."""
    drawn: int
    reason: str


@dataclass(frozen=True)
class EvidenceChapter:
    """What was found for a missing modality, or for several if it was the same."""

    names: tuple[str, ...]
    entries: tuple[EvidenceEntry, ...]
    more: int
    more_weight: float
    cost: float | None
    left_out: int


@dataclass(frozen=True)
class LabelRow:
    """One label's probability, with the reconstruction and without."""

    label: str
    with_it: float
    without: float | None


@dataclass(frozen=True)
class UtilityRow:
    """One term of Eq. 3."""

    symbol: str
    meaning: str
    value: float | None
    weight: float
    share: float | None
    """What it adds to the utility."""


def plan_chapter(plan: Plan) -> PlanChapter:
    """The candidates, the winner first, then by score."""
    rows = [_candidate(plan, index) for index in plan.ranked()]
    return PlanChapter(
        tuple(rows[:CANDIDATES_SHOWN]),
        max(0, len(rows) - CANDIDATES_SHOWN),
        plan.drawn,
        reason(plan, rows),
    )


def reason(plan: Plan, rows: Sequence[Candidate]) -> str:
    """Why the first of ``rows`` is the plan, in a sentence or two."""
    if plan.chosen_by in ("edited", "person"):
        return f"A person {'wrote' if plan.chosen_by == 'edited' else 'chose'} this plan."
    winner, rivals = rows[0], [row for row in rows[1:] if row.score is not None]
    if plan.chosen_by == "utility":
        best = max((winner, *rivals), key=lambda row: float("-inf") if row.score is None else row.score)
        other = "" if best is winner else f" By its score alone “{best.text}” would have won."
        return "Its whole trajectory has the greatest utility (Eq. 2)." + other
    broken = sum(1 for row in rows if row.violations)
    told = f" {broken} broke the schema and couldn't win." if broken else ""
    if len(rows) == 1 and winner.times > 1:
        return f"All {winner.times} candidates are this plan."
    if not rivals or winner.score is None or rivals[0].score is None:
        return "It is the only valid plan that was drawn." + told
    ahead = f"Its score is the highest, {winner.score - rivals[0].score:.2f} above the next."
    likeliest = max(
        (winner, *rivals),
        key=lambda row: float("-inf") if row.log_probability is None else row.log_probability,
    )
    if likeliest is winner:
        return f"{ahead} It is also the most probable." + told
    return f"{ahead} By probability alone “{likeliest.text}” would have won: C_sem turned it." + told


def _candidate(plan: Plan, index: int) -> Candidate:
    drawn = plan.candidates[index]
    cost = drawn.semantic_cost
    return Candidate(
        text=drawn.text,
        chosen=index == plan.chosen,
        greedy=drawn.greedy,
        times=drawn.times,
        constraints=drawn.constraints,
        log_probability=drawn.log_probability,
        per_token=drawn.log_probability_per_token,
        semantic_cost=cost,
        weighted_cost=None if cost is None else plan.semantic_weight * cost,
        score=drawn.score,
        violations=drawn.violations,
        edited=drawn.edited,
    )


def evidence_chapters(trajectory: Trajectory) -> list[EvidenceChapter]:
    """What was found for each missing modality, heaviest first; the same entries are told once."""
    alike: dict[tuple[tuple[EvidenceEntry, ...], float | None, int], list[str]] = {}
    for name, entries in trajectory.evidence.items():
        found = (entries, trajectory.evidence_cost.get(name), trajectory.left_out.get(name, 0))
        alike.setdefault(found, []).append(name)
    return [
        EvidenceChapter(
            tuple(names),
            tuple(
                entry.model_copy(update={"text": shortened(entry.text, TEXT_LENGTH)})
                for entry in entries[:ENTRIES_SHOWN]
            ),
            max(0, len(entries) - ENTRIES_SHOWN),
            sum(entry.weight for entry in entries[ENTRIES_SHOWN:]),
            cost,
            left_out,
        )
        for (entries, cost, left_out), names in alike.items()
    ]


def label_rows(trajectory: Trajectory, facts: RunFacts | None) -> list[LabelRow]:
    """Probabilities in the label's own order, or the most probable first."""
    prediction, without = trajectory.prediction, trajectory.prediction_without
    if prediction is None:
        return []
    shares = prediction.probabilities
    degrees = None if facts is None else facts.degrees
    if degrees is not None and set(shares) <= set(degrees):
        ordered = sorted(shares, key=degrees.__getitem__)
    else:
        ordered = sorted(shares, key=shares.__getitem__, reverse=True)[:LABELS_SHOWN]
    return [
        LabelRow(label, shares[label], None if without is None else without.probabilities.get(label))
        for label in ordered
    ]


def prediction_change(trajectory: Trajectory) -> str:
    """What the reconstruction changed, in a sentence."""
    prediction, without = trajectory.prediction, trajectory.prediction_without
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


def utility_rows(trajectory: Trajectory) -> list[UtilityRow]:
    """U(tau) term by term (Eq. 3)."""
    told = trajectory.utility
    if told is None:
        return []
    terms = (
        ("L_rec", "reconstruction against the truth", told.reconstruction, 1.0),
        ("C_sem", "plan against observation", told.semantic, told.weights.get("semantic", 0.0)),
        ("C_evi", "evidence against plan", told.evidence, told.weights.get("evidence", 0.0)),
        ("C_path", "how much the clean estimate moved", told.path, told.weights.get("path", 0.0)),
    )
    return [
        UtilityRow(symbol, meaning, value, weight, None if value is None else -weight * value)
        for symbol, meaning, value, weight in terms
    ]
