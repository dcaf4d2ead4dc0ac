"""``omg ablate`` as a function: every variant trained and measured, and a folder of results."""

from __future__ import annotations

import json

from omg_graph.bench.ablation.page import draw_plots, page
from omg_graph.bench.ablation.results import AblationResults, Kept, collect, owners
from omg_graph.bench.ablation.runs import EVALUATIONS, AblationRequest, Progress, run_variant, seeds_of
from omg_graph.bench.ablation.variants import DEFAULT, SWAPS, VARIANTS, Swap, Variant, choose
from omg_graph.errors import ConfigError
from omg_graph.evaluation.report import plots_available
from omg_graph.files import write_atomically

IDENTITY, RESULTS, TABLES, PLOTS = "request.json", "ablation.json", "ablation.md", "plots"


def ablate(request: AblationRequest, on_progress: Progress) -> AblationResults:
    """Run what isn't finished yet, and write ``ablation.json``, ``ablation.md`` and plots.

    Seed by seed, so that the tables are whole for the seeds that are done. They are written anew after every
    variant, plots after every seed.

    Args:
        request: what to run.
        on_progress: progress callback.

    Raises:
        OmgError: if data or settings can't be used, or the folder holds results of others.
    """
    if request.seeds < 1:
        raise ConfigError(f"expected at least one seed, got {request.seeds}: give --seeds 1")
    variants, swaps = choose(request.only)
    open_folder(request)
    owner = owners(request)
    wanted = {owner[variant.name] for variant in variants}
    run = [variant for variant in VARIANTS if variant.name in wanted]
    seeds, kept = seeds_of(request), Kept()
    for number, seed in enumerate(seeds):
        for place, variant in enumerate(run):
            on_progress("runs", number * len(run) + place, len(seeds) * len(run))
            if run_variant(request, variant, seed, on_progress, swaps if variant.name == DEFAULT else ()):
                results = write_tables(request, variants, swaps, kept)
        results = write_tables(request, variants, swaps, kept)
        if plots_available():
            draw_plots(results, request.output / PLOTS)
    on_progress("runs", len(seeds) * len(run), len(seeds) * len(run))
    return results


def shown(
    request: AblationRequest, variants: list[Variant], swaps: list[Swap]
) -> tuple[list[Variant], list[Swap]]:
    """What was asked for, and what an earlier call has run."""
    begun = {path.name for path in (request.output / EVALUATIONS).glob("*")}
    return (
        [variant for variant in VARIANTS if variant in variants or variant.name in begun],
        [swap for swap in SWAPS if swap in swaps or swap.name in begun],
    )


def write_tables(
    request: AblationRequest, variants: list[Variant], swaps: list[Swap], kept: Kept
) -> AblationResults:
    """The results as far as there are any, ``kept`` holding what an earlier call made of them."""
    results = collect(request, *shown(request, variants, swaps), kept)
    output = request.output
    text = json.dumps(results.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(output / RESULTS, (text + "\n").encode())
    write_atomically(output / TABLES, page(results).encode())
    return results


def open_folder(request: AblationRequest) -> None:
    """Note what the folder's results are of, or see that they are of the same.

    Raises:
        ConfigError: if there is something else in it.
    """
    output, identity = request.output, request.identity()
    path = output / IDENTITY
    if path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        different = [name for name, value in identity.items() if kept.get(name) != value]
        if different:
            raise ConfigError(
                f"--output {output}: results of the same data and settings were expected to go on with, "
                f"{', '.join(different)} differ: name another folder"
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(
            f"--output {output}: expected a new folder, or one that omg ablate wrote: name another"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(identity, indent=1).encode())
