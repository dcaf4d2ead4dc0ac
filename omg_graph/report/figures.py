"""What the page draws of a reconstruction: arrays chosen, brought to one scale, made small and packed."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from omg_graph.record.artifacts import Array, block_sizes, spaced, thumbnail
from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import Trajectory

Kind = Literal["bars", "curve", "heat", "image"]

FEATURES = 20
"""The most features that get a bar of their own."""

NAMED_ROWS = 24
"""The most rows of a heat map that there is room to name."""

NAME_LENGTH = 60

FEWEST = 64
"""Numbers of an array that are shown in any case."""

FEWEST_STEPS = 5


@dataclass(frozen=True)
class Detail:
    """How much of it a page has room for."""

    cells: int = 2048
    """The most numbers of an array."""
    step_cells: int = 900
    """The most numbers of the clean estimate at one step."""
    steps: int = 25
    """The most steps that show it."""

    def scaled(self, share: float) -> Detail:
        """A share of it."""
        return Detail(
            max(FEWEST, int(self.cells * share)),
            max(FEWEST, int(self.step_cells * share)),
            max(FEWEST_STEPS, int(self.steps * share**0.5)),
        )


@dataclass(frozen=True)
class Look:
    """What one modality of a run looks like, the same for all of its samples."""

    shape: tuple[int, ...]
    kind: Kind
    scale: tuple[Array, Array] | None
    """Training mean and deviation, where numbers are shown in deviations from the mean."""
    names: tuple[str, ...] | None
    units: tuple[str, ...] | None


def look(run: SavedRun, name: str, shape: tuple[int, ...], picture: tuple[int, int] | None) -> Look:
    """Decide how a modality is drawn: bars, a curve, a heat map or an image.

    Args:
        run: The results.
        name: The modality.
        shape: Of one sample.
        picture: Rows and columns, for a vector that is the pixels of an image.
    """
    facts = run.facts
    kinds = {} if facts is None else {spec.name: spec.kind for spec in facts.modalities}
    guess = {1: "vector", 2: "sequence"}.get(len(shape), "image")
    kind = kinds.get(name, guess)
    if kind == "sequence" and shape[0] == 1:
        shape, kind = shape[1:], "vector"
    if picture is not None and kind == "vector" and picture[0] * picture[1] == shape[0]:
        return Look(picture, "image", None, None, None)
    if kind == "image":
        return Look(shape, "image", None, None, None)
    names = None if facts is None else facts.feature_names.get(name)
    units = None if facts is None else facts.feature_units.get(name)
    drawn: Kind = "heat" if kind == "sequence" else "bars" if names or shape[0] <= FEATURES else "curve"
    return Look(shape, drawn, run.arrays.scale(name), names, units)


def figures(run: SavedRun, trajectory: Trajectory, name: str, look: Look, detail: Detail) -> dict[str, Any]:
    """The data of one modality's pictures; ``lacking`` where its arrays aren't there.

    Args:
        run: The results.
        trajectory: Of the sample.
        name: A missing modality of it.
        look: How it is drawn.
        detail: How much of it.
    """
    arrays = _arrays(run, trajectory, name, look)
    data = drawing(arrays, name, look, detail)
    norms = (trajectory.denoising or {}).get(name, ())
    data["norms"] = {
        "timestep": [step.timestep for step in norms],
        "state": [rounded(step.state_norm) for step in norms],
        "clean": [rounded(step.clean_norm) for step in norms],
        "change": [rounded(step.clean_change) for step in norms],
    }
    data["path"] = _path(run, trajectory, name)
    data["steps"] = None if data["lacking"] else _steps(run, trajectory, name, look, detail)
    return data


def changed(
    runs: tuple[SavedRun, SavedRun], sample_id: str, name: str, detail: Detail
) -> dict[str, Any] | None:
    """The data of a picture of what two runs made of one modality; None where arrays aren't there.

    Args:
        runs: The one before and the one after.
        sample_id: Of a sample that both have.
        name: A modality that both reconstructed.
        detail: How much of it.
    """
    before, after = (run.trajectory(sample_id) for run in runs)
    if name not in before.reconstruction or name not in after.reconstruction:
        return None
    seen = look(runs[0], name, before.reconstruction[name].shape, None)
    first = runs[0].arrays.find(before.reconstruction[name])
    second = runs[1].arrays.find(after.reconstruction[name])
    if first is None or second is None or first.shape != second.shape:
        return None
    length = max(before.lengths.get(name, 0), after.lengths.get(name, 0)) or None
    shown = {"truth": _shown(first, seen, length), "estimate": _shown(second, seen, length)}
    words = {"truth": "before", "estimate": "after"}
    return drawing(shown, name, seen, detail, moved=True) | {"words": words}


def drawing(
    arrays: Mapping[str, Array], name: str, look: Look, detail: Detail, *, moved: bool = False
) -> dict[str, Any]:
    """The data of the picture of one modality's arrays.

    Args:
        arrays: ``estimate`` and what it is compared with, as ``look`` shows them.
        name: The modality.
        look: How it is drawn.
        detail: How much of it.
        moved: Of many features, whether those are shown that lie furthest from ``truth``, not from the mean.
    """
    data: dict[str, Any] = {"name": visible(name), "kind": look.kind, "standard": look.scale is not None}
    data["lacking"] = "estimate" not in arrays
    if data["lacking"]:
        return data
    shape = arrays["estimate"].shape
    blocks = block_sizes(shape, detail.cells)
    small = {key: thumbnail(array, blocks) for key, array in arrays.items()}
    data |= {
        "size": list(shape),
        "blocks": list(blocks),
        "all": bundle(small, "curve" if look.kind in ("bars", "curve") else "picture"),
        "limit": _limit(small, look),
    }
    if look.kind == "bars":
        data["bars"] = _bars(arrays, look, moved)
    if look.kind == "heat" and look.names is not None and shape[1] <= NAMED_ROWS and blocks[1] == 1:
        data["names"] = [_feature(look, index) for index in range(shape[1])]
    return data


def interval(draws: int) -> float:
    """The share of values that lie between the smallest and the largest of so many exchangeable draws."""
    return (draws - 1) / (draws + 1)


def _arrays(run: SavedRun, trajectory: Trajectory, name: str, look: Look) -> dict[str, Array]:
    refs = trajectory.arrays
    found = {
        "estimate": run.arrays.find(trajectory.reconstruction.get(name)),
        "truth": run.arrays.find(refs.get(f"truth/{name}")),
        "nearest": run.arrays.find(refs.get(f"nearest/{name}")),
    }
    draws = run.arrays.find(refs.get(f"draws/{name}"))
    if draws is not None:
        found |= {"low": draws.min(axis=0), "high": draws.max(axis=0)}
    length = trajectory.lengths.get(name)
    return {key: _shown(array, look, length) for key, array in found.items() if array is not None}


def _shown(array: Array, look: Look, length: int | None) -> Array:
    """An array as it is drawn: in deviations, without padded frames, an image with one channel or three."""
    shaped: Array = np.asarray(array, np.float32).reshape(look.shape)
    if look.kind == "image":
        return shaped.mean(axis=0) if shaped.ndim == 3 and len(shaped) != 3 else shaped
    if look.scale is not None:
        mean, deviation = look.scale
        shaped = (shaped - mean) / deviation
    return shaped if look.kind != "heat" or length is None else shaped[: max(1, length)]


def _limit(small: Mapping[str, Array], look: Look) -> float | None:
    """Where a heat map's colours end: nearly all numbers of estimate and truth lie within."""
    if look.kind != "heat":
        return None
    numbers = np.abs(np.concatenate([small[key].ravel() for key in ("estimate", "truth") if key in small]))
    finite = numbers[np.isfinite(numbers)]
    return rounded(float(np.quantile(finite, 0.98)) or 1.0) if finite.size else 1.0


