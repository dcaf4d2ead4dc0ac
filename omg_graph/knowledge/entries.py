"""Entries of a knowledge base from samples: key, values, text and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import FloatArray, IntArray, Split
from omg_graph.data.reader import DataFile
from omg_graph.data.splits import conform
from omg_graph.encoders.hidden_states import HiddenStates, raw_states
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import TextEncoder
from omg_graph.errors import DataError, KnowledgeBaseError
from omg_graph.model.config import QueryKind
from omg_graph.model.model import PSI_VIEW, Model
from omg_graph.pipeline import observe, propose, rerank
from omg_graph.planner.schema import Plan, Schema
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import PLAN_VIEW, build_keys, side_by_side

MICRO_BATCH = 64
"""Samples planned at once; what a sample's plan is doesn't depend on it."""

Progress = Callable[[int, int], None]
"""(samples done, of)."""


@dataclass(frozen=True)
class EntrySource:
    """Samples to make entries from, in the model's own shapes, and what their provenance says."""

    split: Split
    source: str
    """Where the entries come from, e.g. ``mosi.pkl · train``."""


def build_knowledge_base(
    model: Model,
    sources: Sequence[EntrySource],
    *,
    name: str,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> KnowledgeBase:
    """Entries of all the samples: keys and values by the model's own parts, texts by its own planner.

    Every plan is read off the full observation (Eqs. 5 and 6), never off a label.

    Args:
        model: whose psi, g, autoencoders and planner make the entries; they serve this model alone.
        sources: at least one; see ``read_sources``.
        name: what messages call the knowledge base.
        seed: of the planner's draws; a sample's entry depends on (seed, its id) and its content alone.
        on_progress: progress callback, after each micro-batch.

    Raises:
        KnowledgeBaseError: if there is no sample, or an id comes twice.
        PlanError: if no candidate plan of a sample obeys the schema.
    """
    if not sources:
        raise KnowledgeBaseError("expected data to make entries from, got none: name a file")
    _check_ids(sources)
    total, done = sum(len(source.split) for source in sources), 0
    built: KnowledgeBase | None = None
    # The literal reading embeds whole splits on the CPU, where latents are.
    encoder = model.encoder if model.device.type == "cpu" else deepcopy(model.encoder).to(torch.device("cpu"))
    for source in sources:
        plans: list[Plan | None] = []
        for start in range(0, len(source.split), MICRO_BATCH):
            batch = source.split.take(range(start, min(start + MICRO_BATCH, len(source.split))))
            plans += choose_plans(model, batch.without_labels(), seed)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, total)
        entries = make_entries(
            source.split,
            plans,
            latent_space=model.latent_space,
            encoder=encoder,
            text_encoder=model.text_encoder,
            schema=model.schema,
            query=model.config.retrieval.query,
            plan_view=model.config.retrieval.plan_view,
            components=model.manifest.components,
            name=name,
            source=source.source,
            hidden_states=model.hidden_states,
        )
        built = entries if built is None else built.extended(entries)
    assert built is not None  # for the type checker: there is at least one source
    return built


def choose_plans(model: Model, split: Split, seed: int) -> list[Plan]:
    """S* of each sample of a micro-batch, by the model's planner and re-ranking."""
    observation = observe(model, split)
    candidates = propose(model, split, observation, seed=seed)
    return [chosen.best.values for chosen in rerank(model, candidates, observation.embedding)]


def read_sources(
    model: Model,
    files: Sequence[Path],
    *,
    splits: Sequence[str] = (),
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
) -> tuple[list[EntrySource], tuple[str, ...]]:
    """Samples of data files in the model's shapes, and notes on which were taken.

    Args:
        model: whose modalities they get; rows with none of them are left out, and a note says so.
        files: MMSA pickles or ``.npz`` files.
        splits: the splits to take where a file has them; by default ``train``, else the only one.
        modalities: the fields to read as modalities; every numeric array when None.
        label: the field that entries get a label from.
        fill_nonfinite: what takes the place of single non-finite numbers.

    Raises:
        DataError: if a file can't be used or has none of the splits, or a split is in none of the files.
    """
    sources: list[EntrySource] = []
    notes: list[str] = []
    found: set[str] = set()
    for path in files:
        data = model.read(path, modalities=modalities, label=label, fill_nonfinite=fill_nonfinite)
        names = _chosen(data, splits)
        found.update(names)
        for name in names:
            split, remarks = conform(data.splits[name], model.config.modalities, str(path), empty_rows="drop")
            sources.append(EntrySource(split, f"{path.name} · {name}"))
            notes.append(f"{path.name}: split {name!r}, {len(split)} samples")
            notes += [f"{path.name}: {remark}" for remark in remarks]
    unknown = [name for name in splits if name not in found]
    if unknown:
        raise DataError(f"--split {unknown[0]}: none of the files has it; leave it out, or name another")
    return sources, tuple(notes)


