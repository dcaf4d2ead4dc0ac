"""Trajectories as the executor ends them: reconstruction, path, errors, prediction and utility."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from omg_graph.batches import LoadedBatch
from omg_graph.codecs.codec import Rows
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, Split
from omg_graph.executor.diffusion import DenoisingPath
from omg_graph.metrics.features import normalised_squared_error
from omg_graph.model.model import Model
from omg_graph.pipeline import Execution
from omg_graph.record.artifacts import ArrayRef, ArtifactStore, block_sizes, spaced, thumbnail
from omg_graph.record.trajectory import (
    DenoisingStep,
    FilledFrames,
    Prediction,
    ReconstructionError,
    Trajectory,
    utility,
)
from omg_graph.state import Settings
from omg_graph.trajectories import Trajectories

NOTHING_MISSING = "nothing was missing: nothing was reconstructed"
MADE = "made with it"
"""Where the length of a reconstructed sound is from."""
NO_LABELS = "the model was trained without labels: there is no prediction"
NOT_DRAWN = "no draw was made: every estimate is a conditional mean, and there is no denoising path"
STEPS_SHOWN = 25
"""The most steps whose clean estimate is kept for pictures."""
CELLS_SHOWN = 1024
"""The most numbers of each of them."""


def executed(
    model: Model,
    store: ArtifactStore,
    trajectories: Trajectories,
    batch: LoadedBatch,
    execution: Execution,
    settings: Settings,
) -> Trajectories:
    """What the executor made of a batch, in the input's units, row by row. Only what is missing is decoded.

    Args:
        model: Which decodes it.
        store: Where arrays go.
        trajectories: So far, one for each sample.
        batch: The samples.
        execution: In latent units.
        settings: Of the run.
    """
    split, space = batch.split, model.latent_space
    missing = {name: np.flatnonzero(~split.observed[name]) for name in model.names}
    missing = {name: rows for name, rows in missing.items() if len(rows)}
    standard = {name: space.standard(name, execution.estimates[name][rows]) for name, rows in missing.items()}
    told = {name: space.codecs[name].lengths(rows) for name, rows in standard.items()}
    lengths, length_source = reconstructed_lengths(
        model, split, {name: (missing[name], made) for name, made in told.items() if made is not None}
    )

    def restored(name: str, decoded: FloatArray) -> FloatArray:
        """(rows, ...) in the input's units of standard rows, of the rows that miss the modality."""
        array = space.codecs[name].restore(decoded)
        return _masked(array, lengths[name][missing[name]]) if name in lengths and array.ndim == 3 else array

    points = {name: restored(name, rows) for name, rows in standard.items()}
    draws = {
        name: np.stack(
            [restored(name, space.standard(name, draw[rows])) for draw in execution.draws[name]], axis=1
        )
        for name, rows in missing.items()
        if settings.draws > 1
    }
    pictures: dict[str, FloatArray] = {}
    if settings.keeps_pictures and execution.paths:
        pictures = {
            name: _emerging(model, execution, name, rows, lengths.get(name)) for name, rows in missing.items()
        }
    place = {name: {row: index for index, row in enumerate(rows.tolist())} for name, rows in missing.items()}
    errors = {
        name: _errors(model, batch, name, points[name], standard[name], place[name]) for name in batch.truth
    }
    predictions = _predictions(model, execution.outputs)
    without = _predictions(model, execution.outputs_without)
    path_costs = None if execution.path_costs is None else execution.path_costs.numpy()
    finished = []
    for row, trajectory in enumerate(trajectories):
        arrays = dict(trajectory.arrays)
        reconstruction = {}
        for name in trajectory.missing:
            at = place[name][row]
            reconstruction[name] = store.put(points[name][at])
            if name in draws:
                arrays[f"draws/{name}"] = store.put(draws[name][at])
            if name in pictures:
                arrays[f"steps/{name}"] = store.put(pictures[name][at])
            if settings.keep_path:
                arrays |= _kept_path(store, execution.paths.get(name), name, row)
                if name in trajectory.hidden:
                    arrays[f"truth/{name}"] = store.put(_with_gaps(split, name, row, batch.truth[name]))
        denoising = None
        if execution.paths or not trajectory.missing:
            denoising = {name: path_steps(execution, name, row) for name in trajectory.missing}
        if settings.keep_path:  # with its input a run can be forked later
            for name in trajectory.observed:
                length = split.lengths[name][row] if name in split.lengths else None
                observed = _with_gaps(split, name, row, split.arrays[name])
                arrays[f"observed/{name}"] = store.put(observed[:length])
        costs = None if path_costs is None else path_costs[:, row]
        if settings.select == "utility" and costs is not None:
            arrays["path_costs"] = store.put(costs)
        reasons = {
            NOTHING_MISSING: not trajectory.missing,
            NOT_DRAWN: denoising is None,
            NO_LABELS: predictions is None,
        }
        own_errors = {name: rows[row] for name, rows in errors.items() if row in rows}
        plan = trajectory.plan
        finished.append(
            trajectory.model_copy(
                update={
                    "reconstruction": reconstruction,
                    "lengths": {n: int(lengths[n][row]) for n in trajectory.missing if n in lengths},
                    "length_source": {n: length_source[n][row] for n in trajectory.missing if n in lengths},
                    "errors": own_errors,
                    "denoising": denoising,
                    "prediction": None if predictions is None else predictions[row],
                    "prediction_without": without[row] if without and trajectory.missing else None,
                    "utility": utility(
                        reconstruction_losses=[error.nmse for error in own_errors.values()],
                        semantic_cost=None if plan is None else plan.candidates[plan.chosen].semantic_cost,
                        evidence_costs=list(trajectory.evidence_cost.values()),
                        # of several draws that are ranked the path kept is the cheapest one's
                        path_cost=None
                        if costs is None or not trajectory.missing
                        else float(costs.min() if settings.select == "utility" else costs[0]),
                        weights=model.config.utility,
                    ),
                    "arrays": arrays,
                    "notes": (*trajectory.notes, *(note for note, holds in reasons.items() if holds)),
                }
            )
        )
    return with_filled_frames(model, store, finished, split)


