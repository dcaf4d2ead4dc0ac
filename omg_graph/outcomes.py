"""Trajectories as the executor ends them: reconstruction, path, errors, prediction and utility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from omg_graph.codecs.codec import Rows
from omg_graph.data.dataset import FloatArray, Split
from omg_graph.gaps import NOTHING_MISSING, known_truths, with_gaps
from omg_graph.metrics.features import normalised_squared_error
from omg_graph.model.model import Model
from omg_graph.pictures import emerging
from omg_graph.pipeline import Execution
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import DenoisingStep, Prediction, ReconstructionError
from omg_graph.record.utility import path_cost, utility
from omg_graph.records import Trajectories
from omg_graph.state import Batch, Settings


def reconstructed(
    model: Model,
    store: ArtifactStore,
    trajectories: Trajectories,
    batch: Batch,
    split: Split,
    execution: Execution,
    settings: Settings,
) -> Trajectories:
    """Reconstruction, draws and path, and the error where the truth was hidden."""
    lengths, told = reconstructed_lengths(model, split)
    points = {
        name: _masked(model.latent_space.decode(name, execution.estimates[name]), lengths.get(name))
        for name in model.names
        if not split.observed[name].all()
    }
    drawn = {
        name: np.stack(
            [
                _masked(model.latent_space.decode(name, latents), lengths.get(name))
                for latents in execution.draws[name]
            ],
            axis=1,
        )
        for name in points
        if settings.draws > 1 and name in execution.draws
    }
    errors = _errors(model, store, batch, points)
    shaping = emerging(model, execution, lengths) if settings.keep_path and settings.pictures else {}
    truths = known_truths(batch, store) if settings.keep_path else {}
    out = []
    for row, trajectory in enumerate(trajectories):
        arrays, denoising = dict(trajectory.arrays), {}
        for name in trajectory.missing:
            denoising[name] = path_steps(execution, name, row)
            if settings.keep_path:
                path = execution.paths[name]
                arrays[f"path/{name}"] = store.put(torch.stack([z[row] for z in path.states]).numpy())
                arrays[f"clean/{name}"] = store.put(torch.stack([z[row] for z in path.clean]).numpy())
                if name in shaping:
                    arrays[f"steps/{name}"] = store.put(shaping[name][row])
                if name in trajectory.hidden:
                    arrays[f"truth/{name}"] = store.put(truths[name][row])
            if name in drawn:
                arrays[f"draws/{name}"] = store.put(drawn[name][row])
        if settings.keep_path:  # with its input a run can be forked later
            for name in trajectory.observed:
                length = split.lengths[name][row] if name in split.lengths else None
                arrays[f"observed/{name}"] = store.put(with_gaps(split, name, row)[:length])
        notes = trajectory.notes
        if not trajectory.missing:
            notes = (*notes, NOTHING_MISSING)
        out.append(
            trajectory.model_copy(
                update={
                    "reconstruction": {name: store.put(points[name][row]) for name in trajectory.missing},
                    "lengths": {
                        name: int(lengths[name][row]) for name in trajectory.missing if name in lengths
                    },
                    "length_source": {
                        name: told[name][row] for name in trajectory.missing if name in lengths
                    },
                    "errors": {name: rows[row] for name, rows in errors.items() if row in rows},
                    "denoising": denoising,
                    "arrays": arrays,
                    "notes": notes,
                }
            )
        )
    return out


def predicted(model: Model, trajectories: Trajectories, execution: Execution) -> Trajectories:
    """Prediction and utility."""
    predictions = _predictions(model, execution.outputs)
    without = _predictions(model, execution.outputs_without)
    out = []
    for row, trajectory in enumerate(trajectories):
        losses = [error.nmse for error in trajectory.errors.values()]
        plan = trajectory.plan
        chosen = None if plan is None else plan.candidates[plan.chosen].semantic_cost
        notes = trajectory.notes
        if predictions is None:
            notes = (*notes, "the model was trained without labels: there is no prediction")
        out.append(
            trajectory.model_copy(
                update={
                    "prediction": None if predictions is None else predictions[row],
                    "prediction_without": without[row] if without and trajectory.missing else None,
                    "utility": utility(
                        reconstruction_loss=float(np.mean(losses)) if losses else None,
                        semantic_cost=chosen,
                        evidence_costs=list(trajectory.evidence_cost.values()),
                        path_costs=[
                            path_cost([step.clean_change for step in steps])
                            for steps in trajectory.denoising.values()
                        ],
                        weights=model.config.utility,
                    ),
                    "notes": notes,
                }
            )
        )
    return out


def path_steps(execution: Execution, name: str, row: int) -> tuple[DenoisingStep, ...]:
    """The denoising path of draw 0 in numbers."""
    path = execution.paths[name]
    steps: list[DenoisingStep] = []
    previous = None
    for index, timestep in enumerate(path.timesteps):
        clean, state = path.clean[index][row], path.states[index + 1][row]
        change = 0.0 if previous is None else float((clean - previous).square().mean().sqrt())
        steps.append(
            DenoisingStep(
                step=index + 1,
                timestep=timestep,
                state_norm=float(state.square().mean().sqrt()),
                clean_norm=float(clean.square().mean().sqrt()),
                clean_change=change,
            )
        )
        previous = clean
    return tuple(steps)


def reconstructed_lengths(
    model: Model, split: Split
) -> tuple[dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]], dict[str, list[str]]]:
    """Frames of each padded sequence: its own where known, an aligned one's, else the training median."""
    lengths, told = {}, {}
    frames = {spec.name: spec.shape[0] for spec in split.modalities if spec.kind == "sequence"}
    for name, median in model.config.median_lengths.items():
        rows = np.full(len(split), min(median, frames[name]), dtype=np.int64)
        words = ["training median"] * len(split)
        for row in range(len(split)):
            if split.observed[name][row] and name in split.lengths:
                rows[row], words[row] = split.lengths[name][row], "input"
                continue
            for other, given in split.lengths.items():
                if other != name and split.observed[other][row] and frames[other] == frames[name]:
                    rows[row], words[row] = given[row], f"aligned with {other}"
                    break
        lengths[name], told[name] = rows, words
    return lengths, told


