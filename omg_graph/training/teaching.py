"""What a teacher wrote of samples, in a file that is never half read, and what is learnt from it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from omg_graph.data.dataset import Split
from omg_graph.errors import ConfigError, DataError, ModelError, first_fault
from omg_graph.files import write_atomically
from omg_graph.metrics.labels import MetricFamily, choose_family, score
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.schemas import target_values

PlanTarget = Literal["label", "teacher"]
"""What decides a plan's target where a sample has a label: the label, or the teacher."""

PLANS = "plans.jsonl"
"""In a model's folder: what its planner learnt, where omg distill taught it."""

TRAINING_PLANS = "training_plans.jsonl"
"""In a model's folder: what everything was trained on, where a teacher's plans were given."""


class TaughtPlan(BaseModel):
    """One line of a plans file: what a teacher wrote for one sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    split: str = ""
    """Where ids come more than once in a file, as row numbers do."""
    constraints: dict[str, str] | None
    """Field to value. The target is the teacher's own, and left out where it can't tell; None of no plan."""
    teacher: str = ""
    prompt_version: str | None = None
    prompt_sha256: str | None = None
    reason: str | None = None
    """Why there is no plan, or why another teacher wrote it."""
    data: str | None = None
    """SHA-256 of the data whose rows the ids number; None where ids are more than row numbers."""


@dataclass(frozen=True)
class Lesson:
    """What the planner learns from some samples, and where it is from."""

    plans: tuple[Plan | None, ...]
    """One for each sample; None where nothing is learnt from it."""
    unwritten: int
    """Samples that the teacher has no plan for."""
    unfit: int
    """Samples whose plan has no target, or breaks the schema once the label stands in it."""
    from_label: int
    """Samples whose target is the label's."""

    def facts(self) -> dict[str, int]:
        """Counts, for the manifest."""
        return {
            "rows": len(self.plans),
            "plans": sum(plan is not None for plan in self.plans),
            "unwritten": self.unwritten,
            "unfit": self.unfit,
            "target_from_label": self.from_label,
        }


class TaughtPlans:
    """Plans by the ids of their samples."""

    def __init__(self, plans: Iterable[TaughtPlan]) -> None:
        self.plans = tuple(plans)
        self._of: dict[str, dict[str, TaughtPlan]] = {}
        for plan in self.plans:
            self._of.setdefault(plan.id, {})[plan.split] = plan

    def __len__(self) -> int:
        return len(self.plans)

    def of_rows(self, data: str) -> TaughtPlans:
        """The same plans, said to be of the numbered rows of these data (their SHA-256)."""
        return TaughtPlans(plan.model_copy(update={"data": data}) for plan in self.plans)

    def of_others(self, data: str) -> bool:
        """Whether they are of the numbered rows of other data, which these data's ids only look like."""
        return any(plan.data not in (None, data) for plan in self.plans)

    def find(self, sample_id: str, split: str) -> TaughtPlan | None:
        """The plan of a sample. Which split it is in counts only where several have its id."""
        there = self._of.get(sample_id, {})
        if len(there) == 1:
            return next(iter(there.values()))
        return there.get(split)

    def lesson(self, split: Split, schema: Schema, target: PlanTarget = "label") -> Lesson:
        """The plans to learn, for each sample of a split.

        Args:
            split: The samples.
            schema: What plans obey; one that doesn't, once the label stands in it, is left out.
            target: Whose word counts where a sample has a label.
        """
        summary = target_values(schema, split.labels) if target == "label" else None
        plans: list[Plan | None] = []
        unwritten = unfit = from_label = 0
        for row, sample_id in enumerate(split.ids):
            taught = self.find(sample_id, split.name)
            values = None if taught is None else taught.constraints
            if values is None:
                unwritten += 1
                plans.append(None)
                continue
            label = None if summary is None else summary[row]
            if label is not None and schema.target is not None:
                values = values | {schema.target: label}
            plan = tuple(values.get(name, "") for name in schema.field_names)
            fits = not schema.violations(plan)
            unfit += not fits
            from_label += fits and label is not None
            plans.append(plan if fits else None)
        return Lesson(tuple(plans), unwritten, unfit, from_label)

    def summary(self, lesson: Lesson) -> str:
        """Who wrote what is learnt, in a few words."""
        learnt, rows = sum(plan is not None for plan in lesson.plans), len(lesson.plans)
        teachers = ", ".join(self.teachers) or "somebody"
        summary = f"written by {teachers} for {learnt} of {rows} training rows"
        if lesson.from_label:
            summary += f", {lesson.from_label} with the label's target"
        if learnt < rows:
            summary += (
                f"; {lesson.unwritten} have none, and {lesson.unfit} no target that the schema takes there: "
                "they teach the planner nothing"
            )
        return summary

    @property
    def teachers(self) -> dict[str, int]:
        """Who wrote plans, and how many."""
        return dict(Counter(plan.teacher for plan in self.plans if plan.constraints and plan.teacher))

    def facts(self, train: Split, valid: Split, schema: Schema, target: PlanTarget) -> dict[str, Any]:
        """For the manifest: who wrote the plans and how often, by which prompt, and how true they are."""
        family = choose_family(train.labels)
        prompts = {
            (plan.prompt_version, plan.prompt_sha256) for plan in self.plans if plan.prompt_sha256 is not None
        }
        return {
            "teachers": self.teachers,
            "prompts": [
                {"version": version, "sha256": sha256} for version, sha256 in sorted(prompts, key=str)
            ],
            "target": target,
            "sha256": hashlib.sha256(plan_lines(self.plans)).hexdigest(),
            "train": self.lesson(train, schema, target).facts(),
            "valid": self.lesson(valid, schema, target).facts(),
            "agreement": {
                "train": self.agreement(train, schema, family),
                "valid": self.agreement(valid, schema, family),
            },
        }

    def agreement(self, split: Split, schema: Schema, family: MetricFamily) -> dict[str, Any]:
        """How well the teacher's own targets tell the labels: metrics, and how many samples they are of.

        Empty where there is nothing to compare. A sample whose target the teacher can't tell isn't counted.
        """
        labels = split.labels
        if labels is None or target_values(schema, labels) is None or schema.target is None:
            return {}
        found = [self.find(sample_id, split.name) for sample_id in split.ids]
        said = [((plan and plan.constraints) or {}).get(schema.target) for plan in found]
        truth = np.array([value if word else np.nan for value, word in zip(labels.values, said, strict=True)])
        counted = int(np.isfinite(truth).sum())
        if not counted:
            return {}
        if schema.degrees is not None:
            numbers = [schema.degrees.get(word or "", 0.0) for word in said]
            return {"n": counted, **score(family, truth, value=numbers)}
        named = schema.class_names or {}
        place = {name: number for number, name in enumerate(labels.class_names)}
        codes = [place.get(named.get(word or "", word or ""), len(place)) for word in said]
        return {"n": counted, **score("classes", truth, label=codes)}


