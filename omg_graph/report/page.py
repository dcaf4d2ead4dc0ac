"""Pages of a run, or of two: template, styles, scripts and data in one file that asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from omg_graph.errors import DataError
from omg_graph.files import write_atomically
from omg_graph.record.comparison import TrajectoryComparison
from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import Trajectory
from omg_graph.record.view import TrajectoryView, prediction_text, view
from omg_graph.report.figures import (
    FEWEST,
    Detail,
    Look,
    changed,
    figures,
    interval,
    look,
    shortened,
    visible,
)

DETAILED = 100
"""The most samples whose whole story is in a page; the list names all."""

STORIES = 4_300_000
"""Bytes for the stories of a page; libraries and list come on top, so that 100 samples stay under 5 MB."""

LEAST = 3_200
"""Bytes that one modality's pictures take at the least."""

CANDIDATES_SHOWN = 20

QUOTE_LENGTH = 2_000
"""The most letters of a transcript."""

DRAWING = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "assets/charts.js", "assets/pictures.js")
SCRIPTS = (*DRAWING, "assets/page.js")
COMPARISON = (*DRAWING, "assets/comparison.js")
FULL = 10
"""So many pictures of a comparison are drawn in full detail; of more, each is coarser."""

STYLES = "assets/page.css"
LICENCES = "vendor/LICENSES.txt"


@dataclass(frozen=True)
class Sample:
    """One sample's part of the page."""

    number: int
    view: TrajectoryView
    draws: int
    modalities: list[dict[str, Any]]
    """What its pictures are drawn from, in full detail."""

    @property
    def interval(self) -> float:
        """What share the interval of its draws is made to hold."""
        return interval(self.draws)


@dataclass(frozen=True)
class Story:
    """A sample's article, and what its pictures are drawn from."""

    text: Markup
    data: Markup


def write_report(
    run: SavedRun,
    output: Path,
    *,
    ids: Sequence[str] = (),
    pictures: Mapping[str, tuple[int, int]] | None = None,
) -> int:
    """Write the page of a run, whole or not at all.

    Args:
        run: The results.
        output: The file to write.
        ids: Only these samples.
        pictures: Rows and columns of vectors that are the pixels of an image.

    Returns:
        The size of the page in bytes.

    Raises:
        DataError: if there is no such sample, or one of ``pictures`` doesn't fit.
    """
    content = render(run, ids=ids, pictures=pictures).encode()
    write_atomically(output, content)
    return len(content)


def render(
    run: SavedRun, *, ids: Sequence[str] = (), pictures: Mapping[str, tuple[int, int]] | None = None
) -> str:
    """The page as text; see ``write_report``."""
    listed = [run.trajectory(sample_id) for sample_id in ids] if ids else list(run.trajectories)
    looks = _looks(run, listed[:DETAILED], pictures or {})
    stories, detail = _stories(run, listed, looks)
    scripts = [Markup(asset(name)) for name in SCRIPTS]  # noqa: S704 - our own files
    labels = {t.prediction.label for t in listed if t.prediction is not None}
    return (
        environment()
        .get_template("page.html")
        .render(
            run=run,
            facts=run.facts,
            listed=listed,
            stories=stories,
            modalities=list(dict.fromkeys(name for trajectory in listed for name in trajectory.missing)),
            labels=sorted(label for label in labels if label is not None),
            scripts=scripts,
            policy=policy(scripts),
            styles=Markup(asset(STYLES)),  # noqa: S704
            licences=asset(LICENCES),
            reduced=detail != Detail(),
        )
    )


def _stories(
    run: SavedRun, listed: Sequence[Trajectory], looks: Mapping[str, Look]
) -> tuple[list[Story], Detail]:
    """The articles of as many samples as there is room for, with pictures as fine as there is room for."""
    template = environment().get_template("sample.html")
    detail, left = Detail(), STORIES
    samples: list[Sample] = []
    texts: list[str] = []
    for number, trajectory in enumerate(listed[:DETAILED]):
        sample = _sample(run, number, trajectory, looks, detail)
        text = template.render(
            sample=sample,
            facts=run.facts,
            many=len(listed) > 1,
            of=len(listed[:DETAILED]),
            quote=QUOTE_LENGTH,
            candidates=CANDIDATES_SHOWN,
        )
        left -= len(text.encode()) + LEAST * len(trajectory.reconstruction)
        if samples and left < 0:
            break
        samples.append(sample)
        texts.append(text)
    room = STORIES - sum(len(text.encode()) for text in texts)
    data = [_data(sample, sample.modalities) for sample in samples]
    while (size := sum(map(len, data))) > room and detail.cells > FEWEST:
        detail = detail.scaled(0.9 * max(0.1, room / size))
        data = [_data(sample, _modalities(run, sample.view.trajectory, looks, detail)) for sample in samples]
    return [Story(Markup(text), part) for text, part in zip(texts, data, strict=True)], detail  # noqa: S704


