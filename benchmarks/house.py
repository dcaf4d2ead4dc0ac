"""How large the house is: lines, settings, what one run goes through, and what training costs.

    python benchmarks/house.py
    python benchmarks/house.py --training DATA --json house.json

Lines are those that ``wc -l`` counts. The run is ``omg run --input examples/sample.pkl --json --no-report``
with the embedded model. Of this package's functions those with a name count: no module or class bodies,
lambdas or comprehensions. Depth is how many frames of the package lie above each other in one thread.
``--training`` trains on a data file with the default settings until the second epoch of the executor, which
takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "omg_graph"
RUN = ("run", "--input", str(ROOT / "examples" / "sample.pkl"), "--json", "--no-report")
AIMS = {
    "lines.package": 22000,
    "lines.bench": 8000,
    "lines.tests": 18000,
    "settings": 60,
    "run.files": 45,
    "run.functions": 250,
    "run.depth": 12,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--training", type=Path, metavar="DATA", help="train on this file too (minutes)")
    parser.add_argument(
        "--functions", action="store_true", help="list each function of the run with its calls"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures with the machine's")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(ROOT))
    calls, depth = trace_run()
    figures = {
        **{f"lines.{name}": count for name, count in lines().items()},
        "settings": settings(),
        "run.files": len({code.co_filename for code in calls}),
        "run.functions": len(calls),
        "run.calls": sum(calls.values()),
        "run.depth": depth,
    }
    if options.training is not None:
        figures |= {f"training.{name}": seconds for name, seconds in training(options.training).items()}
    for name, figure in figures.items():
        print(f"{name:<44}{figure:>10,}" + (f"   aim {AIMS[name]:,}" if name in AIMS else ""))
    if options.functions:
        for code, count in calls.most_common():
            print(f"{count:>6}  {Path(code.co_filename).relative_to(ROOT)}:{code.co_qualname}")
    if options.json is not None:
        options.json.write_text(json.dumps({"figures": figures, "machine": machine()}, indent=2) + "\n")


def lines() -> dict[str, int]:
    """Lines of Python: of the package without bench, of bench, of the tests."""
    bench = PACKAGE / "bench"
    package = [path for path in PACKAGE.rglob("*.py") if bench not in path.parents]
    parts = {"package": package, "bench": bench.rglob("*.py"), "tests": (ROOT / "tests").rglob("*.py")}
    return {name: sum(path.read_bytes().count(b"\n") for path in paths) for name, paths in parts.items()}


def settings() -> int:
    """How many settings a training has."""
    from omg_graph.training.config import TrainingConfig

    def count(value: Any) -> int:
        return sum(map(count, value.values())) if isinstance(value, dict) else 1

    return count(TrainingConfig().model_dump(mode="json"))


def trace_run() -> tuple[Counter[CodeType], int]:
    """Functions of the package with how often the run called each, and how deep they lay."""
    from omg_graph.cli import main as omg

    calls: Counter[CodeType] = Counter()
    depths: dict[int, int] = {}
    deepest = 0

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal deepest
        code = frame.f_code
        if not code.co_flags & inspect.CO_OPTIMIZED or not code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            return
        thread = threading.get_ident()
        if event == "call":
            if not code.co_name.startswith("<"):
                calls[code] += 1
            depths[thread] = depths.get(thread, 0) + 1
            deepest = max(deepest, depths[thread])
        elif event == "return":
            depths[thread] = max(0, depths.get(thread, 0) - 1)

    with contextlib.redirect_stdout(io.StringIO()):
        threading.setprofile(watch)
        sys.setprofile(watch)
        try:
            code = omg(RUN)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    if code:
        raise SystemExit(f"omg {' '.join(RUN)}: expected exit code 0, got {code}")
    return calls, deepest


def training(data: Path) -> dict[str, float]:
    """CPU seconds of a training before the executor's first epoch, and when each kind of progress began."""
    from omg_graph import build_training_graph

    began, seconds = time.process_time(), {}
    epochs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        request = {"data": str(data), "output": f"{folder}/model", "seed": 0, "device": "cpu"}
        for event in build_training_graph().stream(request, stream_mode="custom"):
            now = round(time.process_time() - began, 1)
            if event["stage"] == "executor" and event["done"]:
                epochs.append(now)
                if len(epochs) == 2:
                    break
            else:
                seconds[f"until {event['stage']}"] = now
    return seconds | {"cpu_seconds": round(2 * epochs[0] - epochs[1], 1)}


def machine() -> dict[str, Any]:
    import torch

    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
