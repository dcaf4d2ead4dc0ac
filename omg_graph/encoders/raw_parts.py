"""The raw parts of observations: what a person would read, hear or see of a sample, beside its features."""

from __future__ import annotations

from dataclasses import dataclass

from omg_graph.data.dataset import TEXT_MODALITY, BoolArray, Split
from omg_graph.data.recordings import Recording

Content = tuple[str | Recording, ...]
"""What a language model is given of one observation: the transcript and recordings, in a fixed order."""


@dataclass(frozen=True)
class RawPart:
    """The transcript or one recording of a sample."""

    column: int | None
    """The modality that it is shown and hidden with; None for a transcript where no modality is text."""
    content: str | Recording


def raw_parts(split: Split) -> list[tuple[RawPart, ...]]:
    """The raw parts of what is observed of each sample: recordings by modality, the transcript last.

    The transcript comes last so that a causal model reads it with what was heard and seen in mind.
    """
    text_column = split.names.index(TEXT_MODALITY) if TEXT_MODALITY in split.names else None
    found = []
    for row in range(len(split)):
        parts = []
        for column, name in enumerate(split.names):
            recordings = split.recordings.get(name)
            recording = None if recordings is None else recordings[row]
            if recording is not None and split.observed[name][row]:
                parts.append(RawPart(column, recording))
        text = None if split.raw_text is None else split.raw_text[row]
        if text and text.strip() and (text_column is None or split.observed[TEXT_MODALITY][row]):
            parts.append(RawPart(text_column, text))
        found.append(tuple(parts))
    return found


def shown(parts: tuple[RawPart, ...], visible: BoolArray) -> Content:
    """The contents of the parts whose modality is visible.

    Args:
        parts: Of one sample.
        visible: (modalities,).
    """
    return tuple(part.content for part in parts if part.column is None or visible[part.column])