def _looks(
    run: SavedRun, listed: Sequence[Trajectory], pictures: Mapping[str, tuple[int, int]]
) -> dict[str, Look]:
    shapes = {name: ref.shape for trajectory in listed for name, ref in trajectory.reconstruction.items()}
    for name, (rows, columns) in pictures.items():
        size = math.prod(shapes[name]) if name in shapes else None
        if size != rows * columns:
            got = "nothing of that name" if size is None else f"{size} numbers"
            raise DataError(
                f"--pixels {name}: expected a reconstructed vector of {rows} x {columns} numbers, got {got}: "
                "leave it out, or give its rows and columns"
            )
    return {name: look(run, name, shape, pictures.get(name)) for name, shape in shapes.items()}


def _sample(
    run: SavedRun, number: int, trajectory: Trajectory, looks: Mapping[str, Look], detail: Detail
) -> Sample:
    shapes = [ref.shape for key, ref in trajectory.arrays.items() if key.startswith("draws/")]
    draws = shapes[0][0] if shapes else 1
    return Sample(number, view(trajectory, run.facts), draws, _modalities(run, trajectory, looks, detail))


def _modalities(
    run: SavedRun, trajectory: Trajectory, looks: Mapping[str, Look], detail: Detail
) -> list[dict[str, Any]]:
    return [figures(run, trajectory, name, looks[name], detail) for name in trajectory.reconstruction]


def _data(sample: Sample, modalities: list[dict[str, Any]]) -> Markup:
    """What a sample's pictures are drawn from, as JSON."""
    candidates = () if sample.view.plan is None else sample.view.plan.candidates[:CANDIDATES_SHOWN]
    return as_json(
        {
            "modalities": modalities,
            "labels": [[visible(row.label), row.share, row.without] for row in sample.view.labels],
            "candidates": [
                [row.number, row.drawn.log_probability, row.weighted_cost, row.chosen] for row in candidates
            ],
        }
    )


def write_comparison(
    comparisons: Sequence[TrajectoryComparison], runs: tuple[SavedRun, SavedRun], output: Path
) -> int:
    """Write the page of two runs of the same samples, whole or not at all.

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
    shown = comparisons[:DETAILED]
    detail = Detail().scaled(min(1.0, FULL / max(1, sum(len(sample.output) for sample in shown))))
    # no picture where the arrays of one of them aren't there
    drawn = [[changed(runs, one.id, name, detail) for name in one.output] for one in shown]
    pictures = [[picture for picture in sample if picture is not None] for sample in drawn]
    scripts = [Markup(asset(name)) for name in COMPARISON if any(pictures)]  # noqa: S704 - our own files
    content = (
        environment()
        .get_template("comparison.html")
        .render(
            samples=shown,
            figures=pictures,
            data=[as_json(sample) for sample in pictures],
            more=max(0, len(comparisons) - DETAILED),
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


def policy(scripts: Sequence[str]) -> str:
    """The content security policy: these scripts and no other, and not one request."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def asset(name: str) -> str:
    """A file of this room as text."""
    return (files("omg_graph.report") / name).read_text("utf-8")


@cache
def environment() -> Environment:
    """Where templates are found, with everything in them escaped."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "json": as_json,
        "figure": _figure,
        "prediction": prediction_text,
        "short": shortened,
    }
    return environment


def _template(name: str) -> str:
    """A template without its indentation, which would be a fifth of a page."""
    return re.sub(r"^ +", "", asset(f"assets/{name}"), flags=re.M)


def _shown(value: object) -> object:
    """What the template writes: text of others with its unseen signs made visible."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def as_json(document: object) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _figure(number: float | None, digits: int = 3) -> str:
    if number is None:
        return "–"
    # adding zero takes the sign from what rounds to zero
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", "−")
