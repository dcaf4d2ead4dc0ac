"""Random numbers that belong to one sample: they depend on what is drawn, never on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Part = str | int


def derived_seed(*parts: Part) -> int:
    """A 63-bit seed from a tuple of names and numbers, the same in every process and on every platform."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: Part) -> torch.Generator:
    """A CPU generator of its own for these parts, e.g. ``generator(seed, sample_id, "audio", draw)``.

    Always on the CPU: the numbers are the same whichever device then uses them.
    """
    import torch

    return torch.Generator().manual_seed(derived_seed(*parts))


@contextmanager
def seeded(*parts: Part) -> Iterator[None]:
    """Lend torch's global generators a seed of these parts, and give them back untouched.

    For layers that draw from them and can't be handed a generator: initial weights, dropout.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    # without a GPU torch.manual_seed would note the stack of every call for a GPU that may come later
    seed = torch.manual_seed if devices else torch.default_generator.manual_seed
    with torch.random.fork_rng(devices=devices):
        seed(derived_seed(*parts))
        yield
