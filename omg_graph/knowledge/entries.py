"""Entries of a knowledge base from samples: key, values, text and provenance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.encoders.hidden_states import HiddenStates, raw_states
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import TextEncoder
from omg_graph.model.config import QueryKind
from omg_graph.model.model import PSI_VIEW
from omg_graph.planner.schema import Plan, Schema
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import build_keys, side_by_side


def make_entries(
    split: Split,
    plans: Sequence[Plan | None],
    *,
    latent_space: LatentSpace,
    encoder: ObservationEncoder,
    text_encoder: TextEncoder,
    schema: Schema,
    query: QueryKind,
    components: str,
    name: str,
    source: str,
    hidden_states: HiddenStates | None = None,
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
        components: Fingerprint of what entries depend on.
        name: What messages call the knowledge base.
        source: Where the entries come from, e.g. ``mosi.pkl · train``.
        hidden_states: What psi reads of raw parts, where it does.
    """
    latents = latent_space.encode(split)
    if query == "literal":
        raw = None if hidden_states is None else raw_states(hidden_states, split)
        with torch.inference_mode():
            embedded = encoder(latents, torch.from_numpy(split.mask()), raw).numpy()
        vectors, there = {PSI_VIEW: embedded}, {PSI_VIEW: np.ones(len(split), dtype=np.bool_)}
    else:
        vectors = {modality: value.numpy() for modality, value in latents.items()}
        there = {modality: split.observed[modality] for modality in latents}
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
