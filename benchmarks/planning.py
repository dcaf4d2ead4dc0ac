"""How long planning takes here: psi, candidates, re-ranking, with embeddings of plan texts known and not.

    python benchmarks/planning.py --model MODEL --data FILE

Prints JSON: medians in milliseconds a sample at batch 1 and 64. ``plan`` is candidates and re-ranking without
psi, embeddings known. A busy machine gives other figures, unless ``--processor-time`` is read.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from omg_graph.bench.planning.speed import BATCHES, REPEATS, speeds
from omg_graph.model.folder import load_model
from omg_graph.training.model_rows import read_model_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="the embedded default if left out")
    parser.add_argument("--data", type=Path, required=True, help="a file with the model's modalities")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor-time", action="store_true", help="the process's own, with one thread")
    options = parser.parse_args()
    if options.processor_time and options.threads != 1:
        parser.error("--processor-time adds up what all threads take: leave --threads at 1")
    clock = time.process_time if options.processor_time else time.perf_counter
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    samples = read_model_rows(model, options.data).valid
    found = speeds(model, samples, batches=BATCHES, repeats=options.repeats, cold=True, clock=clock)
    report = {
        "machine": f"{platform.machine()}, {platform.system()}, {options.threads} threads",
        "clock": "processor time" if options.processor_time else "time that passed",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "planner": model.planner.name,
        "candidates": model.config.planning.candidates,
        "milliseconds_a_sample": [
            one.model_dump() | {"plan": one.plan, "plan_with_psi": one.observe + one.plan} for one in found
        ],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
