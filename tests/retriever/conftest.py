from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import build_keys, side_by_side
from omg_graph.seeding import derived_seed

WIDTHS = {"text": 6, "audio": 4, "vision": 5}
MakeKnowledgeBase = Callable[..., KnowledgeBase]


def random_views(
    rows: int, seed: int, missing: float = 0.0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    random = np.random.default_rng(derived_seed("views", seed))
    vectors = {name: random.normal(size=(rows, width)) for name, width in WIDTHS.items()}
    observed = {name: random.random(rows) >= missing for name in WIDTHS}
    return vectors, observed


def make_knowledge_base(
    rows: int = 40, *, seed: int = 0, missing: float = 0.0, group_size: int = 4, model: str = "model"
) -> KnowledgeBase:
    vectors, observed = random_views(rows, seed, missing)
    keys, has_view = build_keys(vectors, observed)
    random = np.random.default_rng(derived_seed("values", seed))
    return KnowledgeBase(
        name="made",
        model_fingerprint=model,
        views=side_by_side(WIDTHS),
        ids=tuple(f"v{row // group_size}$_${row}" for row in range(rows)),
        groups=tuple(f"v{row // group_size}" for row in range(rows)),
        texts=tuple(f"text {row}" for row in range(rows)),
        sources=("made.pkl · train",) * rows,
        keys=keys,
        has_view=has_view,
        values={
            name: np.where(observed[name][:, None], random.normal(size=(rows, 3)), 0).astype(np.float32)
            for name in WIDTHS
        },
        has_value=observed,
        text_embeddings=random.normal(size=(rows, 8)).astype(np.float32),
        labels=tuple(None if row % 3 == 0 else str(row % 3) for row in range(rows)),
    )


@pytest.fixture
def made() -> MakeKnowledgeBase:
    return make_knowledge_base


@pytest.fixture
def queries() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def build(rows: int, seed: int = 1, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        return build_keys(*random_views(rows, seed, missing))

    return build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("OMG_CACHE", str(folder))
    return folder
