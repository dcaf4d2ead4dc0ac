"""Every study of the method, one after the other, and a page of what came out.

    make reproduce              # one seed, few variants, few epochs: does everything run?
    make reproduce-full         # five seeds, folds, all variants: hours; go on where it was cut off
    python benchmarks/reproduce.py --full --only mosi --seeds 1
    python benchmarks/reproduce.py --full --page-only

CMU-MOSI and mfeat are read from the folder that OMG_DATA names; without it the simulator is studied alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goals import prediction_goals, reconstruction_goals, study_goals, training_goals
from results_page import FULL_SEEDS, Chapter, results_page

if TYPE_CHECKING:
    from omg_graph.bench.ablation.runs import AblationRequest

ROOT = Path(__file__).parents[1]
MOSI, MFEAT = Path("mosi", "mosi_train_valid.pkl"), Path("mfeat", "mfeat_train_valid.pkl")
VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")
MFEAT_PATTERNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "single views": tuple((view,) for view in VIEWS),
    "two or three views": (
        ("fou", "zer"),
        ("fou", "mor"),
        ("kar", "mor"),
        ("zer", "mor"),
        ("fou", "kar", "zer"),
        ("fou", "zer", "mor"),
    ),
    "all views but one": tuple(tuple(other for other in VIEWS if other != view) for view in VIEWS),
}
PLAIN, NEITHER = "plain-diffusion", "no-planner-no-retriever"
FEW = ("no-planner", "no-retriever", PLAIN, NEITHER, "no-label-reader", "entangled", "no-rerank@inference")
"""Variants of the short run."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Part:
    """One study."""

    chapter: Chapter
    """Where its results lie, and what the page says of them."""
    name: str
    run: Callable[[Progress], Any]
    data: Path | None = None
    """The data set that it needs, if it isn't simulated."""


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    options = _options(arguments)
    from omg_graph.cli.app import Settings
    from omg_graph.errors import OmgError

    Settings().apply()  # threads and silence, as for every command of omg
    output = options.output or ROOT / "results" / ("full" if options.full else "quick")
    page = options.page or (ROOT / "docs" / "results.md" if options.full else output / "results.md")
    everything = parts(options, output)
    try:
        for part in () if options.page_only else chosen(everything, options.only):
            with _telling(part.name) as on_progress:
                part.run(on_progress)
            _write(page, options.full, everything)
        _write(page, options.full, everything)
    except OmgError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"results: {page}")
    return 0


def parts(options: argparse.Namespace, output: Path) -> list[Part]:
    """All studies, in their order."""
    return [*_data_parts(options, output), *_simulator_parts(options, output)]


def chosen(everything: list[Part], names: list[str] | None) -> list[Part]:
    """The studies of these names, all where there is none, that can be run here.

    Raises:
        ConfigError: if a name is none of a study.
        DataError: if none can be run.
    """
    from omg_graph.errors import ConfigError, DataError

    known = [part.name for part in everything]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"--only: expected one of {', '.join(known)}, got {name!r}")
    wanted = [part for part in everything if not names or part.name in names]
    absent = [part for part in wanted if part.data is not None and not part.data.is_file()]
    if absent:
        missing = ", ".join(dict.fromkeys(str(part.data) for part in absent))
        problem = f"expected OMG_DATA to name a folder with the data sets, {missing} isn't there"
        if absent == wanted:
            raise DataError(f"{problem}: set OMG_DATA")
        print(f"{problem}: {', '.join(part.name for part in absent)} left out", file=sys.stderr)
    return [part for part in wanted if part not in absent]