def _kept_path(store: ArtifactStore, path: DenoisingPath | None, name: str, row: int) -> dict[str, ArrayRef]:
    """A sample's states and clean estimates, in residual units; nothing where nothing was drawn."""
    if path is None:
        return {}
    return {
        f"{part}/{name}": store.put(torch.stack([step[row] for step in steps]).numpy())
        for part, steps in (("path", path.states), ("clean", path.clean))
    }


def with_filled_frames(
    model: Model, store: ArtifactStore, trajectories: list[Trajectory], split: Split
) -> list[Trajectory]:
    """The trajectories with the sequences whose lost frames were filled; without gaps they are unchanged.

    Args:
        model: Whose latent space fills them.
        store: Where the filled sequences go.
        trajectories: Of the samples, in order.
        split: The samples.
    """
    rows = sorted(
        {row for gaps in _gaps(split).values() for row in np.flatnonzero(gaps.any(axis=1)).tolist()}
    )
    if not rows:
        return trajectories
    some = split.take(rows)
    filled, gaps = model.latent_space.fill_frames(some), _gaps(some)
    out = list(trajectories)
    for place, row in enumerate(rows):
        update: dict[str, dict[str, object]] = {
            "filled": {},
            "arrays": {},
            "lengths": {},
            "length_source": {},
        }
        notes = []
        for name, array in filled.items():
            frames = np.flatnonzero(gaps[name][place])
            if not len(frames):
                continue
            length = int(some.lengths[name][place]) if name in some.lengths else gaps[name].shape[1]
            update["filled"][name] = FilledFrames(frames=tuple(frames.tolist()), of=length)
            update["arrays"][f"filled/{name}"] = store.put(array[place])
            if name in some.lengths:
                update["lengths"][name], update["length_source"][name] = length, "input"
            notes.append(
                f"{len(frames)} of {length} frames of {name} were lost and filled{_how(model, name)}"
            )
        old = out[row]
        kept = tuple(note for note in old.notes if note != NOTHING_MISSING)
        merged: dict[str, object] = {key: getattr(old, key) | value for key, value in update.items()}
        out[row] = old.model_copy(update=merged | {"notes": tuple(dict.fromkeys((*kept, *notes)))})
    return out


def _gaps(split: Split) -> dict[str, BoolArray]:
    return {name: gaps for name in split.names if (gaps := split.gaps(name)) is not None}


def _how(model: Model, name: str) -> str:
    if model.latent_space.codecs[name].filling() is None:
        return " by interpolation: the model was trained without anything better"
    return ""


def _with_gaps(split: Split, name: str, row: int, arrays: FloatArray) -> FloatArray:
    """One sample's array as the data gave it: lost frames NaN."""
    lost = split.lost.get(name)
    return arrays[row] if lost is None else np.where(lost[row][:, None], np.float32(np.nan), arrays[row])


