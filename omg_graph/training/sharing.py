"""Finished stages that several runs share: each is made once for all that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omg_graph.model.folder import versions

_LATER = ("name", "executor", "objective", "optimiser", "task", "anchor.plan")
_ANCHOR = "anchor"
_CONDITION = "planner.condition"
_CHOICE_OF_PLANS = tuple(
    f"planner.{name}"
    for name in (
        "candidates",
        "include_greedy",
        "temperature",
        "top_p",
        "semantic_weight",
        "schema_penalty",
    )
)
_STUDENT = tuple(
    f"planner.{name}"
    for name in (
        "annotator",
        "width",
        "layers",
        "dropout",
        "epochs",
        "patience",
        "learning_rate",
        "weight_decay",
        "batch_size",
        "reading",
        "degree_spread",
    )
)
_STUDENT_ALONE = tuple(name for name in _STUDENT if name != "planner.annotator")
"""Settings of the student that decide nothing of the plans it learns from."""
_AFTER_STUDENT = (
    *(name for name in _LATER if name != "task"),
    *(
        f"task.{name}"
        for name in ("calibrate", "epochs", "patience", "batch_size", "learning_rate", "weight_decay")
    ),
)
"""The student reads the label reading, and so what decides whether and how there is one."""

_LABEL_ALONE = (
    *_AFTER_STUDENT,
    *_CHOICE_OF_PLANS,
    *_STUDENT_ALONE,  # the annotator decides what the head predicts
    _CONDITION,
    "retriever",
)

UNREAD: dict[str, tuple[str, ...]] = {
    "codecs": (*_LATER, _ANCHOR, "missing_rate", "encoder", "planner", "retriever"),
    "psi": (
        *_LATER,
        _ANCHOR,
        *_CHOICE_OF_PLANS,
        *_STUDENT_ALONE,
        _CONDITION,
        "planner.folds",
        "retriever",
    ),
    "psi-fold": (*_LATER, _ANCHOR, *_CHOICE_OF_PLANS, *_STUDENT_ALONE, _CONDITION, "retriever"),
    "student": (*_AFTER_STUDENT, *_CHOICE_OF_PLANS, _CONDITION, "retriever"),
    "student-fold": (*_AFTER_STUDENT, *_CHOICE_OF_PLANS, _CONDITION, "retriever"),
    "pairs": (*_AFTER_STUDENT, _CONDITION, "retriever"),
    "gaussian": (*_LATER, _ANCHOR, *_CHOICE_OF_PLANS, *_STUDENT, _CONDITION, "encoder", "retriever"),
    "kernel": (*_LATER, *_CHOICE_OF_PLANS, *_STUDENT, _CONDITION, "encoder", "retriever"),
    "label-reader": (*_LABEL_ALONE, "encoder"),
    "direct": _LABEL_ALONE,
    "query": _AFTER_STUDENT,
}
"""Stages that can be shared, and the settings that each doesn't read.

What isn't named here counts, so that a new setting is never overlooked: stages are then made once too often
rather than shared wrongly. The executor isn't among them: it reads everything.
"""

_FROM_STUDENT = ("student-fold", "pairs", "query")
AFTER: dict[str, tuple[str, ...]] = {
    "codecs": ("psi", "psi-fold", "student", *_FROM_STUDENT, "gaussian", "kernel", "label-reader", "direct"),
    "psi": ("psi-fold", "student", *_FROM_STUDENT),
    "psi-fold": ("student", *_FROM_STUDENT),
    "student": _FROM_STUDENT,
    "student-fold": ("pairs", "query"),
    "pairs": ("query",),
    "gaussian": ("kernel", "label-reader", "direct", "student", *_FROM_STUDENT),
    "kernel": (),
    "label-reader": ("direct", "student", *_FROM_STUDENT),
    "direct": (),
    "query": (),
}
"""The stages that are made from each."""


class SharedStages:
    """A folder of finished stages, each under the digest of all that it depends on.

    It is safe for runs that go on at the same time: a stage appears whole, and two that make the same one
    make the same bytes.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        rows: Mapping[str, Any],
        seed: int,
        own: Collection[str] = (),
    ) -> None:
        """Say what a run depends on.

        Args:
            folder: where the stages lie; it is made when the first is kept.
            settings: the training configuration as JSON.
            rows: what tells the run's data, and the rows it trains and chooses on, from others.
            seed: the run's.
            own: stages that this run makes in a way of its own. Neither they nor what is made from them is
                taken or given.
        """
        self.folder = folder
        self.own = {later for stage in own for later in (stage, *AFTER.get(stage, ()))}
        self._facts = {"rows": dict(rows), "versions": _versions()}
        self._settings, self._seed = settings, seed

    def under(self, settings: Mapping[str, Any], own: Collection[str] = ()) -> SharedStages:
        """The same folder, for a run of the same rows and seed under other settings."""
        return SharedStages(self.folder, settings, self._facts["rows"], self._seed, own)

    def path(self, stage: str) -> Path | None:
        """Where a stage lies, made or not; None if it isn't shared."""
        kind = re.sub(r"-fold-\d+$", "-fold", stage)
        if kind not in UNREAD or kind in self.own:
            return None
        settings = _without(self._settings, UNREAD[kind])
        facts: dict[str, Any] = self._facts | {"stage": stage, "settings": settings}
        if not (kind == "codecs" and settings["autoencoder"]["kind"] == "pca"):  # PCA draws nothing
            facts |= {"seed": self._seed}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{stage}-{digest[:24]}.safetensors"

    def lend(self, stage: str, target: Path) -> bool:
        """Put a finished stage at ``target``; False if nobody has made it."""
        kept = self.path(stage)
        if kept is None or not kept.is_file():
            return False
        _link(kept, target)
        return True

    def keep(self, stage: str, made: Path) -> None:
        """Take in a stage that is finished."""
        kept = self.path(stage)
        if kept is not None and not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            _link(made, kept)


@cache
def _versions() -> dict[str, str]:
    return versions()


def _without(settings: Mapping[str, Any], unread: Collection[str]) -> dict[str, Any]:
    """The settings but for those, which are named with dots."""
    here = {name for name in unread if "." not in name}
    left: dict[str, Any] = {}
    for name, value in settings.items():
        if name in here:
            continue
        inner = [path.split(".", 1)[1] for path in unread if path.startswith(f"{name}.")]
        left[name] = _without(value, inner) if inner else value
    return left


def _link(source: Path, target: Path) -> None:
    """One more name for a file, or a copy where the file system has no such thing; it appears whole."""
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        try:
            os.link(source, made / target.name)
        except OSError:
            shutil.copyfile(source, made / target.name)
        (made / target.name).replace(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
