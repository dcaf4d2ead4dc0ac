"""Pictures of a study: every method's distance from the exact posterior, and what is followed."""

from __future__ import annotations

from pathlib import Path

from omg_graph.study.figures import GAINED, METRICS, SettingFigures
from omg_graph.study.report import GOALS
from omg_graph.study.runs import EXACT


def draw_setting(item: SettingFigures, folder: Path) -> Path:
    """One PNG: both ratios for every method and subset, with intervals, the goal and the exact posterior."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in next(iter(item.methods.values())) if not name.startswith(EXACT)]
    figure, axes = pyplot.subplots(
        1, len(GAINED), figsize=(10, 1.2 + 0.34 * len(names)), sharey=True, layout="constrained"
    )
    for panel, metric in zip(axes, GAINED, strict=True):
        for number, (subset, methods) in enumerate(item.methods.items()):
            places = [place + 0.25 * number for place in range(len(names))]
            found = [methods[name][metric] for name in names]
            panel.errorbar(
                [figure.value for figure in found],
                places,
                xerr=[
                    [max(figure.value - figure.low, 0.0) for figure in found],
                    [max(figure.high - figure.value, 0.0) for figure in found],
                ],
                fmt="o",
                capsize=2,
                markersize=4,
                label=subset,
            )
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.axvline(GOALS[metric], color="grey", linewidth=0.8, linestyle="--")
        panel.set_xlabel(METRICS[metric])
        panel.grid(alpha=0.3)
    axes[0].set_yticks(range(len(names)), names, fontsize="small")
    axes[0].invert_yaxis()
    axes[-1].legend(fontsize="small")
    figure.suptitle(f"{item.name}: exact posterior at 1, goal dashed")
    path = folder / f"{item.name}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
