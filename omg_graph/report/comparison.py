"""Two runs of the same samples as a page: tables, and both outputs in one picture, in one offline file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from omg_graph.errors import DataError
from omg_graph.files import write_atomically
from omg_graph.record.comparison import TrajectoryComparison
from omg_graph.record.results import SavedRun
from omg_graph.report.figures import Detail, changed
from omg_graph.report.page import DRAWING, LICENCES, STYLES, as_json, asset, environment, policy

MOST = 100
"""Samples that one page shows."""

FULL = 10
"""So many pictures are drawn in full detail; of more, each is coarser."""

SCRIPTS = (*DRAWING, "assets/comparison.js")


def write_comparison(
    comparisons: Sequence[TrajectoryComparison], runs: tuple[SavedRun, SavedRun], output: Path
) -> int:
    """Write the page, whole or not at all.

    Args:
        comparisons: What differs, sample by sample; the first 100 are shown.
        runs: The two, for their names and arrays.
        output: The file to write.

    Returns:
        The size of the page in bytes.

    Raises:
        DataError: if there is no folder to write it into.
    """
    if output.is_dir() or not output.parent.is_dir():
        raise DataError(f"--html {output}: expected a file in an existing folder: name one")
    shown = comparisons[:MOST]
    detail = Detail().scaled(min(1.0, FULL / max(1, sum(len(sample.output) for sample in shown))))
    figures = [_figures(sample, runs, detail) for sample in shown]
    scripts = [Markup(asset(name)) for name in SCRIPTS if any(figures)]  # noqa: S704 - our own files
    content = (
        environment()
        .get_template("comparison.html")
        .render(
            samples=shown,
            figures=figures,
            data=[as_json(drawn) for drawn in figures],
            more=max(0, len(comparisons) - MOST),
            names=[str(run.folder) for run in runs],
            scripts=scripts,
            policy=policy(scripts),
            licences=asset(LICENCES),
            styles=Markup(asset(STYLES)),  # noqa: S704 - our own file
        )
        .encode()
    )
    write_atomically(output, content)
    return len(content)


def _figures(
    sample: TrajectoryComparison, runs: tuple[SavedRun, SavedRun], detail: Detail
) -> list[dict[str, Any]]:
    """One for each modality whose arrays both runs have."""
    drawn = [changed(runs, sample.id, name, detail) for name in sample.output]
    return [figure for figure in drawn if figure is not None]
