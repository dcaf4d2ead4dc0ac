"""What a planner is worth on held-out samples: the figures, as JSON and as Markdown."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from omg_graph.data.arrays import printable
from omg_graph.evaluation.intervals import Interval

QuestionName = Literal["sign", "side", "degree", "class"]
TITLES: dict[QuestionName, str] = {
    "sign": "2 degrees, by the word of the plan",
    "side": "2 degrees, by the likelier side",
    "degree": "all degrees",
    "class": "classes",
}
"""Labels of 0 don't count in 2 degrees. A word for 0 is counted as not positive; a side is never 0."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Record):
    """A figure with its 95 % interval over resampled groups; None where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Interval) -> Self:
        """An interval as a record."""
        return cls(**found.as_json())

    def text(self, signed: bool = False) -> str:
        """In per cent, or in points where it is a difference."""
        form = "+.1f" if signed else ".1f"
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return format(100 * self.value, form)
        return f"{100 * self.value:{form}} [{100 * self.low:{form}}, {100 * self.high:{form}}]"


class TargetAccuracy(_Record):
    """How often the target is right, under one missing pattern or averaged over all."""

    observed: tuple[str, ...] | None
    """None for the average."""
    question: QuestionName
    """The ``sign`` of the plan's word, the likelier ``side``, the ``degree``, or the ``class``."""
    samples: int
    planner: Figure
    """The most probable of the candidates: the greedy plan, where there is one."""
    chosen: Figure | None
    """The plan that re-ranking chose."""
    majority: Figure | None
    """The commonest answer of the training rows."""
    regression: Figure | None
    """Logistic regression on u_X, fitted on training rows of the same pattern."""
    features: Figure | None
    """The same on the latents of what is observed."""
    over_majority: Figure | None
    """``planner`` less ``majority``."""
    over_regression: Figure | None
    over_features: Figure | None
    reranking: Figure | None
    """``chosen`` less ``planner``."""


class Bin(_Record):
    """One bin of confidence."""

    low: float
    high: float
    samples: int
    confidence: float
    accuracy: float


class Calibration(_Record):
    """Whether the probability of the most probable plan's target value can be believed."""

    ece: float
    """Expected calibration error, 0 to 1."""
    bins: tuple[Bin, ...]


class Perplexity(_Record):
    """How surprised the planner is at the plans that a teacher wrote for these samples."""

    token: float
    plan: float
    plans: int


class Speed(_Record):
    """Median milliseconds a sample at one batch size."""

    batch: int
    observe: float
    """psi."""
    propose: float
    """Candidates, the label reading among what they cost."""
    rerank: float
    """Eqs. 5 and 6, embeddings of plan texts known from before."""
    rerank_cold: float | None = None
    """The same with none of them known; None where it wasn't measured."""

    @property
    def plan(self) -> float:
        """Candidates and re-ranking, psi left out."""
        return self.propose + self.rerank


