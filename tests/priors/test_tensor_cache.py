from __future__ import annotations

import torch
from torch import Tensor

from omg_graph.priors.tensor_cache import TensorCache


def floats(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32)


def test_what_is_kept_is_not_computed_again() -> None:
    cache, computed = TensorCache(100), []

    def compute() -> Tensor:
        computed.append(1)
        return floats(3)

    first = cache.get("key", compute)
    assert cache.get("key", compute) is first
    assert computed == [1]
    cache.clear()
    assert (len(cache), cache.held_bytes) == (0, 0)
    assert torch.equal(cache.get("key", compute), first)
    assert computed == [1, 1]


def test_what_was_longest_not_asked_for_goes_first() -> None:
    cache = TensorCache(32)
    kept = {name: cache.get(name, lambda: floats(4)) for name in "ab"}
    cache.get("a", lambda: floats(0))
    cache.get("c", lambda: floats(3))
    assert cache.held_bytes == 28
    assert cache.get("a", lambda: floats(0)) is kept["a"]
    assert len(cache.get("b", lambda: floats(1))) == 1, "b was dropped"


def test_what_is_too_large_is_given_and_not_kept() -> None:
    cache = TensorCache(32)
    small = cache.get("small", lambda: floats(8))
    assert len(cache.get("large", lambda: floats(9))) == 9
    assert (len(cache), cache.held_bytes) == (1, 32)
    assert cache.get("small", lambda: floats(0)) is small
