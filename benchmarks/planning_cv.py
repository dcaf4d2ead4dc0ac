"""How good the distilled planner is, by cross-validation over groups: psi and the student alone are trained.

    python benchmarks/planning_cv.py --data FILE --seeds 2 --output FOLDER
    python benchmarks/planning_cv.py --data FILE --set planner.width=96 --output OTHER_FOLDER

Each fold of ``train`` and ``valid`` together is held out once for each seed. Finished folds are kept in the
output folder, so a run that was cut off goes on; settings that share psi share its training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from omg_graph.bench.planning.planning import Measured, measured, report
from omg_graph.data.reader import read_data_file
from omg_graph.files import write_atomically
from omg_graph.model.model import Model
from omg_graph.planner.schema_choice import choose_schema
from omg_graph.training.folds import fold_of, rows_of_folds
from omg_graph.training.request import TrainingRequest
from omg_graph.training.train import Training


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    settings = _nested(options.set)
    runs: list[Measured] = []
    for seed in range(options.seeds):
        for fold in range(options.folds):
            model, found = _fold(options, settings, seed, fold)
            runs.append(found)
            whole = report(model, runs, fitted=True)
            document = whole.model_dump(mode="json") | {
                "model": None,
                "folds": options.folds,
                "seeds": seed + 1,
                "held_out": len(runs),
                "settings": settings,
            }
            write_atomically(options.output / "planning.json", json.dumps(document, indent=2).encode())
            write_atomically(options.output / "planning.md", whole.markdown().encode())
            print(f"seed {seed}, fold {fold}: " + "; ".join(whole.lines()[1:4]), flush=True)
    print("\n".join(whole.lines()))


def _fold(
    options: argparse.Namespace, settings: dict[str, Any], seed: int, fold: int
) -> tuple[Model, Measured]:
    """One fold: trained, or as far as it came before, and measured on what it held out."""
    request = TrainingRequest(
        data=str(options.data),
        output=str(options.output / f"fold-{fold}-seed-{seed}"),
        overrides=settings,
        folds=options.folds,
        fold=fold,
        seed=seed,
        shared_stages=str(options.stages or options.output / "stages"),
        resume=True,
    )
    run = Training(request).run
    model = run.planner_model
    data = read_data_file(options.data, leave_out=("test",))
    rows = rows_of_folds(data)
    held = set(fold_of(data, fold, options.folds).held_out)
    split = rows.take(np.flatnonzero([sample in held for sample in rows.ids]))
    plans = choose_schema(split, model.schema, seed=seed).plans
    return model, measured(model, split, plans, train=run.data.train, seed=seed)


def _nested(assignments: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        block, _, key = name.partition(".")
        settings.setdefault(block, {})[key] = yaml.safe_load(value)
    return settings


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stages", type=Path, help="a folder that runs of other settings share")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="BLOCK.NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
