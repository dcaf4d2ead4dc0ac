"""The reconstruction as a tool that a language model can call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from langchain_core.tools import StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from omg_graph.api import reconstruct
from omg_graph.data.arrays import printable
from omg_graph.errors import DataError, OmgError
from omg_graph.files import DataFolder
from omg_graph.model.model import Model
from omg_graph.record.artifacts import ArtifactStore, MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.record.view import view
from omg_graph.state import DEFAULT_SETTINGS, Settings

NAME = "reconstruct_missing_modality"
EVIDENCE_SHOWN = 3
"""Entries of evidence in the text, for each modality; the artifact holds them all."""
FILE_SAMPLES = 20
"""The most samples of a file per call, so that the answer doesn't fill the model's context."""
LONGEST_TEXT = 200
"""Characters of one entry's text that the model is shown."""


def as_tool(
    model: Model,
    *,
    data_folder: str | Path | None = None,
    settings: Settings | None = None,
    artifacts: ArtifactStore | None = None,
) -> StructuredTool:
    """A LangChain tool that reconstructs what a record misses, for any agent, sync or async.

    Its content is a short text for the language model: what was missing, the plan, the evidence by weight,
    the prediction. Its artifact is the list of trajectories; it is None where the call failed. What the
    caller can mend (a wrong width, nothing observed, no such file) comes as a tool message of status
    ``error`` with one line, never as an exception.

    Args:
        model: What ``load_model`` read.
        data_folder: The folder whose files the language model may name by a path relative to it. Without
            one it has to write samples out, and paths are refused.
        settings: The settings of every call; its seed serves where the language model gives none.
        artifacts: Where the trajectories' arrays are kept; give a store of your own to read them.

    Raises:
        DataError: if the data folder isn't there.
    """
    folder = None if data_folder is None else DataFolder(data_folder)
    base, store = settings or DEFAULT_SETTINGS, artifacts or MemoryArtifactStore()

    def call(
        sample: dict[str, Any] | None = None,
        missing: list[str] | None = None,
        seed: int | None = None,
        path: str | None = None,
        split: str | None = None,
        limit: int = FILE_SAMPLES,
    ) -> tuple[str, list[Trajectory]]:
        chosen = base if seed is None else base.model_copy(update={"seed": seed})
        source = None if path is None else _inside(folder, path)
        try:
            if (source is None) == (sample is None):
                raise DataError(f"expected one of {' or '.join(_sources(folder))}, and not more: give one")
            _refuse_recordings(model, sample or {})
            trajectories = reconstruct(
                model,
                source or sample or {},
                split=split,
                missing=missing or (),
                limit=limit,
                settings=chosen,
                artifacts=store,
            )
        except OmgError as error:
            message = str(error).replace("--missing", "missing")
            if source is not None:  # where the operator keeps the data is no business of the model's
                message = message.replace(str(source), str(path))
            raise ToolException(printable(message)) from error
        return "\n\n".join(_summary(trajectory) for trajectory in trajectories), trajectories

    return StructuredTool.from_function(
        call,
        name=NAME,
        description=_description(model, folder is not None),
        args_schema=_arguments(model, folder is not None),
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=_invalid,
    )


def _summary(trajectory: Trajectory) -> str:
    """A trajectory in a few lines: a language model has little room."""
    shown = view(trajectory)
    lines = [f"{trajectory.id}: missing {shown.missing}; observed {shown.observed}."]
    if shown.plan is not None:
        winner = shown.plan.candidates[0].drawn
        values = ", ".join(f"{link.field} = {link.value}" for link in winner.constraints)
        log = "unknown" if winner.log_probability is None else f"{winner.log_probability:.2f}"
        lines.append(f"Plan: {values} (chosen of {shown.plan.plan.drawn} candidates, log-probability {log}).")
    for one in shown.reconstructions:
        span = f", from {one.span}" if one.span else ""
        lines.append(f"Reconstructed {one.name}: {one.size} numbers{span}.")
    for part in shown.evidence:
        names, (entries, more, _) = ", ".join(part.names), part.top(EVIDENCE_SHOWN)
        lines.append(
            f"Evidence for {names}, the {len(entries)} of {len(entries) + more} entries with the largest "
            "weights:"
            if entries
            else f"No evidence for {names}."
        )
        lines += [
            f"- {one.id} (weight {one.weight:.2f}, from {one.source}): {one.text[:LONGEST_TEXT]}"
            for one in entries
        ]
    if trajectory.prediction is not None:
        lines.append(f"Prediction: {shown.prediction}.")
    if trajectory.notes:
        lines.append(f"Notes: {'; '.join(trajectory.notes)}.")
    return "\n".join(printable(line) for line in lines)


