"""A model for a command: the folder that was named, or the embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omg_graph.cli.output import spinner
from omg_graph.errors import ModelError

if TYPE_CHECKING:
    from omg_graph.model.model import Model


def model_folder(given: Path | None) -> Path:
    """The folder given, else the embedded default's.

    Raises:
        ModelError: if none is given and this installation has no default.
    """
    from omg_graph.model.model import default_model_folder

    if given is not None:
        return given
    folder = default_model_folder()
    if not folder.is_dir():
        raise ModelError(
            "the embedded default model was expected and isn't part of this installation: install omg-graph "
            "anew, or name a folder that omg train wrote with --model"
        )
    return folder


def open_model(given: Path | None, text_encoder: Path | None) -> Model:
    """Load a model, checking every byte of it.

    Raises:
        ModelError: if it isn't a whole model.
        EncoderError: if its text encoder isn't to be found.
    """
    with spinner("loading the model"):
        from omg_graph.model.folder import load_model

        return load_model(model_folder(given), text_encoder)
