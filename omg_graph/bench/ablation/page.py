"""The results as Markdown and pictures: the paper's figures and tables of ablations, its numbers beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omg_graph.bench.ablation.gradients import SEMANTIC
from omg_graph.bench.ablation.results import AblationResults, conflicts, course
from omg_graph.bench.ablation.runs import PROTOCOLS
from omg_graph.bench.ablation.variants import DEFAULT, ENTRIES, TASK_WEIGHTS, Part, Printed, Swap, Variant
from omg_graph.bench.paper.comparison import FAMILY, NAMES
from omg_graph.bench.paper.tables import Dataset, paper_tables
from omg_graph.evaluation.intervals import Difference, Interval
from omg_graph.evaluation.report import TITLES, figure_text, plain, table_head, table_line

NOT_SHOWN = "no difference shown"
HEADLINES = {
    "classes": ("accuracy", "macro_f1"),
    "number": ("mae",),
    "none": (),
    "sims": ("acc2", "f1", "acc5"),
    "mosi": ("acc2", "f1", "acc7"),
}
"""Metrics of the label that tables show, by family; ``nmse`` beside them."""
RATES = frozenset({"acc2", "f1", "acc7", "acc3", "acc5", "accuracy", "macro_f1", "acc2_has0", "f1_has0"})
"""Metrics in percent, as the paper prints them."""
OURS = ("Ours", "Plan-Driven Retrieval")
"""What the paper's tables call its method."""
SECTIONS: tuple[tuple[Part, str], ...] = (
    ("architecture", "Planner, re-ranking, retriever, attention (Figure 4)"),
    ("regularisation", "Losses of the instruction (Table 3)"),
    ("task", "The task loss (Table 3)"),
    ("retrieval", "What the query is made of (appendix, Table 3)"),
    ("injection", "Where plan and evidence enter (appendix, Table 4)"),
    ("entries", "K, entries of evidence (Figure 5)"),
    ("task weight", "lambda_task (Figure 6)"),
)


def page(results: AblationResults) -> str:
    """Everything measured so far."""
    request = results.request
    lines = [f"# Ablations on {plain(request.data.name)}", "", *(f"- {fact}" for fact in facts(results)), ""]
    if DEFAULT not in results.measured:
        return "\n".join([*lines, "Nothing is finished yet.", ""])
    for part, title in SECTIONS:
        lines += section(results, part, title)
    lines += swap_section(results)
    lines += gradient_section(results)
    lines += floor_section(results)
    return "\n".join(lines)


def facts(results: AblationResults) -> list[str]:
    """What the figures rest on."""
    request, done = results.request, results.measured.get(DEFAULT)
    seeds = 0 if done is None else len(done.seeds)
    named = "" if done is None else f" ({', '.join(map(str, done.seeds))})"
    facts = [
        f"{seeds} of {results.wanted} seeds{named}; epochs of the executor at most "
        f"{request.base().optimiser.epochs}; configuration {request.config or 'default'}",
        f"random: missing rate {request.missing_rate:g}, {request.mask_seeds} masks; fixed: every pattern, "
        "averaged; metrics in percent, except NMSE, MAE and other errors",
        "every variant is trained from scratch with the same seeds and budget; unchanged stages are shared",
        "95 % intervals in brackets; differences (Δ) are the variant minus the method, on the same samples, "
        f"masks and seeds; ▲ better, ▼ worse, without a mark: {NOT_SHOWN}; intervals aren't corrected for "
        "multiple comparisons: about one of twenty excludes zero by chance",
    ]
    if request.folds is not None:
        facts.append(f"cross-validated by group in {request.folds} folds, with everything refitted in each")
    if request.paper is not None and done is not None and results.family != FAMILY:
        facts.append(f"no paper beside: its figures are of sentiment, the metrics here are {results.family}")
    if results.reranked is not None:
        facts.append(
            f"re-ranking (Eq. 5) chose another plan than the most probable one in "
            f"{100 * results.reranked:.1f} % of the samples (random)"
        )
    return [*facts, *(f"{protocol}: {note}" for protocol, note in results.notes.items())]


def metrics_of(results: AblationResults) -> tuple[str, ...]:
    """Those of the label, and the reconstruction's."""
    wanted = (*HEADLINES.get(results.family, ("acc2",)), "nmse")
    return tuple(metric for metric in wanted if metric in results.metrics)


def section(results: AblationResults, part: Part, title: str) -> list[str]:
    """One of the paper's figures or tables, with both protocols, and the paper's column if asked for."""
    names = [
        name for name, entry in results.entries.items() if isinstance(entry, Variant) and part in entry.parts
    ]
    if not names or names == [DEFAULT]:
        return []
    lines = [f"## {title}", ""]
    for protocol in PROTOCOLS:
        metrics = metrics_of(results)
        heads = ["variant", "seeds", *(f"{TITLES.get(m, m)}" for m in metrics)]
        heads += [f"Δ {TITLES.get(m, m)}" for m in metrics]
        paper = results.request.paper if protocol == "random" and results.family == FAMILY else None
        heads += [] if paper is None else [f"paper: {NAMES[paper]}"]
        lines += [f"**{protocol}**", "", *table_head(heads)]
        for name in names:
            entry = results.entries[name]
            row = _row(results, name, protocol, metrics)
            printed = entry.printed if isinstance(entry, Variant) else None
            lines.append(table_line([*row, *([] if paper is None else [_printed(printed, paper)])]))
        lines.append("")
    lines += [f"- `{name}`: {results.entries[name].shows}" for name in names]
    return [*lines, ""]


