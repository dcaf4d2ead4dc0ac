"""How long a reconstruction takes here: start-up, loading, one sample, a batch, node by node, and memory.

    make bench
    python benchmarks/latency.py --model MODEL --data FILE --missing audio --batch 32

Times are medians on the machine at hand, after one run to warm up; a busy machine gives others.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NODES = ("planner", "rerank", "retriever", "executor")


def main() -> None:
    options = _options()
    start_up = _median(options.repeats, _help)

    import torch

    from omg_graph import load_model, reconstruct
    from omg_graph.data.dataset import Split
    from omg_graph.model.model import default_model_folder

    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    model = load_model(options.model or default_model_folder())
    loading = time.perf_counter() - began
    samples = _samples(model, options.data, options.batch)
    missing = options.missing or [samples.names[-1]]

    def timed(rows: Split) -> dict[str, float]:
        began = time.perf_counter()
        trajectories = reconstruct(model, rows, missing=missing)
        return {"whole": time.perf_counter() - began, **trajectories[0].timings}

    reconstruct(model, samples.take([0]), missing=missing)
    single = [timed(samples.take([row])) for row in range(min(options.repeats * 3, len(samples)))]
    batched = [timed(samples) for _ in range(options.repeats)]
    report = {
        "machine": f"{platform.machine()}, {platform.system()}, {options.threads} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "model": str(options.model or "embedded"),
        "missing": missing,
        "batch": len(samples),
        "help_seconds": start_up,
        "load_seconds": loading,
        "milliseconds_a_sample": {
            "one": _milliseconds(single, 1),
            "batch": _milliseconds(batched, len(samples)),
        },
        "peak_megabytes": _peak_megabytes(),
    }
    print(json.dumps(report, indent=2) if options.json else _table(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="a model folder; the embedded default if left out")
    parser.add_argument("--data", type=Path, help="samples that fit the model; simulated clips if left out")
    parser.add_argument("--missing", action="append", help="a modality to hide; the last one if left out")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _samples(model: Any, data: Path | None, count: int) -> Any:
    if data is not None:
        from omg_graph.api import prepare

        return prepare(model, data, limit=count).truth
    from omg_graph.simulator import AffectSimulator, SimulatorConfig

    simulator = AffectSimulator(SimulatorConfig(), model.text_encoder.embed)
    speakers = -(-count // 8)
    return simulator.corpus({"bench": speakers}, 8, seed=1)["bench"].split.take(range(count))


def _help() -> None:
    subprocess.run([sys.executable, "-m", "omg_graph.cli", "--help"], check=True, capture_output=True)


def _median(repeats: int, action: Callable[[], None]) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _milliseconds(runs: list[dict[str, float]], samples: int) -> dict[str, float]:
    return {
        part: round(1000 * statistics.median(run[part] for run in runs) / samples, 3)
        for part in (*NODES, "whole")
    }


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _table(report: dict[str, Any]) -> str:
    times = report["milliseconds_a_sample"]
    heading = f"batch of {report['batch']}"
    return "\n".join(
        [
            f"{report['machine']}; Python {report['python']}, torch {report['torch']}",
            f"model: {report['model']}; missing: {', '.join(report['missing'])}",
            f"omg --help: {report['help_seconds']:.2f} s; loading: {report['load_seconds']:.2f} s; "
            f"peak memory: {report['peak_megabytes']:.0f} MB",
            "",
            f"{'ms a sample':<12} {'alone':>10} {heading:>14}",
            *(
                f"{part:<12} {times['one'][part]:>10.2f} {times['batch'][part]:>14.2f}"
                for part in times["one"]
            ),
        ]
    )


if __name__ == "__main__":
    main()
