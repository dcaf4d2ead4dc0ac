"""Two runs of the same samples as a page: tables alone, in one file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from omg_graph.errors import DataError
from omg_graph.files import write_atomically
from omg_graph.report.page import STYLES, asset, environment
from omg_graph.trajectory.comparison import TrajectoryComparison

MOST = 100
"""Samples that one page tells of."""


def write_comparison(
    comparisons: Sequence[TrajectoryComparison], names: tuple[str, str], output: Path
) -> int:
    """Write the page, whole or not at all.

    Args:
        comparisons: What differs, sample by sample; the first 100 are told.
        names: What the two runs are called.
        output: The file to write.

    Returns:
        The size of the page in bytes.

    Raises:
        DataError: if there is no folder to write it into.
    """
    if output.is_dir() or not output.parent.is_dir():
        raise DataError(f"--html {output}: a file in a folder that is there was expected: name one")
    content = (
        environment()
        .get_template("comparison.html")
        .render(
            samples=comparisons[:MOST],
            more=max(0, len(comparisons) - MOST),
            names=names,
            styles=Markup(asset(STYLES)),  # noqa: S704 - our own file
        )
        .encode()
    )
    write_atomically(output, content)
    return len(content)