def plans_digest(path: Path) -> str:
    """SHA-256 of a plans file.

    Raises:
        DataError: if it can't be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def parse_plan(line: str, schema: Schema, place: str) -> TaughtPlan:
    """One line of a plans file.

    Args:
        line: JSON.
        schema: What the plan obeys; its target may be left out, for a label to fill in.
        place: The file and line, for messages.

    Raises:
        DataError: if it isn't a plan of this schema.
    """
    try:
        plan = TaughtPlan.model_validate_json(line)
    except ValidationError as error:
        raise DataError(
            f'{place}: expected a plan, as {{"id": ..., "constraints": {{FIELD: VALUE, ...}}}}; '
            f"{first_fault(error, 'the line')}"
        ) from None
    if plan.constraints is not None:
        wrong = _misfit(plan.constraints, schema)
        if wrong is not None:
            raise DataError(
                f"{place}: expected a plan of schema {schema.name!r}, and {wrong}: give the schema that "
                "the plans were written under, with --schema"
            )
    return plan


def _misfit(values: dict[str, str], schema: Schema) -> str | None:
    """What is wrong with a plan whose target may be open; None if it fits."""
    unknown = [name for name in values if name not in schema.field_names]
    if unknown:
        return f"{unknown[0]!r} isn't one of its fields ({', '.join(schema.field_names)})"
    absent = [name for name in schema.field_names if name not in values]
    if absent and absent != [schema.target]:
        return f"{absent[0]} is missing"
    if absent:
        # any value will do that may stand there: the rest is looked at
        options = schema.fields[schema.field_names.index(absent[0])].values or ()
        wholes = [values | {absent[0]: value} for value in options]
    else:
        wholes = [values]
    wrong = [schema.violations(tuple(whole[name] for name in schema.field_names)) for whole in wholes]
    return wrong[0][0] if all(wrong) else None


def read_plans(path: Path, schema: Schema) -> TaughtPlans:
    """A whole plans file, one JSON document a line.

    Raises:
        DataError: if it isn't there or can't be read, a line isn't a plan of this schema, a sample comes
            twice, or there is no plan in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    plans: dict[tuple[str, str], TaughtPlan] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        plan = parse_plan(line, schema, f"{path}:{number}")
        if (plan.id, plan.split) in plans:
            raise DataError(f"{path}:{number}: expected one plan a sample, {plan.id!r} comes twice")
        plans[plan.id, plan.split] = plan
    if all(plan.constraints is None for plan in plans.values()):
        raise DataError(f"{path}: expected at least one plan, got none")
    return TaughtPlans(plans.values())


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"--plans {path}: a file of plans was expected ({type(error).__name__}): give one that omg distill "
        "wrote"
    )