def swap_section(results: AblationResults) -> list[str]:
    """Components replaced in the trained method, without training."""
    names = [name for name, entry in results.entries.items() if isinstance(entry, Swap)]
    if not any(name in results.measured for name in names):
        return []
    metrics = metrics_of(results)
    lines = ["## Swapped at inference, without training", ""]
    for protocol in PROTOCOLS:
        heads = ["swap", "seeds", *(TITLES.get(m, m) for m in metrics)]
        heads += [f"Δ {TITLES.get(m, m)}" for m in metrics]
        lines += [f"**{protocol}**", "", *table_head(heads)]
        lines += [table_line(_row(results, name, protocol, metrics)) for name in (DEFAULT, *names)]
        lines.append("")
    return [*lines, *(f"- `{name}`: {results.entries[name].shows}" for name in names), ""]


def gradient_section(results: AblationResults) -> list[str]:
    """Gradient cosines on shared weights, over training: the paper's central claim."""
    if not results.gradients:
        return []
    lines = [
        "## Do semantics and details pull apart?",
        "",
        "The mean cosine over training between the gradients of a semantic loss and of the noise loss, on "
        "the weights of the denoiser's blocks. A negative cosine is a conflict. The paper claims that one "
        "end-to-end network has such conflicts, and that planning, retrieval and injection in different "
        "layers reduce them. Brackets: lowest and highest mean of the trainings (seeds and folds), if there "
        "is more than one.",
        "",
        *table_head(
            ["variant", *(head for name in SEMANTIC for head in (f"cos(L_{name}, noise)", "negative"))]
        ),
    ]
    for name, records in results.gradients.items():
        cells = [f"`{name}`"]
        for loss in SEMANTIC:
            found = conflicts(records, loss)
            if found is None:
                cells += ["–", "–"]
            else:
                cells += [figure_text(found[0], interval=True, signed=True), f"{100 * found[1]:.0f} %"]
        lines.append(table_line(cells))
    return [*lines, ""]


def floor_section(results: AblationResults) -> list[str]:
    """The floors under the same masks."""
    if not results.floors:
        return []
    metrics = metrics_of(results)
    heads = ["floor", *(TITLES.get(m, m) for m in metrics), *(f"Δ {TITLES.get(m, m)}" for m in metrics)]
    lines = ["## Floors", ""]
    for protocol in PROTOCOLS:
        lines += [f"**{protocol}**", "", *table_head(heads)]
        for name, found in results.floors.items():
            figures = found.figures[protocol]
            cells = [figure(metric, figures.averaged(metric)) for metric in metrics]
            cells += [change(metric, figures.change(metric)) for metric in metrics]
            lines.append(table_line([plain(name), *cells]))
        lines.append("")
    return lines


def figure(metric: str, value: Interval | None) -> str:
    """In percent where the paper prints so."""
    if value is None or metric not in RATES:
        return figure_text(value)
    return f"{100 * value.value:.1f}"


def change(metric: str, found: Difference | None) -> str:
    """A difference with its interval, marked where it leaves out zero."""
    if found is None:
        return "–"
    gap = found.difference
    mark = {"better": " ▲", "worse": " ▼"}.get(found.verdict, "")
    if metric not in RATES:
        return figure_text(gap, interval=True, signed=True) + mark
    if gap.low != gap.low:
        return f"{100 * gap.value:+.1f}{mark}"
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]{mark}"


def _row(results: AblationResults, name: str, protocol: str, metrics: Sequence[str]) -> list[str]:
    found = results.measured.get(name)
    if found is None or protocol not in found.figures:
        return [f"`{name}`", f"0 of {results.wanted}", *(["–"] * (2 * len(metrics)))]
    figures = found.figures[protocol]
    label = f"`{name}`" + ("" if found.same_as is None else f" (is `{found.same_as}`)")
    cells = [figure(metric, figures.averaged(metric)) for metric in metrics]
    cells += [change(metric, figures.change(metric)) for metric in metrics]
    return [label, f"{len(found.seeds)} of {results.wanted}", *cells]


def _printed(place: Printed | None, dataset: Dataset) -> str:
    """ACC2 / F1 / ACC7 of the paper, or the drop in its text."""
    if place is None:
        return "–"
    paper = paper_tables()
    if place.table is None:
        return f"ACC2 {-paper.acc2_drops[place.method][dataset]:+.1f}"
    table = paper.tables[place.table]
    row = table.row(dataset, place.method, "0.7")
    text = f"{row.acc2:.1f} / {row.f1:.1f} / {row.acc7:.1f}"
    if row.method in OURS:
        return text
    ours = next(other for other in table.rows if other.dataset == dataset and other.method in OURS)
    return f"{text} (ACC2 {row.acc2 - ours.acc2:+.1f})"


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
