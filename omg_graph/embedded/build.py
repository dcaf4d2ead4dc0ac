"""Make the embedded default anew: simulate clips by the recipe, train on them, write model and sample.

``python -m omg_graph.embedded.build``, or ``make demo-model``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omg_graph.cli.output import note, stderr_console
from omg_graph.data.dataset import Split
from omg_graph.data.writing import save_corpus, save_sample
from omg_graph.embedded.measuring import Comparison, compare, table
from omg_graph.embedded.recipe import RECIPE, EmbeddedRecipe, load_recipe
from omg_graph.encoders.text import SentenceEncoder, locate_text_encoder
from omg_graph.errors import OmgError
from omg_graph.model.folder import load_model
from omg_graph.model.model import default_model_folder
from omg_graph.simulator import AffectSimulator
from omg_graph.training.config import load_config
from omg_graph.training.graph import build_training_graph
from omg_graph.training.request import TrainingRequest

SAMPLE = RECIPE.parent.parent / "examples" / "sample.pkl"
FIRST_MEASURED = 10_000
"""Number of the first speaker that a finished model is measured on, far from all others."""
MEASURED_SPEAKERS = 60


def build_simulator(recipe: EmbeddedRecipe, text_encoder: str | None = None) -> AffectSimulator:
    """The simulator that the recipe describes.

    Raises:
        EncoderError: if the text encoder isn't to be found.
    """
    name = load_config(None, recipe.training).encoder.text_encoder
    return AffectSimulator(
        recipe.simulator, SentenceEncoder(locate_text_encoder(name, text_encoder), name).embed
    )


def build_model(
    recipe: EmbeddedRecipe, simulator: AffectSimulator, output: Path, text_encoder: str | None = None
) -> str:
    """Simulate the corpus and train on it; replaces a model that is there.

    Returns:
        The model's fingerprint.

    Raises:
        OmgError: if the output is taken by something else, or training fails.
    """
    corpus = simulator.corpus(recipe.speakers, recipe.clips, recipe.clips_seed)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / f"{recipe.source.replace(' ', '-')}.npz"
        save_corpus(data, {name: simulated.split for name, simulated in corpus.items()})
        request = TrainingRequest(
            data=str(data),
            output=str(output),
            overrides=recipe.training,
            seed=recipe.seed,
            device="cpu",
            text_encoder=text_encoder,
            overwrite=True,
            synthetic=True,
            source=recipe.source,
            feature_names={name: list(names) for name, names in simulator.feature_names.items()},
            feature_units={name: list(units) for name, units in simulator.feature_units.items()},
        )
        stream: Iterator[Any] = build_training_graph().stream(
            request.model_dump(), stream_mode=["custom", "values"]
        )
        fingerprint = ""
        for mode, chunk in stream:
            if mode == "custom":
                _tell(chunk)
            else:
                fingerprint = chunk.get("fingerprint", "")
    return fingerprint


def sample_clip(recipe: EmbeddedRecipe, simulator: AffectSimulator) -> Split:
    """The clip that is handed out to try the tool on: one row, without a label, some of it missing."""
    wanted = recipe.sample
    drawn = simulator.sample(
        1, wanted.clip + 1, recipe.clips_seed, name="sample", first_group=wanted.speaker
    ).split.take([wanted.clip])
    missing = np.array([[name in wanted.missing for name in drawn.names]])
    return drawn.hide(missing).without_labels()


def measure(recipe: EmbeddedRecipe, simulator: AffectSimulator, output: Path) -> list[Comparison]:
    """The model beside the exact posterior on clips of speakers that it never met."""
    fresh = simulator.sample(
        MEASURED_SPEAKERS, recipe.clips, recipe.clips_seed, name="fresh", first_group=FIRST_MEASURED
    )
    return compare(load_model(output), simulator, fresh.split)


def _tell(event: dict[str, Any]) -> None:
    """A line for every stage that is done, a line that overwrites itself while one goes on."""
    what, done, of = str(event["stage"]).replace("_", " "), event["done"], event["of"]
    if not done:
        return
    loss = "" if event["loss"] is None else f", loss {event['loss']:.4f}"
    if stderr_console().is_terminal:
        end = "\n" if done == of else ""
        print(f"\r\033[K{what} {done}/{of}{loss}", end=end, file=sys.stderr, flush=True)
    elif done == of:
        note(f"{what}: {done}/{of}{loss}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line asks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m omg_graph.embedded.build", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="what to simulate and how to train")
    parser.add_argument("--output", type=Path, default=default_model_folder(), help="the model folder")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="where the example sample goes")
    parser.add_argument("--text-encoder", help="folder of the text encoder's weights")
    given = parser.parse_args(arguments)
    try:
        recipe = load_recipe(given.recipe)
        torch.set_num_threads(recipe.threads)
        simulator = build_simulator(recipe, given.text_encoder)
        fingerprint = build_model(recipe, simulator, given.output, given.text_encoder)
        save_sample(given.sample, sample_clip(recipe, simulator))
        for line in table(measure(recipe, simulator, given.output)):
            print(line)
    except OmgError as error:
        note(str(error))
        return error.exit_code
    size = sum(path.stat().st_size for path in given.output.rglob("*") if path.is_file())
    print(f"{given.output}: {size / 1e6:.2f} MB, fingerprint {fingerprint[:12]}; sample: {given.sample}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
