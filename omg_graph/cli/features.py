"""What a reconstruction amounts to in words: the named features that differ most from the training mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_graph.cli.output import cell

if TYPE_CHECKING:
    from rich.table import Table

    from omg_graph.record.artifacts import Array
    from omg_graph.record.results import SavedRun

FEATURES_SHOWN = 6
BAR = 10
"""Characters of the longest bar."""


def feature_table(run: SavedRun, name: str, values: Array) -> Table | None:
    """The features that differ most from their training mean, in deviations; None where they have no names.

    Args:
        run: The results they belong to.
        name: Whose features these are.
        values: One sample of the modality, (features,), in the input's units.
    """
    import numpy as np
    from rich.table import Table

    names = None if run.facts is None else run.facts.feature_names.get(name)
    scale = run.scale(name)
    if run.facts is None or names is None or scale is None or values.ndim != 1:
        return None
    units = run.facts.feature_units.get(name, ("",) * len(names))
    mean, deviation = scale
    distance = (values - mean) / deviation
    table = Table(
        title=cell(f"furthest from the training mean (in deviations, sd) of {len(names)} {name} features"),
        title_justify="left",
        title_style="",
    )
    table.add_column("feature")
    for head in ("estimate", "mean"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("sd", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = np.argsort(-np.abs(distance), kind="stable")[:FEATURES_SHOWN]
    longest = max(float(np.abs(distance[shown]).max()), 1e-12)
    for index in shown.tolist():
        bar = "█" * max(1, round(BAR * abs(float(distance[index])) / longest))
        table.add_row(
            cell(names[index]),
            cell(f"{values[index]:.3g}"),
            cell(f"{mean[index]:.3g}"),
            cell("" if units[index] == "1" else units[index]),
            cell(f"{distance[index]:+.2f}"),
            cell(bar, "green" if distance[index] > 0 else "red"),
        )
    return table
