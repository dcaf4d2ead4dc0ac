"""A search for factors, one at a time: for the few numbers that no gradient leads to."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def search_factors(
    start: Tensor,
    error: Callable[[Tensor], float],
    *,
    step: float,
    gain: float,
    adjust: Callable[[Tensor], Tensor | None] = lambda factors: factors,
) -> tuple[Tensor, float]:
    """Factors that lower an error, found by multiplying and dividing one after the other until none helps.

    Args:
        start: The factors to start from, above zero.
        error: What is to be lowered.
        step: What a factor is multiplied or divided by.
        gain: By so much of itself the error has to fall for a step to be taken.
        adjust: Brings changed factors into the form wanted; None where they aren't allowed.

    Returns:
        The factors and their error.
    """
    found, least, moved = start, error(start), True
    while moved:
        moved = False
        for place in range(len(found)):
            for factor in (1 / step, step):
                changed = found.clone()
                changed[place] *= factor
                tried = adjust(changed)
                if tried is not None and (lower := error(tried)) < least * (1 - gain):
                    found, least, moved = tried, lower, True
    return found, least
