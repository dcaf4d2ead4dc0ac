"""Tables of results, made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio

TableOf = Callable[..., SampleTable]


@pytest.fixture(scope="session")
def table_of() -> TableOf:
    """Makes a table of a family, whose noise depends on ``noise`` and ``seed`` and whose truth doesn't."""

    def make(
        family: str = "mosi",
        *,
        rows: int = 60,
        groups: int = 12,
        noise: float = 1.5,
        seed: int = 0,
        **changes: object,
    ) -> SampleTable:
        fixed, random = np.random.default_rng(7), np.random.default_rng(seed)
        classes, nothing = family == "classes", np.full(rows, np.nan)
        reach = 1.0 if family == "sims" else 3.0
        truth = fixed.integers(0, 4, rows).astype(float)
        if not classes:
            truth = fixed.uniform(-reach, reach, rows).round(1)
            truth[:5] = 0.0
        confidence = random.uniform(0.25, 1.0, rows)
        table = SampleTable(
            method="omg",
            family=family,  # type: ignore[arg-type]
            protocol="random",
            condition="text",
            rate=0.5,
            mask_seed=None,
            model_seed=0,
            ids=tuple(f"clip-{row}" for row in range(rows)),
            groups=tuple(f"video-{row % groups}" for row in range(rows)),
            observed=(("text",),) * rows,
            truth=truth,
            value=nothing if classes else truth + noise * random.normal(size=rows),
            label=np.where(random.random(rows) < 0.6, truth, random.integers(0, 4, rows))
            if classes
            else nothing,
            probability=np.where(random.random(rows) < 0.6, confidence, 0.1),
            confidence=confidence,
            names=("ant", "bee", "cat", "dog") if classes else (),
            errors={
                name: PooledRatio(noise * random.random(rows), random.uniform(0.5, 2, rows))
                for name in ("audio", "vision")
            },
            energy={"audio": random.uniform(1, 2, rows)},
            coverage={"audio": PooledRatio(random.integers(0, 5, rows).astype(float), np.full(rows, 5.0))},
        )
        return replace(table, **changes)  # type: ignore[arg-type]

    return make
