"""Options that several commands share, and the check of a data file that all of them read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from omg_graph.errors import DataError

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Modalities = Annotated[str | None, typer.Option(help="Use only these, e.g. text,audio.", show_default=False)]
Label = Annotated[str | None, typer.Option(help="Which label is the target.", show_default=False)]
FillNonfinite = Annotated[
    Literal["zero", "mean"] | None,
    typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False),
]
PlanSchema = Annotated[
    Path | None, typer.Option(help="A plan schema of your own (YAML).", show_default=False)
]
TextEncoder = Annotated[
    Path | None, typer.Option(help="Folder of the text encoder's weights.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def names_in(text: str | None) -> list[str] | None:
    """Names with commas between; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]


def require_data(option: str, path: Path) -> None:
    """Refuse a data file that isn't there.

    Raises:
        DataError: if it isn't.
    """
    if not path.exists():
        raise DataError(f"{option} {path}: there is no such file: give a pickle or .npz of samples")
