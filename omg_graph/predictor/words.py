"""The words of a transcript as a vector: the commonest words and pairs of words, weighed by their rarity."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from omg_graph.data.dataset import FloatArray

WORD = re.compile(r"\w+")


class WordEncoder(BaseModel):
    """TF-IDF with logarithmic counts over words and pairs of neighbouring words, unit length.

    What a sentence embedding averages away, "not bad" beside "bad", is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: tuple[str, ...]
    rarity: tuple[float, ...]
    """Inverse document frequency of each term, log((1 + texts) / (1 + texts with it)) + 1."""

    @model_validator(mode="after")
    def _one_rarity_each(self) -> WordEncoder:
        if len(self.terms) != len(self.rarity):
            raise ValueError(f"{len(self.terms)} terms need as many rarities, {len(self.rarity)} came")
        return self

    @classmethod
    def fit(cls, texts: Sequence[str | None], limit: int = 1024) -> WordEncoder:
        """The terms that stand in the most texts, in two of them at least.

        Args:
            texts: Training texts; None where there is none.
            limit: Terms at most.
        """
        there = [text for text in texts if text is not None]
        counts = Counter(term for text in there for term in set(_terms(text)))
        common = sorted((term for term, count in counts.items() if count > 1), key=lambda t: (-counts[t], t))
        kept = sorted(common[:limit])
        return cls(
            terms=tuple(kept),
            rarity=tuple(math.log((1 + len(there)) / (1 + counts[term])) + 1 for term in kept),
        )

    @property
    def width(self) -> int:
        """Terms."""
        return len(self.terms)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {term: place for place, term in enumerate(self.terms)}

    def encode(self, texts: Sequence[str | None]) -> FloatArray:
        """(texts, terms); zeros for a text that is None or has no known term."""
        places = self._places
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for term, count in Counter(_terms(text or "")).items():
                if term in places:
                    out[row, places[term]] = (1 + math.log(count)) * self.rarity[places[term]]
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.asarray(out / np.maximum(norms, 1e-12), dtype=np.float32)


def _terms(text: str) -> Iterator[str]:
    words = WORD.findall(text.lower())
    yield from words
    yield from (f"{first} {second}" for first, second in pairwise(words))
