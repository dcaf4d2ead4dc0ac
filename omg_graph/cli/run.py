"""``omg run``: reconstruct what is missing in a file, and show how it came about."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.options import (
    AsJson,
    Device,
    FillNonfinite,
    KbFolder,
    ModelFolder,
    OnInvalidPlan,
    PlannerFlags,
    PlannerName,
    Report,
    TextEncoder,
    open_model,
    require_data,
    with_planner_flags,
)
from omg_graph.cli.output import bars, note, spinner
from omg_graph.cli.review import Prompt, require_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from omg_graph.review.review import ReviewAnswer, Reviewer, ReviewRequest

DEFAULT_OUTPUT = Path("omg_output")
ASKING, ANSWERED = "asking", "answered"
"""Events beside the graph's: a person is asked something."""


@with_planner_flags
def run(
    input_file: Annotated[
        Path, typer.Option("--input", help="A pickle or .npz of one sample or many.", show_default=False)
    ],
    split: Annotated[
        str | None, typer.Option(help="Which split; the only one, else test, else valid.", show_default=False)
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Hide a modality that is there (repeat it for more).", show_default=False),
    ] = None,
    model: ModelFolder = None,
    kb: KbFolder = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = DEFAULT_OUTPUT,
    device: Device = "auto",
    top_k: Annotated[int | None, typer.Option(min=1, max=100_000, help="Entries of evidence (K).")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=1_000, help="Plans drawn for each sample.")
    ] = None,
    greedy: Annotated[
        bool | None,
        typer.Option(
            "--greedy/--no-greedy",
            help="Whether the greedy plan of the distilled planner or qwen-omni is a candidate; as the "
            "model's own setting if left out.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.01, help="Of the distilled planner's and qwen-omni's draws.", show_default=False),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1.0,
            help="They draw from the likeliest values that together have this share.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    draws: Annotated[
        int,
        typer.Option(
            min=0, max=10_000, help="Samples drawn of each missing modality; with 0 every estimate is a mean."
        ),
    ] = 1,
    plan_guidance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="How strongly the plan steers draws: 1 is as trained; the model's own if left out.",
            show_default=False,
        ),
    ] = None,
    evidence_guidance: Annotated[
        float | None,
        typer.Option(min=0.0, help="The same of the evidence.", show_default=False),
    ] = None,
    estimate: Annotated[
        Literal["mean", "sample"] | None,
        typer.Option(
            help="The conditional mean or the first draw; as suits each modality's kind if left out.",
            show_default=False,
        ),
    ] = None,
    select: Annotated[
        Literal["rerank", "utility"],
        typer.Option(help="What wins: the best plan (Eq. 5), or the trajectory of greatest utility (Eq. 2)."),
    ] = "rerank",
    seed: Annotated[int, typer.Option(help="Decides everything random, with each sample's id.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    keep_path: Annotated[
        Literal["first", "all", "none"],
        typer.Option(help="Keep the whole denoising path of the first 100 samples, of all, or of none."),
    ] = "first",
    allow_own_group: Annotated[
        bool, typer.Option(help="Allow evidence from a sample's own group; never the sample itself.")
    ] = False,
    fill_nonfinite: FillNonfinite = None,
    planner: PlannerName = "distilled",
    *,
    flags: PlannerFlags,
    on_invalid_plan: OnInvalidPlan = "error",
    text_encoder: TextEncoder = None,
    review: Annotated[
        bool, typer.Option("--review", help="Stop at each sample's plan: pick it or edit it by keyboard.")
    ] = False,
    report: Report = True,
    as_json: AsJson = False,
) -> None:
    """Reconstruct the missing modalities of every sample in a file.

    Writes reconstruction.npz, trajectory.jsonl, arrays.safetensors, run.json and report.html to --output.
    """
    from omg_graph.record.results import ResultWriter, check_output

    require_data("--input", input_file)
    check_output(output)
    if review:
        require_terminal()
    loaded = open_model(model, text_encoder, kb)

    from omg_graph.api import FULL_PATHS, prepare, stream
    from omg_graph.model.model import choose_device
    from omg_graph.planner.interface import sampling_note
    from omg_graph.record.artifacts import MemoryArtifactStore
    from omg_graph.state import Settings

    loaded = loaded.to(choose_device(device))
    logging.getLogger(__name__).info("device: %s", loaded.device)
    settings = Settings(
        top_k=top_k,
        candidates=candidates,
        greedy=greedy,
        temperature=temperature,
        top_p=top_p,
        steps=steps,
        draws=draws,
        plan_guidance=plan_guidance,
        evidence_guidance=evidence_guidance,
        estimate=estimate,
        select=select,
        seed=seed,
        keep_path=keep_path != "none",
        pictures=report or keep_path == "all",
        allow_own_group=allow_own_group,
    )
    if (planner, flags.planner_model) != ("distilled", None):
        from omg_graph.model.planners import make_planner

        options = flags.options(on_invalid_plan)
        with spinner("loading the planner"):
            loaded = loaded.with_planner(
                make_planner(planner, loaded.with_planning(**settings.planning), options)
            )
    request = prepare(
        loaded,
        input_file,
        split=split,
        missing=missing or [],
        limit=limit,
        fill_nonfinite=fill_nonfinite,
    )
    idle = sampling_note(loaded.planner, settings.planning)
    notes = request.notes if idle is None else (*request.notes, idle)
    if not as_json:
        for remark in notes:
            note(remark)
    # one batch's draws must fit: what was written out is dropped as the next ones come
    store = MemoryArtifactStore(max_bytes=8 << 30)
    writer = ResultWriter(loaded, settings)
    full = len(request.observed) if keep_path == "all" else FULL_PATHS
    with _progress(len(request.observed), draws) as on_event:
        reviewer = _between_bars(Prompt(), on_event) if review else None
        for trajectory in stream(
            loaded, request, settings, store, on_event, full_paths=full, review=reviewer
        ):
            writer.add(trajectory, store)
            on_event({"node": "sample"})
    writer.write(output, single=request.single)

    from omg_graph.cli.terminal import show_written

    show_written(writer, output, report=report, as_json=as_json, shown=notes)


def _between_bars(reviewer: Reviewer, on_event: Callable[[dict[str, Any]], None]) -> Reviewer:
    """The reviewer, with no bar drawn over the prompt."""

    def ask(request: ReviewRequest) -> ReviewAnswer:
        on_event({"node": ASKING})
        answer = reviewer(request)
        on_event({"node": ANSWERED})
        return answer

    return ask


@contextmanager
def _progress(samples: int, draws: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Two bars on stderr: samples done, and the denoising of the batch under way."""
    bar = bars()
    with bar:
        denoising = bar.add_task("denoising", total=None)
        done = bar.add_task("samples", total=samples)

        def on_event(event: dict[str, Any]) -> None:
            node = event.get("node")
            if node == "executor":
                of = event["of"] * draws
                bar.update(denoising, completed=event["draw"] * event["of"] + event["step"], total=of)
            elif node == "sample":
                bar.advance(done)
            elif node == ASKING:
                bar.stop()
            elif node == ANSWERED:
                bar.start()
            elif node in ("planner", "rerank", "retriever"):
                bar.update(done, description=f"samples · {node}")

        yield on_event
