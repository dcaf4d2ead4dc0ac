"""What a person changes of a run: another candidate, other values in the plan, entries of evidence left out.

It is small JSON in the graph's state. A fork writes it there, whether over a checkpointer, over the server or
from a trajectory on disk, and the review and retriever nodes carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.dataset import Split
from omg_graph.errors import PlanError
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation, score_written
from omg_graph.planner.editing import edited_plan
from omg_graph.record.trajectory import CandidatePlan, Trajectory

DOWNSTREAM = (
    "evidence",
    "evidence_cost",
    "left_out",
    "denoising",
    "reconstruction",
    "filled",
    "lengths",
    "length_source",
    "errors",
    "prediction",
    "prediction_without",
    "utility",
    "selection",
)
"""Fields of a trajectory that a plan decides: with another plan they no longer hold."""

OBSERVATION = "observation_embedding"
"""u_X among a trajectory's arrays, kept where recordings may be a part of it: a fork has none to read."""

INPUT_ARRAYS = ("observed", "truth", OBSERVATION)

BEFORE_EVIDENCE = ("planner", "rerank")
"""Nodes whose seconds still count."""


class Edit(BaseModel):
    """A change of one sample's run, or of every sample's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = Field(default=None, description="Whose run is changed; every sample's if null.")
    pick: int | None = Field(
        default=None,
        ge=1,
        description="Number of the candidate to take, as the trace shows them; the chosen one if null.",
    )
    set: dict[str, str] = Field(
        default={},
        description="Values to put into that plan, by the schema's fields.",
        examples=[{"Sentiment": "strongly negative"}],
    )
    drop_evidence: tuple[str, ...] = Field(default=(), description="Ids of entries to leave out.")

    @property
    def changes_plan(self) -> bool:
        """Whether it says anything of the plan."""
        return self.pick is not None or bool(self.set)

    def concerns(self, sample_id: str) -> bool:
        """Whether it is about this sample."""
        return self.id is None or self.id == sample_id


def check_edits(edits: Sequence[Edit], trajectories: Sequence[Trajectory]) -> None:
    """See that every edit is about a sample that is there.

    Raises:
        PlanError: if one isn't.
    """
    ids = [trajectory.id for trajectory in trajectories]
    for edit in edits:
        if edit.id is not None and edit.id not in ids:
            known = ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
            raise PlanError(f"edits: the id of a sample was expected ({known}), {edit.id!r} came")


def replanned(
    model: Model,
    split: Split,
    observation: Observation,
    trajectory: Trajectory,
    *,
    pick: int | None = None,
    changes: Mapping[str, str] | None = None,
) -> Trajectory:
    """A trajectory with the plan that a person picked or wrote, and nothing that followed from the old one.

    Args:
        model: Whose planner and encoder score a plan that was written.
        split: The one sample.
        observation: What the pipeline made of it.
        trajectory: Past re-ranking.
        pick: Number of a candidate in the order of ``Plan.ranked``, from 1; the chosen one if None.
        changes: Field to value, put into that candidate.

    Raises:
        PlanError: if there is no such candidate or field, or the plan breaks the schema.
    """
    plan = trajectory.plan
    if plan is None:
        raise PlanError(f"sample {trajectory.id!r} has no plan yet: run the re-rank node first")
    index = plan.chosen if pick is None else plan.numbered(pick)
    base = plan.candidates[index]
    if base.violations and not changes:
        raise PlanError(
            f"candidate {pick or 1} breaks the schema: {base.violations[0]}; pick another, or edit it"
        )
    candidates = plan.candidates
    if changes:
        values = edited_plan(model.schema, base.values, changes)
        drawn = [candidate.values for candidate in candidates]
        if values in drawn:
            index = drawn.index(values)
        else:
            written = score_written(
                model,
                split,
                observation,
                values,
                semantic_weight=plan.semantic_weight,
                # another planner's log-probabilities would stand beside those of the one that drew the others
                rescore=plan.planner == model.planner.name,
            )
            candidates = (*candidates, written)
            index = len(candidates) - 1
    winner = candidates[index]
    chosen = plan.model_copy(
        update={
            "text": winner.text,
            "constraints": winner.constraints,
            "chosen": index,
            "chosen_by": "edited" if winner.edited else "person",
            "reviewed": True,
            "candidates": candidates,
        }
    )
    return forgotten(trajectory).model_copy(update={"plan": chosen, "notes": _notes(trajectory, winner)})


def forgotten(trajectory: Trajectory) -> Trajectory:
    """A trajectory as it was before its evidence was looked up."""
    defaults = {name: Trajectory.model_fields[name].get_default() for name in DOWNSTREAM}
    arrays = {key: ref for key, ref in trajectory.arrays.items() if key.split("/")[0] in INPUT_ARRAYS}
    timings = {node: seconds for node, seconds in trajectory.timings.items() if node in BEFORE_EVIDENCE}
    return trajectory.model_copy(update=defaults | {"arrays": arrays, "timings": timings})


def _notes(trajectory: Trajectory, winner: CandidatePlan) -> tuple[str, ...]:
    if not winner.edited or winner.log_probability is not None:
        return trajectory.notes
    remark = "the planner can't tell the log-probability of a plan that it didn't draw: it has no score"
    return tuple(dict.fromkeys((*trajectory.notes, remark)))
