"""``omg kb``: build knowledge bases for a model, add to them, ask them, count what they hold."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.options import (
    AsJson,
    FillNonfinite,
    KbFolder,
    Label,
    Modalities,
    ModelFolder,
    TextEncoder,
    examples,
    model_folder,
    names_in,
    open_model,
)
from omg_graph.cli.output import cell, line, note, print_json, progress_bar, spinner, stdout_console, table

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.retriever.entries import KnowledgeBase
    from omg_graph.retriever.lookup import ScoredEntry, Statistics

app = typer.Typer(help="Build, extend and ask knowledge bases.", no_args_is_help=True)

DataOption = Annotated[list[Path], typer.Option("--data", help="A file of samples; may be repeated.")]
SplitOption = Annotated[
    list[str] | None,
    typer.Option("--split", help="A split to take; may be repeated. Else train, else the only one."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the planner's draws.")]


@app.callback()
def kb() -> None:
    """Build, extend and ask knowledge bases."""


@app.command(epilog=examples("kb build"))
def build(
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", help="The folder to write, replaced if it is one.")],
    model: ModelFolder = None,
    split: SplitOption = None,
    modalities: Modalities = None,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    text_encoder: TextEncoder = None,
    seed: SeedOption = 0,
) -> None:
    """Make a knowledge base of samples, for one model."""
    _check_output(output)
    loaded = open_model(model, text_encoder)
    built = _entries(loaded, data, split, modalities, label, fill_nonfinite, seed, output.resolve().name)
    built.save(output)
    typer.echo(f"{len(built)} entries written to {output}")


@app.command()
def add(
    data: DataOption,
    kb: Annotated[Path, typer.Option("--kb", help="The knowledge base folder to extend.")],
    model: ModelFolder = None,
    split: SplitOption = None,
    modalities: Modalities = None,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    text_encoder: TextEncoder = None,
    seed: SeedOption = 0,
) -> None:
    """Add samples to a knowledge base; an entry with the id of a new one is replaced."""
    from omg_graph.retriever.entries import KnowledgeBase

    _check_own(kb)
    existing = KnowledgeBase.load(kb)
    # Refused before any sample is planned if it isn't this model's.
    loaded = open_model(model, text_encoder).with_knowledge_base(existing)
    new = _entries(loaded, data, split, modalities, label, fill_nonfinite, seed, existing.name)
    extended = existing.extended(new)
    extended.save(kb)
    replaced = len(existing) + len(new) - len(extended)
    typer.echo(f"{len(new) - replaced} entries added to {kb}, {replaced} replaced: {len(extended)} in all")


@app.command(epilog=examples("kb query"))
def query(
    text: Annotated[str, typer.Option("--text", help="What to look for, in words.")],
    model: ModelFolder = None,
    kb: KbFolder = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="How many entries to list.")] = 5,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """List the entries whose text means most nearly what is asked for."""
    from omg_graph.errors import ConfigError
    from omg_graph.retriever.lookup import lookup

    if not text.strip():
        raise ConfigError("--text: expected some words, got none: say what to look for")
    loaded = open_model(model, text_encoder, kb)
    base = loaded.knowledge_base
    found = lookup(base, loaded.text_encoder.embed([text])[0], top_k)
    if as_json:
        print_json({"text": text, "knowledge_base": base.name, "entries": [asdict(entry) for entry in found]})
    else:
        _print_entries(found)


@app.command()
def stats(model: ModelFolder = None, kb: KbFolder = None, as_json: AsJson = False) -> None:
    """Count what a knowledge base holds; with --kb and --model both, refuse one of another model."""
    from omg_graph.retriever.entries import KnowledgeBase
    from omg_graph.retriever.lookup import stats as count

    with spinner("reading the knowledge base"):
        if kb is None:
            from omg_graph.model.folder import KNOWLEDGE_BASE, read_manifest

            folder = model_folder(model)
            read_manifest(folder)
            base = KnowledgeBase.load(folder / KNOWLEDGE_BASE)
        else:
            base = KnowledgeBase.load(kb)
            if model is not None:
                _require_model(base, model)
    counted = count(base)
    if as_json:
        print_json(_document(counted))
    else:
        _print_stats(counted)


def _entries(
    model: Model,
    data: list[Path],
    split: list[str] | None,
    modalities: str | None,
    label: str | None,
    fill_nonfinite: Literal["zero", "mean"] | None,
    seed: int,
    name: str,
) -> KnowledgeBase:
    from omg_graph.knowledge.entries import build_knowledge_base, read_sources

    sources, notes = read_sources(
        model,
        data,
        splits=split or (),
        modalities=names_in(modalities),
        label=label,
        fill_nonfinite=fill_nonfinite,
    )
    for remark in notes:
        note(remark)
    with progress_bar("planning", "samples") as progress:
        return build_knowledge_base(model, sources, name=name, seed=seed, on_progress=progress)


def _check_output(folder: Path) -> None:
    """Refuse a folder that can't be replaced before minutes are spent."""
    from omg_graph.errors import KnowledgeBaseError
    from omg_graph.retriever.entries import is_knowledge_base

    _check_own(folder)
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not is_knowledge_base(folder):
        raise KnowledgeBaseError(
            f"--output {folder}: a new or empty folder, or an older knowledge base, was expected; this holds "
            "other things: name another folder"
        )


