"""``omg simulate``: synthetic affect clips to try the tool on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omg_graph.cli.options import TextEncoder

HELD_OUT_SHARE = 0.15
"""Of the speakers, for ``valid`` and again for ``test``."""


def simulate(
    output: Annotated[Path, typer.Option("--output", help="The file to write: .npz or .pkl.")],
    speakers: Annotated[int, typer.Option(min=1, help="Speakers in all; each is in one split only.")] = 100,
    clips: Annotated[int, typer.Option(min=1, help="Clips of each speaker.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the clips; the same seed gives the same file.")] = 0,
    text_encoder: TextEncoder = None,
) -> None:
    """Write synthetic clips (text, audio, vision, sentiment); three speakers or more give three splits."""
    from omg_graph.cli.output import note, spinner
    from omg_graph.data.writing import check_path, save_corpus

    check_path(output)
    with spinner("simulating"):
        from omg_graph.encoders.text import MINILM, SentenceEncoder, locate_text_encoder
        from omg_graph.simulator import AffectSimulator, SimulatorConfig

        encoder = SentenceEncoder(locate_text_encoder(MINILM, text_encoder))
        corpus = AffectSimulator(SimulatorConfig(), encoder.embed).corpus(
            speakers_of_splits(speakers), clips, seed, prefix=speaker_prefix(seed)
        )
    splits = {name: simulated.split for name, simulated in corpus.items()}
    save_corpus(output, splits)
    note("synthetic clips: for trying the tool, no evidence about people")
    counts = ", ".join(f"{name}: {len(split)}" for name, split in splits.items())
    typer.echo(f"{sum(map(len, splits.values()))} synthetic clips written to {output} ({counts})")


def speaker_prefix(seed: int) -> str:
    """What speakers are called: strangers to those that the embedded model has in its knowledge base."""
    return f"synthetic-s{seed}"


def speakers_of_splits(speakers: int) -> dict[str, int]:
    """How many speakers each split gets; fewer than three make one split, ``train``."""
    if speakers < 3:
        return {"train": speakers}
    held = max(1, round(HELD_OUT_SHARE * speakers))
    return {"train": speakers - 2 * held, "valid": held, "test": held}