def _emerging(
    model: Model, execution: Execution, name: str, rows: IntArray, lengths: IntArray | None
) -> FloatArray:
    """How an estimate takes shape: z_0|t of draw 0 step by step, decoded and made small.

    Returns:
        (rows, steps, ...): the steps that ``spaced`` names, each a ``thumbnail``; in standard units, a
        sound's as its spectrogram's brightness.
    """
    path, codec = execution.paths[name], model.latent_space.codecs[name]
    steps = spaced(len(path.clean), STEPS_SHOWN)
    residuals = torch.cat([path.clean[step][rows] for step in steps]).to(model.device)
    anchors = execution.anchors[name][rows].repeat(len(steps), 1)
    latents = model.executor.latent_estimate(name, residuals, anchors)
    inside = None if lengths is None else np.tile(lengths[rows], len(steps))
    standard, shape = model.latent_space.standard(name, latents, inside), codec.spec.shape
    if codec.standard_size(codec.spec) != codec.spec.size:
        pictures = codec.pictures(standard)
        assert pictures is not None
        standard, shape = np.asarray(pictures / 255, np.float32), pictures.shape[1:]
    small = thumbnail(standard.reshape(-1, *shape), block_sizes(shape, CELLS_SHOWN))
    return small.reshape(len(steps), len(rows), *small.shape[1:]).swapaxes(0, 1)


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
    model: Model, split: Split, told: Mapping[str, tuple[IntArray, IntArray]]
) -> tuple[dict[str, IntArray], dict[str, list[str]]]:
    """Frames of each padded sequence: its own where known, an aligned one's, else the training median.

    And samples of each reconstructed sound, which its decoded standard rows tell.

    Args:
        model: Whose training medians they are.
        split: The samples.
        told: Modality to the rows that miss it, and their lengths.
    """
    lengths, source = {}, {}
    for name, (missing, made) in told.items():
        lengths[name], source[name] = np.zeros(len(split), dtype=np.int64), [MADE] * len(split)
        lengths[name][missing] = made
    frames = {spec.name: spec.shape[0] for spec in split.modalities if spec.kind == "sequence"}
    for name in model.config.median_lengths.keys() & frames.keys():
        median = model.config.median_lengths[name]
        rows = np.full(len(split), min(median, frames[name]), dtype=np.int64)
        words = ["training median"] * len(split)
        for row in range(len(split)):
            if split.observed[name][row] and name in split.lengths:
                rows[row], words[row] = split.lengths[name][row], "input"
                continue
            for other, given in split.lengths.items():
                if other != name and split.observed[other][row] and frames.get(other) == frames[name]:
                    rows[row], words[row] = given[row], f"aligned with {other}"
                    break
        lengths[name], source[name] = rows, words
    return lengths, source


def _masked(array: FloatArray, lengths: IntArray | None) -> FloatArray:
    """Zeros past a sequence's length."""
    if lengths is None:
        return array
    inside = np.arange(array.shape[1])[None] < lengths[:, None]
    return np.asarray(array * inside[..., None], dtype=np.float32)


def _errors(
    model: Model,
    batch: LoadedBatch,
    name: str,
    points: FloatArray,
    decoded: FloatArray,
    place: Mapping[int, int],
) -> dict[int, ReconstructionError]:
    """Row to error against the truth that was hidden; a sound's in standard units, of its spectrogram.

    Args:
        model: For standard units.
        batch: The samples.
        name: The modality.
        points: (rows that miss it, ...).
        decoded: The same in standard units, as they were decoded.
        place: Where a row stands among these.
    """
    split, codec = batch.split, model.latent_space.codecs[name]
    rows = np.flatnonzero(batch.hidden[name])
    at_rows = [place[row] for row in rows.tolist()]
    truth, guess = batch.truth[name][rows], points[at_rows]
    length = split.lengths[name][rows] if name in split.lengths else None
    lost = split.lost[name][rows] if name in split.lost else None
    mask: BoolArray = codec.scored(Rows(truth, length, lost))
    standard_truth = codec.standard(Rows(truth, length))
    if mask.shape[1] == codec.spec.size:
        standard_guess = codec.standard(Rows(guess, length))
    else:  # a spectrogram stands for a sound: what it was decoded from says more than its samples
        standard_guess = decoded[at_rows]
        truth, guess = standard_truth, standard_guess
    errors: dict[int, ReconstructionError] = {}
    for index, row in enumerate(rows.tolist()):
        at, scored = slice(index, index + 1), mask[index]
        ratio = normalised_squared_error(standard_guess[at], standard_truth[at], scored[None])
        if ratio.value is None:  # none of its features varies in training: there is nothing to score
            continue
        difference = (truth[index] - guess[index]).reshape(-1)[scored].astype(np.float64)
        errors[row] = ReconstructionError(
            squared_error=float(ratio.numerator[0]),
            squared_deviation=float(ratio.denominator[0]),
            nmse=ratio.value,
            mse=float(np.mean(difference**2)),
        )
    return errors


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
