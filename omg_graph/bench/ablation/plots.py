"""Pictures of an ablation: differences from the method, sensitivity, gradients over training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omg_graph.bench.ablation.gradients import SEMANTIC
from omg_graph.bench.ablation.page import RATES, metrics_of
from omg_graph.bench.ablation.results import AblationResults, course
from omg_graph.bench.ablation.runs import PROTOCOLS
from omg_graph.bench.ablation.variants import DEFAULT, ENTRIES, TASK_WEIGHTS, Variant
from omg_graph.evaluation.report import TITLES


def draw_plots(results: AblationResults, folder: Path) -> list[Path]:
    """A PNG for each picture that there are figures for.

    Args:
        results: the figures.
        folder: where they go; it is made.
    """
    if DEFAULT not in results.measured:
        return []
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []

    def save(figure: Any, name: str) -> None:
        made.append(folder / f"{name}.png")
        figure.savefig(made[-1], dpi=100)
        pyplot.close(figure)

    names = [
        name
        for name, entry in results.entries.items()
        if isinstance(entry, Variant) and name != DEFAULT and name in results.measured
    ]
    for metric in metrics_of(results)[:1] if names else ():
        figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(names)), layout="constrained")
        _differences(axes, results, metric, names)
        save(figure, "differences")
    for name, values, label in (
        ("top-k", ENTRIES, "K, entries of evidence"),
        ("task-weight", TASK_WEIGHTS, "lambda_task"),
    ):
        if sum(f"{name}-{value:g}" in results.measured for value in values) > 1:
            figure, axes = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
            _sensitivity(axes, results, name, values)
            axes.set_xlabel(label)
            save(figure, name)
    if results.gradients:
        figure, axes = pyplot.subplots(1, len(SEMANTIC), figsize=(9, 3.6), sharey=True, layout="constrained")
        for place, loss in zip(axes, SEMANTIC, strict=True):
            _gradients(place, results, loss)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
        save(figure, "gradients")
    return made


def _differences(axes: Any, results: AblationResults, metric: str, names: list[str]) -> None:
    scale = 100.0 if metric in RATES else 1.0
    for number, protocol in enumerate(PROTOCOLS):
        for place, name in enumerate(names):
            found = results.measured[name].figures[protocol].change(metric)
            if found is None:
                continue
            gap, height = found.difference, place + 0.2 * (2 * number - 1)
            if gap.low == gap.low:
                axes.plot([scale * gap.low, scale * gap.high], [height] * 2, color=f"C{number}", alpha=0.6)
            label = protocol if place == 0 else None
            axes.plot(scale * gap.value, height, "o", color=f"C{number}", label=label, markersize=4)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(f"{TITLES.get(metric, metric)} less that of the method")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small")


def _sensitivity(axes: Any, results: AblationResults, name: str, values: tuple[float, ...]) -> None:
    for number, metric in enumerate(metrics_of(results)[:2]):
        scale = 100.0 if metric in RATES else 1.0
        points = []
        for place, value in enumerate(values):
            found = results.measured.get(f"{name}-{value:g}")
            figure = None if found is None else found.figures["random"].averaged(metric)
            if figure is not None:
                points.append((place, scale * figure.value, scale * figure.low, scale * figure.high))
        places, middle, low, high = zip(*points, strict=True)
        axes.plot(places, middle, "o-", color=f"C{number}", label=TITLES.get(metric, metric))
        axes.fill_between(places, low, high, color=f"C{number}", alpha=0.15)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _gradients(axes: Any, results: AblationResults, loss: str) -> None:
    for number, (name, records) in enumerate(results.gradients.items()):
        points = course(records, loss)
        if points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, color=f"C{number}", label=name)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"cosine of L_{loss} and the noise loss")
    axes.grid(alpha=0.3)
