"""The page of results, from the JSON, tables and pictures that the studies wrote: as much as there is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from goals import ANCHOR, AVERAGE, METHOD, PATTERNS, Document, Goal
from goals import table as goal_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
FULL_SEEDS = 5
"""Of every study in the whole reproduction."""


@dataclass(frozen=True)
class Chapter:
    """A study's folder, and what the page says about it."""

    folder: Path
    title: str
    about: str
    plain: str | None = None
    """The variant that has neither plan nor evidence."""
    groups: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Patterns whose errors are averaged together."""
    results: str = "ablation"
    """The name of its files: ``ablation.json`` and ``ablation.md``."""
    goals: Callable[[Document], Iterator[Goal]] | None = None
    """The method's goals there."""


def results_page(page: Path, chapters: Sequence[Chapter], *, full: bool) -> None:
    """Write the page, and its pictures to a folder of its name beside it.

    Args:
        page: the Markdown file.
        chapters: the studies; those that haven't begun are named as such.
        full: whether it is the whole reproduction, or the short check that everything runs.
    """
    from omg_graph.files import write_atomically

    lines = ["# Results", "", *(_linked(line, page) for line in _introduction(full))]
    lines += _goals(chapters) if full else []
    for chapter in chapters:
        lines += ["", f"## {chapter.title}", "", _linked(chapter.about, page), ""]
        document = _document(chapter)
        if document is None:
            lines.append("Not run yet.")
            continue
        lines += _facts(document, full)
        if chapter.results == "ablation":
            lines += [*_gains(chapter, document), *_groups(chapter, document)]
        lines += [*_pictures(page, chapter), *_tables(chapter)]
    page.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines).rstrip() + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    write_atomically(page, text.encode())


def _introduction(full: bool) -> list[str]:
    command = "make reproduce-full" if full else "make reproduce"
    lines = [
        f"Written by `{command}` from the results so far: each study says which of its seeds are finished. "
        "Differences have 95 % intervals from resampled groups ([evaluation.md](evaluation.md#intervals)); "
        "an interval that contains zero shows no difference. The variants are explained in "
        "[ablations.md](ablations.md).",
    ]
    if not full:
        lines += ["", "**A short check that everything runs. These figures mean nothing.**"]
    return lines


def _goals(chapters: Sequence[Chapter]) -> list[str]:
    """How far the method comes, before any table."""
    found: list[Goal] = []
    waiting = []
    for chapter in chapters:
        document = _document(chapter)
        if document is None:
            waiting.append(chapter.title)
        elif chapter.goals is not None:
            found += chapter.goals(document)
    if not found:
        return []
    lines = [
        "",
        "## At a glance",
        "",
        "The method's goals, and whether it reaches them. *Not shown*: the value meets the goal, but its "
        "interval contains zero. Seeds, epochs, split and machine are in each study's section. "
        "`anchor` is the method without its network: if the method isn't ahead of it, the denoiser adds "
        "nothing.",
        "",
        *goal_table(found),
    ]
    return [*lines, "", f"Not run yet: {', '.join(waiting)}."] if waiting else lines


def _linked(text: str, page: Path) -> str:
    """Links are written as on a page of docs/: from elsewhere they lead there."""
    there = Path(os.path.relpath(DOCS, page.resolve().parent)).as_posix()
    return text if there == "." else text.replace("](", f"]({there}/")


def _document(chapter: Chapter) -> dict[str, Any] | None:
    path = chapter.folder / f"{chapter.results}.json"
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def _facts(document: Document, full: bool) -> list[str]:
    """Machine, versions and seeds; epochs are in the tables' own heads."""
    machine, versions = document["machine"], document["versions"]
    gpu = "" if machine["gpu"] == "none" else f"{machine['gpu']}, "
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions)
    cores = f", {machine['cores']} cores" if "cores" in machine else ""
    lines = [f"- machine: {gpu}{machine['processor']}{cores}; {packages}"]
    done = {seed for entry in document.get("variants", ()) for seed in entry["seeds"]}
    if full and done and len(done) < FULL_SEEDS:
        lines.append(f"- {len(done)} of the {FULL_SEEDS} seeds of the whole reproduction")
    return lines