def _bars(arrays: Mapping[str, Array], look: Look, moved: bool) -> dict[str, Any]:
    """The features whose estimate or truth lies furthest from the training mean, the furthest first."""
    estimate = arrays["estimate"]
    distance = np.abs(np.nan_to_num(estimate))
    if moved:
        distance = np.abs(np.nan_to_num(estimate - arrays["truth"]))
    elif "truth" in arrays:
        distance = np.maximum(distance, np.abs(np.nan_to_num(arrays["truth"])))
    chosen = np.argsort(-distance, kind="stable")[:FEATURES]
    if len(estimate) <= FEATURES:
        chosen = np.arange(len(estimate))
    bars: dict[str, Any] = {
        "index": chosen.tolist(),
        "order": "that moved furthest" if moved else "furthest from the training mean",
        "names": [_feature(look, index) for index in chosen.tolist()],
        "units": [_unit(look, index) for index in chosen.tolist()],
        "series": {key: [rounded(float(array[i])) for i in chosen] for key, array in arrays.items()},
    }
    if look.scale is not None:
        mean, deviation = look.scale
        bars["mean"] = [rounded(float(mean[i])) for i in chosen]
        bars["deviation"] = [rounded(float(deviation[i])) for i in chosen]
    return bars


def _feature(look: Look, index: int) -> str:
    name = look.names[index] if look.names is not None else f"feature {index + 1}"
    return shortened(visible(name), NAME_LENGTH)


