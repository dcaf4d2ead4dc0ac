"""Cached weights of baselines as plain arrays, so that a repeated evaluation trains nothing again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from omg_graph.evaluation import floor_data, floors
from omg_graph.evaluation.floor_data import TrainingRows
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.files import write_atomically
from omg_graph.predictor import task
from omg_graph.retriever.index import cache_folder
from omg_graph.training import fitting as training_loop

Arrays = dict[str, npt.NDArray[Any]]
FOLDER = "floors"

OnProgress = Callable[[str, int, int], None]
"""Called with what is fitted, how much of it is done, and of how much."""


class FittedCache:
    """Fitted arrays in a folder, a file for each; what was fitted is what its key says, never another.

    A key covers the training rows, the target, the floor with its settings and seed, and the code that fits
    it. A file that can't be read is fitted anew; a folder that can't be written costs the next run its time.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Files go to ``folder``, else to ``floors`` in the cache folder."""
        self.folder = cache_folder() / FOLDER if folder is None else folder
        self.fitted = 0
        """Fits that were made, of all that were asked for."""
        self.found = 0
        """Fits that were there already."""
        self.degraded: str | None = None
        """Why fits aren't kept, in words; None if they are."""

    @property
    def note(self) -> str:
        """What it was asked for, in a line."""
        kept = "" if self.degraded is None else f"; none is kept: {self.degraded}"
        return f"trained floors: {self.fitted} fits made, {self.found} read from the cache{kept}"

    def arrays(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays under a key, made where they are not there yet."""
        path = self.folder / f"{key}.safetensors"
        try:
            found: Arrays = load(path.read_bytes())
        except (OSError, SafetensorError, ValueError):
            made = make()
            self.fitted += 1
            self._keep(path, made)
            return made
        self.found += 1
        return found

    def _keep(self, path: Path, made: Arrays) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({name: np.ascontiguousarray(part) for name, part in made.items()}))
        except OSError as error:  # no error of the evaluation's: nothing but time is lost
            self.degraded = f"the cache folder {self.folder} can't be used ({error.strerror})"


@dataclass(frozen=True)
class Fitting:
    """What trained floors share: the seed, the cache, and a callback for progress."""

    seed: int = 0
    cache: FittedCache = field(default_factory=FittedCache)
    on_progress: OnProgress = lambda _what, _done, _of: None

    def arrays(
        self,
        floor: str,
        settings: Mapping[str, Any],
        rows: TrainingRows,
        target: LabelTarget,
        make: Callable[[], Arrays],
    ) -> Arrays:
        """What a floor has learned from these rows, from the cache or anew.

        Args:
            floor: its name.
            settings: all that it depends on beside rows, target and seed; JSON can hold it.
            rows: what it learns from.
            target: what labels mean.
            make: fits it.
        """
        about = json.dumps(
            {
                "floor": floor,
                "settings": dict(settings),
                "seed": self.seed,
                "target": [target.family, target.names, target.degrees],
                "rows": digest_of(rows),
                "code": code_digest(),
            },
            sort_keys=True,
        )
        return self.cache.arrays(hashlib.sha256(about.encode()).hexdigest()[:40], make)


def digest_of(rows: TrainingRows) -> str:
    """A fingerprint of all that a floor may learn from."""
    found = hashlib.sha256()
    for name, part in rows.latents.items():
        # single precision is what latents are computed in; more digits differ between machines
        found.update(f"{name} {part.shape}".encode())
        found.update(np.ascontiguousarray(part, np.float32).tobytes())
    found.update(np.packbits(rows.observed).tobytes())
    found.update(np.ascontiguousarray(rows.labels, np.float64).tobytes())
    found.update("\x1f".join((*rows.ids, "\x1e", *rows.groups)).encode())
    return found.hexdigest()


@cache
def code_digest() -> str:
    """A fingerprint of the code that fits floors, so that a changed method is never taken for the old one."""
    modules = (floors, floor_data, task, training_loop)
    paths = [*sorted(Path(__file__).parent.glob("*.py")), *(Path(str(module.__file__)) for module in modules)]
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()