def plan_lines(plans: Iterable[TaughtPlan]) -> bytes:
    """Plans as the lines of a file."""
    lines = [
        json.dumps(plan.model_dump(exclude_none=True) | {"constraints": plan.constraints}, ensure_ascii=False)
        for plan in plans
    ]
    # half a surrogate pair, which no encoding takes, becomes JSON's own spelling of it
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


SUFFIX = ".distilling"
IDENTITY = "identity.json"


class PlansInProgress:
    """Plans that a teacher is still writing, in a folder beside the model: each is on the disk at once.

    A process that is killed leaves whole lines and, at most, the beginning of one. That one is dropped when
    the folder is opened again: it never ended, however whole it looks.
    """

    def __init__(
        self, output: Path, identity: Mapping[str, Any], schema: Schema, *, restart: bool = False
    ) -> None:
        """Go on with what is there, or begin.

        Args:
            output: Where the model, or the file of plans, is going to be.
            identity: All that plans depend on.
            schema: What plans obey.
            restart: Delete what is there.

        Raises:
            ConfigError: if something else is there, or plans of another teacher, prompt, schema or data.
            DataError: if a line that did end isn't a plan of this schema.
            ModelError: if ``output`` is the root of the file system, which has nothing beside it.
        """
        output = output.resolve()
        if not output.name:
            raise ModelError(f"--output {output}: expected a place inside a folder: choose another name")
        self.folder = output.with_name(output.name + SUFFIX)
        path = self.folder / IDENTITY
        if self.folder.exists() and not path.is_file() and self._foreign():
            raise ConfigError(
                f"{self.folder} is where plans under way would be kept, and something else is there: choose "
                "another --output, or move it away yourself"
            )
        if restart and self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._check(path, identity)
        else:
            write_atomically(path, (json.dumps(dict(identity), indent=2, ensure_ascii=False) + "\n").encode())
        self._file = self.folder / PLANS
        self.plans = self._whole_lines(schema)
        """By split and id."""

    def _whole_lines(self, schema: Schema) -> dict[tuple[str, str], TaughtPlan]:
        content = self._file.read_bytes() if self._file.exists() else b""
        whole = content.rfind(b"\n") + 1
        try:
            lines = content[:whole].decode("utf-8").split("\n")[:-1]
            plans = [
                parse_plan(line, schema, f"{self._file}:{number}")
                for number, line in enumerate(lines, start=1)
            ]
        except (UnicodeDecodeError, DataError) as error:
            raise DataError(
                f"{self._file}: expected plans under way, got something else ({error}): delete them with "
                "--restart"
            ) from None
        if whole < len(content):
            with self._file.open("r+b") as file:
                file.truncate(whole)
        return {(plan.split, plan.id): plan for plan in plans}

    def add(self, plans: Sequence[TaughtPlan]) -> None:
        """Write plans and wait until they are on the disk."""
        with self._file.open("ab") as file:
            file.write(plan_lines(plans))
            file.flush()
            os.fsync(file.fileno())
        self.plans |= {(plan.split, plan.id): plan for plan in plans}

    def remove(self) -> None:
        """Delete it: the model is there."""
        # the identity goes last: if the program is killed here, the folder can still be recognised
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _foreign(self) -> list[str]:
        # a run killed while it wrote the first file leaves that file's temporary name
        return [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(f".{IDENTITY}.")]

    def _check(self, path: Path, identity: Mapping[str, Any]) -> None:
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = {}
        different = [
            f"{name} ({_short(begun.get(name))}, not {_short(value)})"
            for name, value in identity.items()
            if begun.get(name) != value
        ]
        if different:
            raise ConfigError(
                f"{self.folder} holds plans that were begun with another {', '.join(different)}: go on with "
                "the same, or delete them with --restart"
            )


def _short(value: object) -> str:
    """A value for a message; of a hash its beginning."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:12] if len(text) == 64 else text[:60]