def _data_parts(options: argparse.Namespace, output: Path) -> Iterator[Part]:
    folder = Path(os.environ.get("OMG_DATA") or "the data sets' folder")
    full, seeds = options.full, options.seeds
    epochs = options.epochs or (None if full else 12)
    mosi = Chapter(
        output / "mosi",
        "CMU-MOSI",
        "Utterances of `train` and `valid`, cross-validated by video: every learned part is fitted again in "
        "each fold, and each clip is predicted by a model that never saw its video. The method and `anchor` "
        "use the words of an observed transcript, the other floors its features alone."
        if full
        else "The split `valid`, which also chose the epochs: figures are optimistic.",
        PLAIN,
        goals=prediction_goals("CMU-MOSI", PLAIN),
    )
    common: dict[str, Any] = {"data": folder / MOSI, "output": mosi.folder, "seeds": seeds, "epochs": epochs}
    common["beside_paper"] = "mosi"
    common |= {"folds": 5, "keep_models": False} if full else {"split": "valid", "floors": "fast"}
    yield _ablation(
        "mosi",
        mosi,
        common | {"only": (PLAIN,) if full else FEW} | _floors(options),
    )
    if full:
        yield _ablation("mosi-ablation", mosi, common | _floors(options))
    mfeat = Chapter(
        output / "mfeat",
        "UCI Multiple Features",
        "Six views of handwritten digits, the split `valid`, which also chose the epochs: figures are "
        "optimistic.",
        PLAIN,
        MFEAT_PATTERNS,
        goals=reconstruction_goals("mfeat", tuple(MFEAT_PATTERNS)),
    )
    patterns = tuple(shown for group in MFEAT_PATTERNS.values() for shown in group)
    common = {"data": folder / MFEAT, "output": mfeat.folder, "seeds": seeds, "epochs": epochs}
    common |= {"split": "valid", "patterns": patterns, "groups": MFEAT_PATTERNS, "draws": 19 if full else 0}
    drawn = {"drawn_floors": "networks"} if _floors(options)["floors"] == "all" else {}
    yield _ablation("mfeat", mfeat, common | {"only": (PLAIN,)} | _floors(options) | drawn)
    if full:
        title = "UCI Multiple Features, all variants"
        variants = Chapter(output / "mfeat-ablation", title, mfeat.about, PLAIN, MFEAT_PATTERNS)
        more = {"output": variants.folder, "draws": 0, "floors": "none", "keep_models": False}
        yield _ablation("mfeat-ablation", variants, common | more)
    training = Chapter(
        output / "training",
        "Training time",
        "`omg train` on the official split of CMU-MOSI, one model, all stages, in a separate process.",
        results="training",
        goals=training_goals,
    )
    yield Part(
        training,
        "training",
        lambda on_progress: _training_time(training.folder, folder / MOSI, epochs, on_progress),
        folder / MOSI,
    )


def _simulator_parts(options: argparse.Namespace, output: Path) -> Iterator[Part]:
    full = options.full
    chapter = Chapter(
        output / "simulator",
        "Simulated clips",
        "Synthetic sentences, faces and voices, the split `test`: no evidence about people.",
        PLAIN,
    )
    corpus = output / "simulated.pkl"
    settings: dict[str, Any] = {
        "data": corpus,
        "output": chapter.folder,
        "seeds": options.seeds,
        "epochs": options.epochs or (None if full else 12),
        "split": "test",
        "keep_models": False,
        "only": () if full else (PLAIN, "entangled"),
    }
    ablation = _ablation("simulator", chapter, settings | _floors(options), given=False)

    def run(on_progress: Progress) -> None:
        _simulate(corpus, speakers=200 if full else 60)
        ablation.run(on_progress)

    yield Part(chapter, "simulator", run)
    study = Chapter(
        output / "study",
        "Beside the exact posterior",
        "Simulated worlds whose exact posterior is known ([study.md](study.md) says which).",
        results="study",
        goals=study_goals,
    )
    yield Part(study, "study", lambda on_progress: _study(study.folder, options, on_progress))


def _ablation(name: str, chapter: Chapter, settings: dict[str, Any], given: bool = True) -> Part:
    def run(on_progress: Progress) -> None:
        from omg_graph.bench.ablation.ablate import ablate
        from omg_graph.bench.ablation.runs import AblationRequest

        request: AblationRequest = AblationRequest(**settings)
        ablate(request, on_progress)

    return Part(chapter, name, run, settings["data"] if given else None)


def _floors(options: argparse.Namespace) -> dict[str, str]:
    return {"floors": options.floors or ("all" if options.full else "fast")}