def _unit(look: Look, index: int) -> str:
    unit = "" if look.units is None else look.units[index]
    return "" if unit == "1" else shortened(visible(unit), NAME_LENGTH)


def _steps(
    run: SavedRun, trajectory: Trajectory, name: str, look: Look, detail: Detail
) -> dict[str, Any] | None:
    """The clean estimate at the steps that were kept, made smaller still where there are many samples."""
    kept, scale = run.arrays.find(trajectory.arrays.get(f"steps/{name}")), run.arrays.scale(name)
    if kept is None or scale is None:  # they are kept in deviations, which say nothing alone
        return None
    length = trajectory.lengths.get(name)
    if look.kind == "image":
        blocks = tuple(-(-size // small) for size, small in zip(scale[0].shape, kept.shape[1:], strict=True))
        mean, deviation = (thumbnail(array, blocks) for array in scale)
        kept = kept * deviation + mean
        if kept[0].size == np.prod(look.shape):
            kept = kept.reshape(len(kept), *look.shape)
        kept = kept.mean(axis=1) if kept.ndim == 4 and kept.shape[1] != 3 else kept
    elif look.kind == "heat":
        frames = -(-(length or look.shape[0]) * kept.shape[1] // look.shape[0])
        kept = kept[:, : max(1, frames)]
    else:
        kept = kept.reshape(len(kept), -1)
    blocks = block_sizes(kept.shape[1:], detail.step_cells)
    shown = spaced(len(kept), detail.steps)
    small = thumbnail(kept[shown], blocks)
    kept_steps = spaced(len((trajectory.denoising or {})[name]), len(kept))
    steps = [kept_steps[place] for place in shown]
    use = "picture" if look.kind in ("heat", "image") else "curve"
    return {"of": [step + 1 for step in steps], "whole": bool(small[0].size == np.prod(look.shape))} | bundle(
        {"estimate": small}, use
    )


def _path(run: SavedRun, trajectory: Trajectory, name: str) -> dict[str, Any] | None:
    states = run.arrays.find(trajectory.arrays.get(f"path/{name}"))
    clean = run.arrays.find(trajectory.arrays.get(f"clean/{name}"))
    if states is None or clean is None or not (np.isfinite(states).all() and np.isfinite(clean).all()):
        return None
    (way, guesses), shares = principal_directions(states, clean)
    return {
        "states": [[rounded(x), rounded(y)] for x, y in way.tolist()],
        "clean": [[rounded(x), rounded(y)] for x, y in guesses.tolist()],
        "shares": [rounded(share) for share in shares],
    }


Float64 = npt.NDArray[np.float64]


def principal_directions(*paths: Array) -> tuple[list[Float64], tuple[float, float]]:
    """Several paths in the two directions in which their points, taken together, vary most.

    Each direction points to where the first path ends, so that the same path gives the same picture.

    Args:
        paths: (points, dimensions) each.

    Returns:
        Each path as (points, 2), and the share of the variance along either direction.
    """
    stacked = np.concatenate([np.asarray(path, dtype=np.float64) for path in paths])
    centred = stacked - stacked.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    count = min(2, len(directions))
    seen, shares = np.zeros((len(stacked), 2)), np.zeros(2)
    seen[:, :count] = centred @ directions[:count].T
    seen *= np.where(seen[len(paths[0]) - 1] < 0, -1.0, 1.0)
    shares[:count] = lengths[:count] ** 2 / (float((lengths**2).sum()) or 1.0)
    ends = np.cumsum([len(path) for path in paths])[:-1]
    return np.split(seen, ends), (float(shares[0]), float(shares[1]))


LEVELS = {"picture": 0xFF, "curve": 0xFFFF}


def span(arrays: Mapping[str, Array]) -> tuple[float, float]:
    """The least and the largest finite number; (0, 1) where there is none."""
    finite = [part for array in arrays.values() if (part := array[np.isfinite(array)]).size]
    if not finite:
        return 0.0, 1.0
    return float(min(part.min() for part in finite)), float(max(part.max() for part in finite))


def packed(array: Array, low: float, high: float, use: str) -> str:
    """Levels between ``low`` and ``high`` as base64, row by row; the last level stands for no number.

    Args:
        array: Of any shape.
        low: What level 0 stands for.
        high: What the last level but one stands for.
        use: ``picture`` for 255 levels, ``curve`` for 65,535.
    """
    top = LEVELS[use]
    finite = np.isfinite(array)
    share = (np.where(finite, array, low) - low) / ((high - low) or 1.0)
    levels = np.where(finite, np.rint(np.clip(share, 0.0, 1.0) * (top - 1)), top).astype(
        "<u1" if top == 0xFF else "<u2"
    )
    return base64.b64encode(levels.tobytes()).decode("ascii")


def bundle(arrays: Mapping[str, Array], use: str) -> dict[str, Any]:
    """Arrays of one shape on one scale: shape, low, high, levels, and each by its name."""
    low, high = span(arrays)
    shape = next(iter(arrays.values())).shape
    return {
        "shape": list(shape),
        "low": rounded(low),
        "high": rounded(high),
        "levels": LEVELS[use],
        "series": {name: packed(array, low, high, use) for name, array in arrays.items()},
    }


def rounded(number: float) -> float | None:
    """Five significant digits, as JSON can say them: nothing for what isn't finite."""
    return float(f"{number:.5g}") if np.isfinite(number) else None


PICTURES = 0x2400
"""Unicode's pictures of the control characters begin here."""

DELETE = 0x7F
OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
"""Marks that turn the direction of what follows; the page sets each text's direction by its own letters."""


def visible(text: str) -> str:
    """Control characters by their pictures, marks of direction by their codes, halves of letters replaced.

    Letters of any script and joined signs (an emoji of several) stay as they are.
    """
    return "".join(_sign(letter) for letter in text)


def _sign(letter: str) -> str:
    code = ord(letter)
    if letter in OVERRIDES:
        return f"⟨U+{code:04X}⟩"
    category = unicodedata.category(letter)
    if category == "Cs" or (code & 0xFFFF) >= 0xFFFE:
        return "\ufffd"
    if category != "Cc" or letter in "\n\t":
        return letter
    if code == DELETE:
        return "\u2421"
    return chr(PICTURES + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def shortened(text: str, most: int) -> str:
    """At most ``most`` letters, with a sign where more follow."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
