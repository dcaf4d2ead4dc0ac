"""What there is to know of a split's recordings: how much of them, and which can't be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from omg_graph.data.raw import RawSplit
from omg_graph.data.recordings import Extent, Recording
from omg_graph.errors import DataError


def recording_notes(raw: RawSplit) -> list[str]:
    """What a user may not expect of recordings, or of fields that are called like some."""
    notes = []
    for name in (*raw.columns, *raw.ignored):
        modality = name.removeprefix("raw_")
        if modality != name:
            taken = "taken for a modality of its own" if name in raw.columns else "left out"
            notes.append(f"{name} is {taken}: no modality {modality!r} is beside it whose recordings it held")
    for name, found in raw.recordings.items():
        seen = raw.observed(name)
        hidden = sum(one is not None and not there for one, there in zip(found, seen, strict=True))
        if hidden:
            notes.append(f"{hidden} recordings in raw_{name} are left out: {name} is missing there")
    return notes


def recording_report(modality: str, recordings: Sequence[Recording | None]) -> tuple[str, list[str]]:
    """How much there is of one modality's recordings, by what files declare, and what is wrong with them.

    Returns:
        A sentence, and a message for each recording that can't be used.
    """
    extents: list[Extent] = []
    wrong: list[str] = []
    for one in recordings:
        if one is None:
            continue
        try:
            extents.append(one.extent)
        except DataError as error:
            wrong.append(f"raw_{modality}: {error}")
    kinds = Counter(one.kind for one in recordings if one is not None)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    seconds = sum(extent.seconds or 0.0 for extent in extents)
    length = f", {seconds:.1f} s in all" if seconds else ""
    return f"{modality}: {sum(kinds.values())} recordings ({told}{length})", wrong
