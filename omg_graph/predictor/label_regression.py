"""The label regression: closed-form label estimates from features and words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, FloatArray
from omg_graph.planner.annotator import english, words_of
from omg_graph.predictor.task import TaskHeadConfig, label_columns
from omg_graph.priors.kernel import KernelConditional
from omg_graph.priors.kernel_fitting import kept_and_tuned
from omg_graph.priors.prior import Examples, Shown

WORDS, VALENCE, LABEL = "\twords", "\tvalence", "\tlabel"
"""Further inputs of the kernel; the tab avoids clashes with names of modalities."""
WORD = re.compile(r"\w+")


class WordEncoder(BaseModel):
    """TF-IDF with logarithmic counts over words and pairs of neighbouring words, unit length.

    It keeps what a sentence embedding averages away, such as "not bad" against "bad".
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
        """The terms that occur in the most texts, at least in two.

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


@dataclass(frozen=True)
class LabelRegression:
    """Kernel regression of the label on observed modalities, for any pattern.

    A transcript is used by its terms and by its valence from word lists, if training transcripts share terms.
    Rows of a sample's own id or group are left out, as in retrieval.
    """

    kernel: KernelConditional
    words: WordEncoder

    @property
    def width(self) -> int:
        """Columns of the label."""
        return self.kernel.widths[LABEL]

    @classmethod
    def untrained(
        cls, widths: Mapping[str, int], task: TaskHeadConfig, words: WordEncoder
    ) -> LabelRegression:
        """An empty regression of the right widths, to load weights into."""
        beside = {WORDS: words.width, VALENCE: len(_valence(None)), LABEL: task.reading}
        return cls(KernelConditional({**widths, **beside}), words)

    @classmethod
    def fit(
        cls,
        rows: Examples,
        task: TaskHeadConfig,
        label: Float[Tensor, " row"],
        texts: Sequence[str | None] | None,
        seed: int,
    ) -> LabelRegression:
        """Keep rows with their words and labels, and choose length and ridge for every observed set.

        Args:
            rows: Training rows.
            task: What the head predicts.
            label: The rows' labels, NaN where there is none.
            texts: Transcripts, None where there is none; None to use none of them.
            seed: Decides which rows are kept.
        """
        # a transcript is hidden with the text modality: without that modality it could not be hidden
        texts = texts if TEXT_MODALITY in rows.names else None
        words = WordEncoder.fit(texts or ())
        texts = texts if words.width else None
        inputs, there = with_words(rows.latents, rows.known, texts, words)
        inputs[LABEL] = label_columns(task, label)
        there = torch.cat([there, ~label.isnan().unsqueeze(1)], dim=1)
        patterns = rows.pool.observed_sets()
        patterns = torch.cat([patterns, torch.ones(1, patterns.shape[1], dtype=torch.bool)])
        read = torch.zeros(len(patterns), 1, dtype=torch.bool)
        if texts is not None:
            read = patterns[:, rows.names.index(TEXT_MODALITY)].unsqueeze(1)
        kernel = kept_and_tuned(
            inputs,
            there,
            rows.ids,
            rows.groups,
            torch.cat([patterns, read, read, torch.zeros_like(read)], dim=1),
            most_rows=rows.most_rows,
            seed=seed,
            purpose="reader",
            targets=[LABEL],
        )
        return cls(kernel, words)

    def predict(self, shown: Shown, texts: Sequence[str | None] | None) -> Float[Tensor, "sample width"]:
        """The regression's estimate of the label's columns (``label_columns``).

        Args:
            shown: The samples.
            texts: Transcripts that may be used, None where there is none.
        """
        inputs, seen = with_words(
            shown.latents, shown.observed, texts if self.words.width else None, self.words
        )
        inputs[LABEL] = seen.new_zeros(len(shown.ids), self.width, dtype=torch.float32)
        seen = torch.cat([seen, torch.zeros_like(seen[:, :1])], dim=1)
        return self.kernel.predict(
            LABEL, Shown(ids=shown.ids, groups=shown.groups, latents=inputs, observed=seen)
        )

    def describe(self, texts: Sequence[str | None] | None, count: int) -> Float[Tensor, "sample term"] | None:
        """Encoded words and valence of transcripts, zeros where there is none; None if texts aren't used.

        Args:
            texts: Transcripts that may be used.
            count: How many samples there are.
        """
        if not self.words.width:
            return None
        texts = [None] * count if texts is None else texts
        valences = torch.tensor([_valence(text) for text in texts]).reshape(count, -1)
        return torch.cat([torch.from_numpy(self.words.encode(texts)), valences], dim=1)


def with_words(
    latents: Mapping[str, Tensor], observed: Tensor, texts: Sequence[str | None] | None, words: WordEncoder
) -> tuple[dict[str, Tensor], Tensor]:
    """The latents with encoded transcripts, and the mask of which inputs are present."""
    texts = [None] * len(observed) if texts is None else list(texts)
    there = torch.tensor([text is not None for text in texts], dtype=torch.bool, device=observed.device)
    encoded = torch.from_numpy(words.encode(texts)).to(observed.device)
    valences = torch.tensor([_valence(text) for text in texts], device=observed.device)
    columns = [observed]
    columns.append((there & encoded.any(dim=1)).unsqueeze(1))
    columns.append(there.unsqueeze(1))
    return {**latents, WORDS: encoded, VALENCE: valences}, torch.cat(columns, dim=1)


def _valence(text: str | None) -> tuple[float, float, float]:
    valence = 0.0 if text is None else english().valence(words_of(text))
    return math.tanh(valence / 2), float(valence > 0), float(valence < 0)