def _chosen(data: DataFile, splits: Sequence[str]) -> list[str]:
    there = ", ".join(data.splits)
    if splits:
        names = [name for name in dict.fromkeys(splits) if name in data.splits]
        if not names:
            raise DataError(
                f"{data.path}: expected a split {' or '.join(splits)}, the file has {there}: "
                "name one of these with --split"
            )
        return names
    if "train" in data.splits:
        return ["train"]
    if len(data.splits) == 1:
        return list(data.splits)
    raise DataError(f"{data.path}: which split to take isn't plain: give --split with some of {there}")


def _check_ids(sources: Sequence[EntrySource]) -> None:
    owner: dict[str, str] = {}
    for source in sources:
        for sample_id in source.split.ids:
            if sample_id in owner:
                raise KnowledgeBaseError(
                    f"expected different ids, {sample_id!r} comes from {owner[sample_id]} and from "
                    f"{source.source}: give samples ids of their own in the field id, or leave one out"
                )
        owner |= dict.fromkeys(source.split.ids, source.source)


def make_entries(
    split: Split,
    plans: Sequence[Plan | None],
    *,
    latent_space: LatentSpace,
    encoder: ObservationEncoder,
    text_encoder: TextEncoder,
    schema: Schema,
    query: QueryKind,
    plan_view: bool = False,
    components: str,
    name: str,
    source: str,
    hidden_states: HiddenStates | None = None,
    latents: Mapping[str, Tensor] | None = None,
) -> KnowledgeBase:
    """One entry for each sample; what a sample misses, its entry misses too.

    Args:
        split: The samples.
        plans: A plan for each, or None; it is part of the entry's text.
        latent_space: Makes values, and keys in the usual reading.
        encoder: psi, which makes keys in the literal reading.
        text_encoder: g.
        schema: Puts plans into words.
        query: How queries are made; ``literal`` has keys in psi's space.
        plan_view: Whether keys have the plan in words as one more view.
        components: Fingerprint of what entries depend on.
        name: What messages call the knowledge base.
        source: Where the entries come from, e.g. ``mosi.pkl · train``.
        hidden_states: What psi reads of raw parts, where it does.
        latents: The samples' latents, where they are encoded already.
    """
    latents = latent_space.encode(split) if latents is None else latents
    if query == "literal":
        raw = None if hidden_states is None else raw_states(hidden_states, split)
        with torch.inference_mode():
            embedded = encoder(latents, torch.from_numpy(split.mask()), raw).numpy()
        vectors, there = {PSI_VIEW: embedded}, {PSI_VIEW: np.ones(len(split), dtype=np.bool_)}
    else:
        vectors = {modality: value.numpy() for modality, value in latents.items()}
        there = {modality: split.observed[modality] for modality in latents}
    if plan_view:
        vectors[PLAN_VIEW], numbers = plan_vectors(schema, text_encoder, plans)
        there[PLAN_VIEW] = numbers >= 0
    keys, has_view = build_keys(vectors, there)
    texts = [entry_text(schema, plan, text) for plan, text in zip(plans, _transcripts(split), strict=True)]
    return KnowledgeBase(
        name=name,
        model_fingerprint=components,
        views=side_by_side({view: rows.shape[1] for view, rows in vectors.items()}),
        ids=split.ids,
        groups=split.groups,
        texts=tuple(texts),
        sources=(source,) * len(split),
        keys=keys,
        has_view=has_view,
        values={modality: value.numpy() for modality, value in latents.items()},
        has_value={modality: split.observed[modality] for modality in latents},
        text_embeddings=text_encoder.embed(texts),
        labels=_label_texts(split),
    )


def plan_vectors(
    schema: Schema, text_encoder: TextEncoder, plans: Sequence[Plan | None]
) -> tuple[FloatArray, IntArray]:
    """G of each plan in words, (plans, shared), zeros where there is none; and equal numbers for equal plans.

    The numbers, (plans,), are -1 where there is none.
    """
    texts = [None if plan is None else schema.text(plan) for plan in plans]
    distinct = sorted({text for text in texts if text is not None})
    places: dict[str | None, int] = {text: number for number, text in enumerate(distinct)}
    table = np.zeros((len(distinct) + 1, text_encoder.width), np.float32)  # the last row is that of no plan
    table[: len(distinct)] = text_encoder.embed(distinct)
    numbers = np.array([places.get(text, -1) for text in texts], dtype=np.int64)
    return table[numbers], numbers


def entry_text(schema: Schema, plan: Plan | None, transcript: str | None) -> str:
    """What an entry says: its plan in words and, where there is one, its transcript."""
    parts = [] if plan is None else [schema.text(plan)]
    if transcript:
        parts.append(f"“{transcript}”")
    return " · ".join(parts) or "an entry without words"


def _transcripts(split: Split) -> Sequence[str | None]:
    return split.raw_text or (None,) * len(split)


def _label_texts(split: Split) -> tuple[str | None, ...] | None:
    labels = split.labels
    if labels is None:
        return None
    names = labels.class_names
    return tuple(
        None if np.isnan(value) else names[int(value)] if labels.kind == "classes" else f"{value:g}"
        for value in labels.values
    )
