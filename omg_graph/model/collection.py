"""A folder of models that were trained together, and the file that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from omg_graph.errors import ModelError
from omg_graph.files import write_atomically

MODELS = "models.json"
FORMAT_VERSION = 1


class NamedModel(BaseModel):
    """One of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Inside the folder of models: ``seed-0``, ``fold-0`` or ``fold-0/seed-0``."""
    seed: int
    fold: int | None = None
    """Which fold it holds out, from 0; None where nothing is cross-validated."""
    fingerprint: str = ""
    """Empty until it is trained."""


class ModelCollection(BaseModel):
    """The models, and what they were asked to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    request: dict[str, Any]
    """Digests of data and settings: two equal ones ask for the same models."""
    folds: int | None = None
    models: tuple[NamedModel, ...]

    @property
    def finished(self) -> bool:
        """Whether all of them are trained."""
        return all(model.fingerprint for model in self.models)

    def with_fingerprint(self, folder: str, fingerprint: str) -> ModelCollection:
        """The same with one more model trained."""
        models = tuple(
            model.model_copy(update={"fingerprint": fingerprint}) if model.folder == folder else model
            for model in self.models
        )
        return self.model_copy(update={"models": models})

    def write(self, folder: Path) -> None:
        """Write the file atomically: a concurrent reader sees the old or the new one, complete."""
        content = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        write_atomically(folder / MODELS, content.encode())


def read_collection(folder: str | Path) -> ModelCollection | None:
    """What a folder of models holds; None if it isn't one.

    Raises:
        ModelError: if the file can't be read, or names what lies elsewhere.
    """
    path = Path(folder) / MODELS
    if not path.is_file():
        return None
    try:
        collection = ModelCollection.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise ModelError(f"{path} can't be read: train the models again, or copy the folder whole") from error
    if collection.format_version != FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {collection.format_version}, this program reads {FORMAT_VERSION}: "
            "train the models again, or use the version that wrote it"
        )
    for model in collection.models:
        if Path(model.folder).is_absolute() or ".." in Path(model.folder).parts:
            raise ModelError(f"{path} names a model outside its folder: {model.folder}")
    return collection