def _simulate(corpus: Path, speakers: int) -> None:
    """Clips of the simulator, written once."""
    if corpus.is_file():
        return
    from omg_graph.cli.data import speakers_of_splits
    from omg_graph.data.writing import save_corpus
    from omg_graph.encoders.text import MINILM, SentenceEncoder, locate_text_encoder
    from omg_graph.simulator import AffectSimulator, SimulatorConfig

    encoder = SentenceEncoder(locate_text_encoder(MINILM, None))
    made = AffectSimulator(SimulatorConfig(), encoder.embed).corpus(speakers_of_splits(speakers), 10, 0)
    corpus.parent.mkdir(parents=True, exist_ok=True)
    save_corpus(corpus, {name: simulated.split for name, simulated in made.items()})


def _study(folder: Path, options: argparse.Namespace, on_progress: Progress) -> None:
    from omg_graph.bench.study.settings import settings_named
    from omg_graph.bench.study.study import StudyRequest, run_study

    settings = tuple(settings_named(()))
    if not options.full:  # one world, with few clips: it runs, no more
        speakers = {"train": 40, "valid": 8, "later": 10, "test": 10}
        settings = tuple(setting.smaller(speakers, 5) for setting in settings[:1])
    request = StudyRequest(folder, settings, options.seeds)
    run_study(request, lambda run, what, done, of: on_progress(f"{run}: {what}", done, of))


def _training_time(folder: Path, data: Path, epochs: int | None, on_progress: Progress) -> None:
    """Train once, by the command that people use, and keep how long it took; never twice."""
    from omg_graph.errors import OmgError
    from omg_graph.files import write_atomically
    from omg_graph.model.folder import machine, versions

    result = folder / "training.json"
    if result.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    command = [sys.executable, "-m", "omg_graph.cli", "train", "--data", str(data), "--output", str(model)]
    command += ["--overwrite", "--json", *(() if epochs is None else ("--epochs", str(epochs)))]
    on_progress("omg train", 0, 1)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise OmgError(f"omg train was expected to finish, it ended with {done.returncode}: see above")
    document = {
        "data": "CMU-MOSI",
        "epochs_at_most": epochs,
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "stages": json.loads((model / "manifest.json").read_text("utf-8"))["training"]["seconds"],
        "versions": versions(),
        "machine": machine(),
    }
    shutil.rmtree(model)
    lines = ["# Training time", "", "| stage | seconds |", "| --- | ---: |"]
    lines += [f"| {stage} | {taken:.1f} |" for stage, taken in document["stages"].items()]
    lines += [f"| all, with starting and reading | {seconds:.1f} |", ""]
    write_atomically(folder / "training.md", "\n".join(lines).encode())
    write_atomically(result, json.dumps(document, indent=1).encode())


@contextmanager
def _telling(part: str) -> Iterator[Progress]:
    """A bar where a terminal shows it, and a line for each finished run."""
    from omg_graph.cli.output import bars

    began, bar = time.monotonic(), bars()
    task = bar.add_task(part, total=1)
    finished = -1

    def on_progress(what: str, done: int, of: int) -> None:
        nonlocal finished
        if what == "runs":
            if done != finished:
                minutes = (time.monotonic() - began) / 60
                print(f"{part}: {done} of {of} runs, {minutes:.1f} minutes", file=sys.stderr)
            finished = done
            return
        bar.update(task, description=f"{part}: {what}", completed=done, total=of)

    with bar:
        yield on_progress
    print(f"{part}: finished after {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)


def _write(page: Path, full: bool, everything: list[Part]) -> None:
    chapters = list({part.chapter.folder: part.chapter for part in everything}.values())
    results_page(page, chapters, full=full)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="five seeds, folds, all variants")
    parser.add_argument("--only", action="append", metavar="PART", help="one of the studies; repeat for more")
    parser.add_argument("--seeds", type=int, help="models of each variant; 5 with --full, else 1")
    parser.add_argument("--epochs", type=int, help="of the executor at most")
    parser.add_argument("--floors", help="fast, networks, all or none; all with --full, else fast")
    parser.add_argument("--output", type=Path, help="folder for everything; results/full or results/quick")
    parser.add_argument("--page", type=Path, help="the page; docs/results.md with --full")
    parser.add_argument("--page-only", action="store_true", help="write the page from what there is")
    options = parser.parse_args(arguments)
    options.seeds = options.seeds or (FULL_SEEDS if options.full else 1)
    return options


if __name__ == "__main__":
    sys.exit(main())
