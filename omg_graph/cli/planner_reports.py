"""A planner's figures beside its model: measured on validation rows, written, and shown in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omg_graph.cli.output import cell, progress_bar, stdout_console

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.planner.schema import Plan
    from omg_graph.training.model_rows import ModelRows

REPORT = "planner_report.json"
PAGE = "planner_report.md"


class PlannerReport(Protocol):
    """What the entry point ``planner`` of ``omg_graph.reports`` makes of a planner."""

    def to_json(self) -> str:
        """The document as text."""
        ...

    def markdown(self) -> str:
        """The page."""
        ...

    def lines(self) -> list[str]:
        """The report in a few lines."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The document."""
        ...


def report_planner(
    model: Model,
    rows: ModelRows,
    folder: Path,
    *,
    plans: Sequence[Plan | None] | None = None,
    teacher: Mapping[str, Any] | None = None,
) -> PlannerReport:
    """Measure a model's planner on validation rows, and write what comes out into its folder.

    The two files hold times, so they are beside the model rather than part of it.

    Args:
        model: Whose planner is measured.
        rows: Its training rows, for the floors, and its validation rows.
        folder: Where the files go.
        plans: A teacher's plans of the validation rows; the lexical annotator's by default.
        teacher: What is known of the teacher.
    """
    from omg_graph.files import write_atomically
    from omg_graph.plugins import REPORTS, component

    with progress_bar("measuring the planner", "patterns") as on_progress:
        report: PlannerReport = component(REPORTS, "planner")(
            model,
            rows.valid,
            train=rows.train,
            plans=plans,
            seed=model.manifest.seed,
            teacher=teacher,
            progress=on_progress,
        )
    write_atomically(folder / REPORT, report.to_json().encode())
    write_atomically(folder / PAGE, report.markdown().encode())
    return report


def show_report(report: PlannerReport, folder: Path) -> None:
    """The report in a few lines, and where the whole of it is."""
    console = stdout_console()
    for line in report.lines():
        console.print(cell(line), soft_wrap=True)
    console.print(cell(f"the planner's figures: {folder / PAGE}", "dim"), soft_wrap=True)
