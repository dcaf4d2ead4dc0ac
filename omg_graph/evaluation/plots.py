"""Pictures of an evaluation: each metric condition by condition, or against the missing rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from omg_graph.evaluation.report import title
from omg_graph.evaluation.summary import Summary

HOW_TO_GET = "plots were left out: install the extra for them with pip install 'omg-graph[bench]'"
METRICS = ("acc2", "acc7", "acc5", "accuracy", "mae", "nmse", "energy_score")
"""Those that are drawn, where they are measured."""


def plots_available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_plots(summary: Summary, rates: Mapping[str, float], folder: Path) -> list[Path]:
    """A PNG for each metric: the model and every floor, with their intervals.

    Args:
        summary: the figures.
        rates: condition to missing rate, where conditions are points on that axis; else they are categories.
        folder: where the files go; it is made.

    Returns:
        The files.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for metric in (name for name in METRICS if summary.averaged(summary.methods[0], name) is not None):
        figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
        shown = [
            name
            for name in summary.conditions
            if any((method, metric, name) in summary.figures for method in summary.methods)
        ]
        numeric = bool(rates) and all(name in rates for name in shown)
        places = [rates[name] for name in shown] if numeric else list(range(len(shown)))
        step = np.ptp(places) / max(len(places) - 1, 1) if numeric else 1.0
        for number, method in enumerate(summary.methods):
            # side by side, so that no interval hides another
            shift = 0.6 * step * (number / len(summary.methods) - 0.5)
            shifted = [place + shift for place in places]
            _draw_method(axes, summary, metric, method, shown, shifted, number, joined=numeric)
        if numeric:
            axes.set_xlabel("missing rate")
        else:
            axes.set_xticks(places, shown, rotation=30, ha="right")
            axes.set_xlabel("condition")
        axes.set_ylabel(title(metric, summary))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        path = folder / f"{metric}.png"
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        made.append(path)
    return made


def _draw_method(
    axes: object,
    summary: Summary,
    metric: str,
    method: str,
    conditions: Sequence[str],
    places: Sequence[float],
    number: int,
    *,
    joined: bool,
) -> None:
    figures = [summary.figures.get((method, metric, name)) for name in conditions]
    values = np.array([np.nan if figure is None else figure.value for figure in figures])
    low = np.array([np.nan if figure is None else figure.low for figure in figures])
    high = np.array([np.nan if figure is None else figure.high for figure in figures])
    first = number == 0
    spread = np.stack([(values - low).clip(min=0), (high - values).clip(min=0)])
    axes.errorbar(  # type: ignore[attr-defined]
        places,
        values,
        yerr=np.nan_to_num(spread),
        label=method,
        marker="o",
        markersize=6 if first else 4,
        linestyle="-" if joined else "none",
        linewidth=2.2 if first else 0.8,
        elinewidth=1.4 if first else 0.8,
        alpha=1.0 if first else 0.65,
        color="black" if first else f"C{number - 1}",
        zorder=3 if first else 2,
        capsize=2,
    )