def _description(model: Model, files: bool) -> str:
    what = "the label" if model.executor.task is not None else "no label"
    given = "written out, or as a file" if files else "written out"
    return (
        f"Reconstruct the modalities that a record is missing ({', '.join(model.names)}) and predict {what}. "
        f"Give the record {given}. The answer says what was missing, the plan, the evidence that the "
        "reconstruction rests on (ids with weights), and the prediction. Call it whenever a record lacks a "
        "modality, and name the evidence's ids when you answer from it."
    )


class _Arguments(BaseModel):
    """What the language model gives, whatever the model it asks."""

    model_config = ConfigDict(extra="forbid")

    missing: list[str] = Field(
        default=[],
        description="Modalities to hide although they are there, to see how well they can be reconstructed; "
        "what is null in the record is missing anyway.",
    )
    seed: int | None = Field(default=None, description="Leave out, but to repeat a call with other draws.")


def _arguments(model: Model, files: bool) -> type[BaseModel]:
    """The arguments' schema, with this model's modalities by name and shape."""
    fields: dict[str, Any] = {
        "sample": (
            _sample_type(model) | None,
            Field(
                default=None,
                description="One record: its id and its modalities as lists of numbers; null is missing.",
            ),
        )
    }
    if files:
        fields |= {
            "path": (
                str | None,
                Field(
                    default=None, description="A .pkl or .npz file in the data folder, instead of a sample."
                ),
            ),
            "split": (
                str | None,
                Field(default=None, description="Which split of the file; the usual one if empty."),
            ),
            "limit": (
                int,
                Field(
                    default=FILE_SAMPLES,
                    ge=1,
                    le=FILE_SAMPLES,
                    description="Only the first so many samples of the file.",
                ),
            ),
        }
    return create_model("ReconstructionArguments", __base__=_Arguments, **fields)


def _sample_type(model: Model) -> Any:
    """A mapping whose schema names this model's modalities, with their shapes."""
    modalities = {
        spec.name: {
            "anyOf": [_numbers(len(spec.shape)), {"type": "null"}],
            "description": f"{' x '.join(map(str, spec.shape))} numbers; null if missing.",
        }
        for spec in model.latent_space.specs
    }
    text = {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": "The transcript, if there is one.",
    }
    known = {"id": {"type": "string", "description": "The record's id."}, "raw_text": text}
    return Annotated[dict[str, Any], WithJsonSchema({"type": "object", "properties": known | modalities})]


def _numbers(dimensions: int) -> dict[str, Any]:
    return {"type": "array", "items": _numbers(dimensions - 1)} if dimensions else {"type": "number"}


def _sources(folder: DataFolder | None) -> tuple[str, ...]:
    return ("sample",) if folder is None else ("sample", "path")


def _inside(folder: DataFolder | None, path: str) -> Path:
    """The file that a path means.

    Raises:
        ToolException: if it doesn't lie under the data folder; the message doesn't say whether it is there.
    """
    if folder is None:
        raise ToolException(f"path: expected a sample, got {printable(path)[:100]!r}: write it out")
    try:
        return folder.find(path, "path")
    except DataError as error:
        raise ToolException(printable(str(error))) from error


def _refuse_recordings(model: Model, sample: dict[str, Any]) -> None:
    """A language model writes numbers and words; a recording of a sample would name a file of its choice.

    Raises:
        DataError: if the sample names one.
    """
    for key in sample:
        if str(key).startswith("raw_") and key not in ("raw_text", *model.names):
            raise DataError(f"sample: expected modalities and raw_text, got {str(key)[:60]!r}: leave it out")


def _invalid(error: Any) -> str:
    """A call that doesn't fit the schema, in one line."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "arguments"
    return printable(f"{place}: {first['msg']}, {first.get('input')!r:.80} came: see the tool's schema")