def _masked(array: FloatArray, lengths: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> FloatArray:
    """Zeros past a sequence's length."""
    if lengths is None:
        return array
    inside = np.arange(array.shape[1])[None] < lengths[:, None]
    return np.asarray(array * inside[..., None], dtype=np.float32)


def _errors(
    model: Model,
    store: ArtifactStore,
    batch: Batch,
    points: Mapping[str, FloatArray],
) -> dict[str, dict[int, ReconstructionError]]:
    """Modality to row to error, where the truth was hidden."""
    out: dict[str, dict[int, ReconstructionError]] = {}
    for name, ref in batch.truth.items():
        truth, codec = store.get(ref), model.latent_space.codecs[name]
        rows = np.flatnonzero(np.array(batch.hidden[name]))
        length = np.array(batch.lengths[name]) if name in batch.lengths else None
        lost = store.get(batch.lost[name]) if name in batch.lost else None
        mask = codec.scored(Rows(truth, length, lost))
        standard_truth = codec.standard(Rows(truth, length))
        standard_guess = codec.standard(Rows(points[name], length))
        out[name] = {}
        for row in rows.tolist():
            scored = mask[row]
            ratio = normalised_squared_error(
                standard_guess[row : row + 1], standard_truth[row : row + 1], scored[None]
            )
            if ratio.value is None:  # none of its features varies in training: there is nothing to score
                continue
            difference = (truth[row] - points[name][row]).reshape(-1)[scored].astype(np.float64)
            out[name][row] = ReconstructionError(
                squared_error=float(ratio.numerator[0]),
                squared_deviation=float(ratio.denominator[0]),
                nmse=ratio.value,
                mse=float(np.mean(difference**2)),
            )
    return out


def _predictions(model: Model, outputs: torch.Tensor | None) -> list[Prediction] | None:
    """What the task head says, in the label's own words and units."""
    head = model.executor.task
    if head is None or outputs is None:
        return None
    config = head.config
    with torch.inference_mode():
        probabilities = head.probabilities(outputs).cpu().double().numpy()
        values = head.value(outputs).cpu().double().numpy() if config.kind != "classes" else None
    predictions = []
    for row in range(len(outputs)):
        value = None if values is None else float(values[row])
        if config.kind == "number":
            predictions.append(Prediction(value=value, label=None))
            continue
        shares = {word: float(share) for word, share in zip(config.names, probabilities[row], strict=True)}
        label = max(shares, key=shares.__getitem__) if value is None else model.schema.nearest_value(value)
        predictions.append(Prediction(value=value, label=label, probabilities=shares))
    return predictions