def _check_own(folder: Path) -> None:
    """Refuse the knowledge base inside a model, whose manifest would no longer fit."""
    from omg_graph.errors import KnowledgeBaseError
    from omg_graph.model.folder import KNOWLEDGE_BASE, MANIFEST

    place = folder.resolve()
    if place.name == KNOWLEDGE_BASE and (place.parent / MANIFEST).is_file():
        raise KnowledgeBaseError(
            f"{folder} is part of a model and can't be changed without damaging it: copy the folder "
            "elsewhere, and give the copy with --kb"
        )


def _require_model(base: KnowledgeBase, folder: Path) -> None:
    from omg_graph.model.folder import read_manifest

    # The fingerprint covers the widths: a model needn't be loaded to compare them.
    widths = base.value_widths, base.text_embeddings.shape[1]
    base.require(read_manifest(folder).components, base.views, *widths)


def _print_entries(found: list[ScoredEntry]) -> None:
    labelled = any(entry.label is not None for entry in found)
    heads = ("score", "id", "label", "text", "source") if labelled else ("score", "id", "text", "source")
    shown = table("", *heads, lines=False)
    for entry in found:
        label = [cell(entry.label or "-")] if labelled else []
        shown.add_row(
            f"{entry.score:.3f}", cell(entry.id), *label, cell(entry.text), cell(entry.source, "dim")
        )
    stdout_console().print(shown)


def _print_stats(counted: Statistics) -> None:
    console = stdout_console()
    line(console, f"knowledge base {counted.name}", "bold")
    facts = {
        "entries": f"{counted.entries}",
        "groups": f"{counted.groups}, the largest of {counted.largest_group}",
        "different texts": f"{counted.texts}",
        "of model": counted.model_fingerprint[:12],
        "fingerprint": counted.fingerprint[:12],
    }
    for what, text in facts.items():
        line(console, f"  {what:<16} {text}")
    parts = table("", "part", "name", figures=("width", "entries"), lines=False)
    for part, rows in (("view of the key", counted.views), ("value", dict(sorted(counted.values.items())))):
        for name, (width, entries) in rows.items():
            parts.add_row(part, cell(name), cell(width), cell(entries))
    console.print(parts)
    for heading, counts in (("source", counted.sources), ("label", counted.labels)):
        if counts:
            listed = table("", heading, figures=("entries",), lines=False)
            for name, number in counts.items():
                listed.add_row(cell(name), cell(number))
            console.print(listed)


def _document(counted: Statistics) -> dict[str, Any]:
    document = asdict(counted)
    for part in ("views", "values"):
        document[part] = {
            name: {"width": width, "entries": entries} for name, (width, entries) in document[part].items()
        }
    return document