def _gains(chapter: Chapter, document: Mapping[str, Any]) -> list[str]:
    """The method less plain conditional diffusion, the best floor and the anchor, every pattern averaged."""
    from omg_graph.bench.ablation.page import RATES
    from omg_graph.evaluation.report import TITLES

    methods = {entry["name"]: entry for entry in (*document["variants"], *document["floors"])}
    own = _averages(methods.get(METHOD), "figures")
    if not own:
        return []
    labels = [name for name in ("acc2", "acc7", "accuracy") if name in own]
    floors = [name for name in methods if name not in {entry["name"] for entry in document["variants"]}]
    lines = [
        "",
        "| average over patterns | method | compared with | its value | method minus it |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for metric in (*labels, *(name for name in ("nmse", "energy_score") if name in own)):
        lower = metric in ("nmse", "energy_score")
        known = {name: _averages(methods[name], "figures") for name in floors}
        ranked = sorted(
            (name for name in floors if metric in known[name] and name != ANCHOR),
            key=lambda name: known[name][metric]["value"] * (1 if lower else -1),
        )
        for name in (chapter.plain, *ranked[:1], ANCHOR):
            if name not in methods:
                continue
            gap = _averages(methods[name], "differences").get(metric)
            if gap is None or gap["low"] is None:
                continue
            less = [-gap[key] for key in ("difference", "high", "low")]
            shown = ": no difference shown" if less[1] <= 0 <= less[2] else ""
            scale, digits = (100, 1) if metric in RATES else (1, 4)
            had, has, (at, low, high) = (
                own[metric]["value"] * scale,
                gap["first"] * scale,
                (number * scale for number in less),
            )
            lines.append(
                f"| {TITLES.get(metric, metric)} | {had:.{digits}f} | `{name}` | {has:.{digits}f} | "
                f"{at:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{shown} |"
            )
    return [*lines, ""]


def _averages(entry: Mapping[str, Any] | None, kind: str) -> dict[str, Mapping[str, Any]]:
    """Metric to its row over all fixed patterns."""
    rows = {} if entry is None else entry["protocols"].get(PATTERNS, {})
    return {row["metric"]: row for row in rows.get(kind, ()) if row["condition"] == AVERAGE}


def _groups(chapter: Chapter, document: Document) -> list[str]:
    """Normalised squared error, averaged over missing modalities, then over the patterns of a group."""
    lines = [
        f"| normalised squared error | {' | '.join(chapter.groups)} |",
        f"| --- |{' ---: |' * len(chapter.groups)}",
    ]
    for entry in (*document["variants"], *document["floors"]):
        rows = entry["protocols"].get(PATTERNS, {}).get("figures", ())
        errors = {row["condition"]: row for row in rows if row["metric"] == "nmse"}
        found = [errors.get(group) for group in chapter.groups]
        if any(found):
            cells = ["–" if row is None else _with_interval(row) for row in found]
            lines.append(f"| `{entry['name']}` | {' | '.join(cells)} |")
    return ["", *lines, ""] if len(lines) > 2 else []


def _with_interval(row: Mapping[str, Any]) -> str:
    value = f"{row['value']:.4f}"
    return value if row["low"] is None else f"{value} [{row['low']:.4f}, {row['high']:.4f}]"


def _pictures(page: Path, chapter: Chapter) -> list[str]:
    folder = page.with_suffix("")
    lines = []
    for picture in sorted((chapter.folder / "plots").glob("*.png")):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{chapter.folder.name}-{picture.name}"
        shutil.copyfile(picture, folder / name)
        lines += [f"![{chapter.title}: {picture.stem}]({folder.name}/{name})", ""]
    return ["", *lines]


def _tables(chapter: Chapter) -> list[str]:
    """The study's own page, one level down."""
    path = chapter.folder / f"{chapter.results}.md"
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").splitlines()
    return [f"#{line}" if line.startswith("#") else line for line in lines if not line.startswith("# ")]
