"""Which schema fits a data set, and the plan of every training sample under it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from omg_graph.data.dataset import Labels, Split
from omg_graph.errors import SchemaError
from omg_graph.planner.annotator import ACTION, ENTITY, LexicalAnnotator, UnreadableTextError
from omg_graph.planner.clusters import cluster_schema, feature_vectors
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.schemas import AFFECT, class_schema, degree_schema, load_schema, reading_schema

AnnotatorName = Literal["auto", "lexical", "labels", "clusters"]

SENTIMENT_RANGE = 3.0
"""MMSA's scale of sentiment: -3 to 3."""

SENTIMENT_NAMES = ("regression", "sentiment")
"""What a label of sentiment is called where there is no text to confirm it."""


@dataclass(frozen=True)
class SchemaChoice:
    """A schema, what the training samples' plans are under it, and why it was chosen."""

    schema: Schema
    plans: tuple[Plan | None, ...]
    """One for each sample; None where there is none, so that nothing is learnt from that sample."""
    note: str
    """What was chosen and why, a sentence or two for the user."""


def choose_schema(
    split: Split, schema: Schema | None = None, *, annotator: AnnotatorName = "auto", seed: int = 0
) -> SchemaChoice:
    """A schema for a training split, and a plan for each of its samples.

    | labels | English text | no text that can be read |
    | --- | --- | --- |
    | classes | Entity, Action, Class | Class |
    | sentiment (within [-3, 3], both signs) | Entity, Action, Sentiment | Sentiment |
    | other numbers | Entity, Action | clusters |
    | none | Entity, Action, Sentiment (from the words) | clusters |

    Without any text, numbers count as sentiment only if the label's name says so.

    Args:
        split: the training samples.
        schema: the user's own; the annotator then fills what it can.
        annotator: ``auto`` reads the text where it can, ``lexical`` insists on it, ``labels`` leaves it
            alone, ``clusters`` leaves the labels alone too.
        seed: of the clusters' first centres.

    Raises:
        SchemaError: if a schema of the user's has a field that can't be filled from this data, or text is
            insisted on and can't be read.
        DataError: if plans have to come from clusters, and no feature varies.
    """
    if annotator == "clusters":
        split = replace(split, raw_text=None, labels=None)
    labels = split.labels if split.labels is not None and np.isfinite(split.labels.values).any() else None
    text_note = unreadable_text(split, annotator)
    if annotator == "lexical" and text_note is not None:
        raise SchemaError(
            f"the lexical annotator was asked to write the plans from the text, but {text_note}: leave out "
            "--annotator, or choose labels or clusters"
        )
    if schema is not None:
        return _as_asked(split, schema, labels, text_note)
    fitting = _fitting(split, labels, text_note)
    if fitting is None:
        return _clustered(split, labels, text_note or "", seed)
    chosen, reason = fitting
    return _annotated(split, chosen, labels, text_note is None, f"{_fields(chosen)}: {reason}")


def _fitting(split: Split, labels: Labels | None, text_note: str | None) -> tuple[Schema, str] | None:
    """The schema that text and labels call for, and why; None if there is nothing but features."""
    readable = text_note is None
    text = "English text" if readable else text_note
    if labels is None:
        words = "and no labels, so that sentiment comes from the words"
        return (load_schema(AFFECT), f"{text} {words}") if readable else None
    if labels.kind == "classes":
        leading = reading_schema().fields if readable else ()
        return class_schema(labels.class_names, leading), f"class labels {labels.name!r}, and {text}"
    if _is_sentiment(labels, split, readable):
        scale = 1 / 3 if np.nanmax(np.abs(labels.values)) <= 1.0 else 1.0
        reason = f"labels {labels.name!r} of sentiment from {-3 * scale:g} to {3 * scale:g}, and {text}"
        return load_schema(AFFECT).scaled(scale) if readable else degree_schema(scale), reason
    reason = f"{text}, and labels {labels.name!r} that are not degrees of sentiment"
    return (reading_schema(), reason) if readable else None


