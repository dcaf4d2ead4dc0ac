"""What is hidden in an evaluation: protocols, and the conditions that each of them makes of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.data.masks import MaskFile, all_patterns, random_masks
from omg_graph.errors import ConfigError, DataError
from omg_graph.seeding import derived_seed

Protocol = Literal["fixed", "random", "imbalanced", "file"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
RATES = tuple(round(0.1 * step, 1) for step in range(8))
"""Missing rates of the random protocol where none is named."""
FEW = 3
"""Up to so many modalities, the fixed protocol takes every pattern."""

Rate = float | dict[str, float] | None


@dataclass(frozen=True)
class Condition:
    """One set of masks: a pattern, or a rate drawn with one seed."""

    name: str
    """What is averaged over seeds and paired between methods: ``text+audio``, ``rate 0.7``, a file's name."""
    protocol: str
    rate: Rate
    """Nominal; a rate for each modality where modalities fail unequally."""
    mask_seed: int | None
    """None where nothing is drawn."""
    mask: MaskFile
    hidden: BoolArray
    """(samples, modalities): observed slots that are hidden."""
    visible: BoolArray
    """(samples, modalities): what is left; a sample with nothing left takes no part."""
    pattern: BoolArray | None = None
    """(modalities,): what is observed of everyone, where that was asked for."""

    @property
    def observed(self) -> BoolArray | None:
        """(modalities,): what is observed of everyone who takes part; None where that differs."""
        if self.pattern is not None:
            return self.pattern
        shown = self.visible[self.rows]
        return shown[0] if len(shown) and bool((shown == shown[0]).all()) else None

    @property
    def rows(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The samples that take part."""
        return np.flatnonzero(self.visible.any(axis=1))

    @property
    def realised_rate(self) -> float:
        """The share of all slots that are missing, those missing by nature included."""
        return self.mask.realised_rate

    @property
    def file_name(self) -> str:
        """Where the mask is written, in the folder of masks."""
        plain = "".join(letter if letter.isalnum() or letter in "+-=.," else "-" for letter in self.name)
        seed = "" if self.mask_seed is None else f"-seed{self.mask_seed}"
        return f"{self.protocol}-{plain}{seed}.json"


def conditions_of(
    split: Split,
    protocol: str,
    *,
    rates: Sequence[float] | Mapping[str, float] | None = None,
    patterns: Sequence[Sequence[str]] | None = None,
    masks: Sequence[Path] = (),
    seeds: int = 5,
) -> list[Condition]:
    """Everything that a protocol measures on a split.

    Args:
        split: the samples as they are; slots that are missing by nature stay so.
        protocol: ``fixed``, ``random``, ``imbalanced`` or ``file``.
        rates: rates for ``random`` (0.0 to 0.7 by default); modality to rate for ``imbalanced``.
        patterns: observed modalities, for ``fixed``; a default that depends on their number otherwise.
        masks: files, for ``file``.
        seeds: mask seeds, from 0, for ``random`` and ``imbalanced``.

    Raises:
        ConfigError: if the settings don't fit the protocol.
        DataError: if a mask doesn't fit the split, or nobody takes part.
    """
    _check_settings(protocol, rates, patterns, masks, seeds)
    if protocol == "fixed":
        found = [_fixed(split, visible) for visible in fixed_patterns(split.names, patterns)]
    elif protocol == "file":
        found = [_from_file(split, path, masks) for path in masks]
    elif protocol == "imbalanced":
        assert isinstance(rates, Mapping)  # for the type checker: settings are checked
        found = [_imbalanced(split, rates, seed) for seed in range(seeds)]
    else:
        assert not isinstance(rates, Mapping)
        found = [_random(split, rate, seed) for rate in (rates or RATES) for seed in range(seeds)]
    taking_part = [condition for condition in found if len(condition.rows)]
    if not taking_part:
        raise DataError(
            f"{split.name}: something observed was expected under the protocol {protocol}, nothing is: "
            "hide less, or take another split"
        )
    return taking_part


def fixed_patterns(names: Sequence[str], listed: Sequence[Sequence[str]] | None = None) -> list[BoolArray]:
    """(modalities,) each: the observed subsets, as listed, or by default.

    Every non-empty one of up to three modalities; of more the single ones, the pairs, all but one, and all.

    Raises:
        ConfigError: if a listed pattern is empty, comes twice or names something else.
    """
    if listed is None:
        if len(names) <= FEW:
            return list(all_patterns(len(names)))
        count = len(names)
        pairs = [np.isin(np.arange(count), (i, j)) for i in range(count) for j in range(i + 1, count)]
        single = list(np.eye(count, dtype=np.bool_))
        chosen = [*single, *pairs, *(~row for row in single), np.ones(count, dtype=np.bool_)]
        return list({row.tobytes(): row for row in chosen}.values())
    out = []
    for pattern in listed:
        strange = [name for name in pattern if name not in names]
        if strange or not pattern:
            raise ConfigError(
                f"--patterns: expected some of {', '.join(names)} joined by +, "
                f"got {strange[0] if strange else 'an empty pattern'!r}"
            )
        out.append(np.array([name in pattern for name in names], dtype=np.bool_))
    if len({row.tobytes() for row in out}) < len(out):
        raise ConfigError("--patterns: expected different patterns, one comes twice: leave it out")
    return out


def imbalanced_masks(observed: BoolArray, rates: Sequence[float], seed: int) -> BoolArray:
    """What to hide so that each modality misses its own share.

    All (sample, modality) pairs are shuffled by the seed and dropped in that order, save those that would
    leave a sample empty, until round(rate N) of each modality are missing, the ones missing by nature
    counted. Shares that leave fewer than one modality a sample can't be reached: as many as possible go.

    Args:
        observed: (N, M), what is there.
        rates: (M,), the share of each modality to be missing, 0 to 1.
        seed: decides the order.

    Returns:
        (N, M), True where an observed slot is to be hidden.

    Raises:
        DataError: if a rate is no share.
    """
    for rate in rates:
        if not 0.0 <= rate <= 1.0:
            raise DataError(f"expected missing rates from 0 to 1, got {rate}")
    rows, columns = observed.shape
    left = observed.copy()
    wanted = [round(rate * rows) for rate in rates]
    lacking = (~observed).sum(axis=0).tolist()
    for slot in np.random.default_rng(derived_seed(seed, "missing")).permutation(rows * columns):
        row, column = divmod(int(slot), columns)
        if lacking[column] < wanted[column] and left[row, column] and left[row].sum() > 1:
            left[row, column] = False
            lacking[column] += 1
    return observed & ~left


def parse_rates(text: str | None, protocol: str) -> list[float] | dict[str, float] | None:
    """``0.7`` or ``0.1,0.5`` for random, ``text=0.7,audio=0.2`` for imbalanced.

    Raises:
        ConfigError: if it is neither.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = [part for part in parts if "=" in part]
    try:
        if parts and len(named) == len(parts):
            pairs = [part.split("=", 1) for part in parts]
            rates = {name.strip(): _share(value) for name, value in pairs}
            if len(rates) == len(pairs):
                return rates
        elif parts and not named:
            return [_share(part) for part in parts]
    except ValueError:
        pass
    wanted = "text=0.7,audio=0.2" if protocol == "imbalanced" else "0.7 or 0.1,0.5"
    raise ConfigError(f"--missing-rate: expected rates from 0 to 1, as in {wanted}, got {text!r}")


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError(text)
    return value


def _check_settings(
    protocol: str,
    rates: Sequence[float] | Mapping[str, float] | None,
    patterns: Sequence[Sequence[str]] | None,
    masks: Sequence[Path],
    seeds: int,
) -> None:
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if seeds < 1:
        raise ConfigError(f"--seeds: expected 1 or more, got {seeds}")
    if patterns is not None and protocol != "fixed":
        raise ConfigError(f"--patterns belongs to --protocol fixed, {protocol} came: leave it out")
    if masks and protocol != "file":
        raise ConfigError(f"--masks belongs to --protocol file, {protocol} came: leave it out")
    if not masks and protocol == "file":
        raise ConfigError("--protocol file: expected a mask file: give --masks FILE")
    if rates is not None and protocol in ("fixed", "file"):
        raise ConfigError(f"--missing-rate doesn't go with --protocol {protocol}: leave it out")
    if protocol == "imbalanced" and not isinstance(rates, Mapping):
        raise ConfigError(
            "--protocol imbalanced: expected a rate for each modality: give --missing-rate text=0.7,audio=0.2"
        )
    if protocol == "random" and isinstance(rates, Mapping):
        raise ConfigError(
            "--protocol random: expected one rate for all modalities, got rates by name: "
            "take --protocol imbalanced"
        )


def _condition(
    split: Split, name: str, protocol: str, rate: Rate, nominal: float, hidden: BoolArray, seed: int | None
) -> Condition:
    mask = MaskFile.of(split, hidden, seed=seed or 0, nominal_rate=nominal)
    return Condition(name, protocol, rate, seed, mask, hidden, split.mask() & ~hidden)


def _fixed(split: Split, visible: BoolArray) -> Condition:
    hidden: BoolArray = split.mask() & ~visible
    rate = round(float((~visible).mean()), 6)
    name = "+".join(np.array(split.names)[visible])
    return replace(_condition(split, name, "fixed", rate, rate, hidden, None), pattern=visible)


def _random(split: Split, rate: float, seed: int) -> Condition:
    hidden = random_masks(split.mask(), rate, seed)
    return _condition(split, f"rate {rate:g}", "random", rate, rate, hidden, seed)


def _imbalanced(split: Split, rates: Mapping[str, float], seed: int) -> Condition:
    strange = [name for name in rates if name not in split.names]
    if strange:
        raise ConfigError(
            f"--missing-rate: expected rates for some of {', '.join(split.names)}, got {strange[0]!r}"
        )
    full = {name: float(rates.get(name, 0.0)) for name in split.names}
    hidden = imbalanced_masks(split.mask(), list(full.values()), seed)
    name = ",".join(f"{modality}={rate:g}" for modality, rate in full.items())
    return _condition(split, name, "imbalanced", full, float(np.mean(list(full.values()))), hidden, seed)


def _from_file(split: Split, path: Path, masks: Sequence[Path]) -> Condition:
    given = MaskFile.read(path)
    if sum(other.stem == path.stem for other in masks) > 1:
        raise ConfigError(f"--masks: expected files of different names, {path.stem} comes twice")
    hidden = given.hidden(split)
    rate = None if math.isnan(given.nominal_rate) else given.nominal_rate
    mask = MaskFile.of(split, hidden, seed=given.seed, nominal_rate=given.nominal_rate)
    return Condition(path.stem, "file", rate, given.seed, mask, hidden, split.mask() & ~hidden)