class Teacher(_Record):
    """What is known of who wrote the training plans, beside."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str


class PlannerReport(_Record):
    """A planner measured on a split, under every missing pattern."""

    planner: str
    model: str
    """The model's fingerprint."""
    split: str
    samples: int
    candidates: int
    plans: int
    """Candidates over all patterns."""
    valid: float
    """The share of them that obey the schema."""
    accuracy: tuple[TargetAccuracy, ...] = ()
    reranked: float
    """The share of samples where re-ranking chose another plan than the most probable one."""
    reranked_target: float | None = None
    """The share where that plan has another target."""
    perplexity: Perplexity | None = None
    calibration: Calibration | None = None
    speed: tuple[Speed, ...] = ()
    teacher: Teacher | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As a JSON document."""
        return self.model_dump_json(indent=2) + "\n"

    def averages(self) -> tuple[TargetAccuracy, ...]:
        """The rows that average over patterns."""
        return tuple(row for row in self.accuracy if row.observed is None)

    def lines(self) -> list[str]:
        """The report in a few lines."""
        lines = [f"planner {self.planner}: {self.valid:.0%} of {self.plans} plans obey the schema"]
        for row in self.averages():
            beside = [
                f"{name} {figure.text()}"
                for name, figure in (("majority", row.majority), ("logistic regression", row.regression))
                if figure is not None
            ]
            lines.append(
                f"target in {TITLES[row.question]}: {row.planner.text()} % over all patterns "
                f"({', '.join(beside)})"
            )
        if self.perplexity is not None:
            lines.append(f"perplexity {self.perplexity.token:.2f} a token, {self.perplexity.plan:.1f} a plan")
        if self.calibration is not None:
            lines.append(f"expected calibration error {self.calibration.ece:.3f}")
        lines.append(f"re-ranking changes the choice for {self.reranked:.1%} of the samples")
        if self.speed:
            lines.append(
                "planning takes "
                + ", ".join(f"{row.plan:.2f} ms a sample at batch {row.batch}" for row in self.speed)
            )
        return [printable(line) for line in lines]

    def markdown(self) -> str:
        """As a page."""
        parts = [
            f"# Planner {printable(self.planner)}",
            "",
            f"Split {printable(self.split)}, {self.samples} samples under every missing pattern, "
            f"{self.candidates} candidates each. {self.valid:.2%} of {self.plans} plans obey the schema.",
            "",
        ]
        for question, (heads, *rows) in self.tables().items():
            parts += [f"## The target right, in {question} (%)", ""]
            lines = [heads, ["---"] * len(heads), *rows]
            parts += [*("| " + " | ".join(map(printable, line)) + " |" for line in lines), ""]
        changed = f"Re-ranking chooses another plan than the most probable one for {self.reranked:.1%}"
        if self.reranked_target is not None:
            changed += f" of the samples, one with another target for {self.reranked_target:.1%}"
        parts += [f"{changed}.", ""]
        if self.perplexity is not None:
            parts += [
                f"Perplexity at {self.perplexity.plans} plans of the teacher: {self.perplexity.token:.2f} a "
                f"token, {self.perplexity.plan:.1f} a plan.",
                "",
            ]
        if self.calibration is not None:
            parts += self._calibration(self.calibration)
        if self.speed:
            parts += [
                "## Milliseconds a sample",
                "",
                "| batch | psi | candidates | re-ranking | planning without psi |",
                "| --- | --- | --- | --- | --- |",
                *(
                    f"| {row.batch} | {row.observe:.2f} | {row.propose:.2f} | {row.rerank:.2f} | "
                    f"{row.plan:.2f} |"
                    for row in self.speed
                ),
                "",
            ]
        if self.teacher is not None:
            facts: dict[str, Any] = self.teacher.model_dump()
            parts += ["Teacher: " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".", ""]
        return "\n".join([*parts, *(f"- {printable(note)}" for note in self.notes), ""])

    def tables(self) -> dict[str, list[list[str]]]:
        """For each question its title, and a table of its accuracies in per cent, heads first."""
        found = {}
        for question in dict.fromkeys(row.question for row in self.accuracy):
            rows = [row for row in self.accuracy if row.question == question]
            found[TITLES[question]] = _table(rows)
        return found

    @staticmethod
    def _calibration(found: Calibration) -> list[str]:
        return [
            "## Confidence",
            "",
            f"Expected calibration error of the target's probability: {found.ece:.3f}.",
            "",
            "| confidence | samples | mean confidence | right |",
            "| --- | --- | --- | --- |",
            *(
                f"| {row.low:.2f} to {row.high:.2f} | {row.samples} | {row.confidence:.2f} | "
                f"{row.accuracy:.2f} |"
                for row in found.bins
            ),
            "",
        ]


def _table(rows: list[TargetAccuracy]) -> list[list[str]]:
    columns: dict[str, list[Figure | None]] = {
        "planner": [row.planner for row in rows],
        "majority": [row.majority for row in rows],
        "less majority": [row.over_majority for row in rows],
        "regression on u_X": [row.regression for row in rows],
        "less that": [row.over_regression for row in rows],
        "regression on latents": [row.features for row in rows],
        "less that one": [row.over_features for row in rows],
        "gain by re-ranking": [row.reranking for row in rows],
    }
    columns = {name: figures for name, figures in columns.items() if any(figures)}
    table = [["observed", "samples", *columns]]
    for number, row in enumerate(rows):
        cells = ["average" if row.observed is None else ", ".join(row.observed), str(row.samples)]
        for name, figures in columns.items():
            figure, signed = figures[number], name.startswith(("less", "gain"))
            cells.append("–" if figure is None else figure.text(signed))
        table.append(cells)
    return table