def unreadable_text(split: Split, annotator: AnnotatorName = "auto") -> str | None:
    """Why the lexical annotator doesn't read a split's texts; None if it does."""
    if split.raw_text is None or not any(text and text.strip() for text in split.raw_text):
        return "there is no text"
    if annotator == "labels":
        return "the text is left alone, as asked"
    try:
        LexicalAnnotator(load_schema(AFFECT)).check_language(split.raw_text)
    except UnreadableTextError as error:
        return error.reason
    return None


def _is_sentiment(labels: Labels, split: Split, readable: bool) -> bool:
    values = labels.values[np.isfinite(labels.values)]
    in_range = bool((values > 0).any() and (values < 0).any() and np.abs(values).max() <= SENTIMENT_RANGE)
    has_text = readable or (split.raw_text is not None and any(split.raw_text))
    named = any(word in labels.name.lower() for word in SENTIMENT_NAMES)
    return in_range and (has_text or named)


def _fields(schema: Schema) -> str:
    return f"plans of {', '.join(schema.field_names)}"


def _annotated(
    split: Split, schema: Schema, labels: Labels | None, readable: bool, note: str
) -> SchemaChoice:
    texts = split.raw_text
    if texts is None or not readable:
        texts = (None,) * len(split)
    given: list[float] | list[str | None] | None = None
    if schema.target is None:
        labels = None
    if labels is not None and labels.kind == "classes":
        given = [labels.class_names[int(value)] if np.isfinite(value) else None for value in labels.values]
    elif labels is not None:
        given = [float(value) for value in labels.values]
    plans = LexicalAnnotator(schema).annotate(texts, given)
    unplanned = sum(plan is None for plan in plans)
    if unplanned:
        note += f"; {unplanned} of {len(plans)} samples have no plan and teach the planner nothing"
    return SchemaChoice(schema, tuple(plans), note)


def _as_asked(split: Split, schema: Schema, labels: Labels | None, text_note: str | None) -> SchemaChoice:
    """A schema of the user's: its target from the labels or the text, Entity and Action from the text."""
    reads = [name for name in schema.field_names if name != schema.target and name in (ENTITY, ACTION)]
    if text_note is not None and reads:
        raise SchemaError(
            f"{' and '.join(reads)} of schema {schema.name!r} would be read from the text, "
            f"but {text_note}: leave them out"
        )
    if schema.target is not None:
        _check_target(schema, labels, text_note)
    note = f"{_fields(schema)}: schema {schema.name!r}, as asked"
    return _annotated(split, schema, labels, text_note is None, note)


def _check_target(schema: Schema, labels: Labels | None, text_note: str | None) -> None:
    if schema.degrees is not None:
        if labels is not None and labels.kind == "classes":
            raise SchemaError(
                f"schema {schema.name!r} has degrees for numeric labels, but {labels.name!r} holds classes: "
                "give class_names instead, or another label with --label"
            )
        if labels is None and text_note is not None:
            raise SchemaError(
                f"{schema.target!r} of schema {schema.name!r} comes from labels or text, but there are no "
                f"labels, and {text_note}: choose a label with --label"
            )
        return
    if labels is None or labels.kind != "classes":
        raise SchemaError(
            f"schema {schema.name!r} has a target without degrees, which takes class labels, "
            "and this data has none: give degrees, or another label with --label"
        )
    values = next(field.values or () for field in schema.fields if field.name == schema.target)
    named = set(values) if schema.class_names is None else set(schema.class_names.values())
    unknown = [name for name in labels.class_names if name not in named]
    if unknown:
        raise SchemaError(
            f"schema {schema.name!r} has no value for class {unknown[0]!r} of {labels.name!r}: "
            f"it knows {', '.join(sorted(named))}"
        )


def _clustered(split: Split, labels: Labels | None, text_note: str, seed: int) -> SchemaChoice:
    schema, plans = cluster_schema(feature_vectors(split), split.observed, seed=seed)
    what = "no labels" if labels is None else f"labels {labels.name!r} that are not degrees of sentiment"
    note = f"{_fields(schema)}: clusters of the training data, for there are {what} ({text_note})"
    return SchemaChoice(schema, tuple(plans), note)
