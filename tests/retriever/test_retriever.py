from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever import retriever as search
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.evidence import Evidence, attention_weights, evidence_alignment_cost, exact_search
from omg_graph.retriever.index import ChromaIndex
from omg_graph.retriever.keys import build_keys, side_by_side
from omg_graph.retriever.retriever import ChromaRetriever, OwnEntries
from omg_graph.seeding import derived_seed

OWN = OwnEntries(["a1", "a2", "b1", "c1"], ["a", "a", "b", "c"])


def test_neither_itself_nor_its_group() -> None:
    allowed = OWN.allowed(["a1", "new", "new"], ["a", "b", "nobody"])
    assert allowed.tolist() == [[False, False, True, True], [True, True, False, True], [True] * 4]


def test_never_itself_even_where_its_group_is_allowed() -> None:
    assert OWN.allowed(["a1"], ["a"], allow_own_group=True).tolist() == [[False, True, True, True]]


def test_itself_is_found_by_id_in_another_group() -> None:
    assert OWN.allowed(["b1"], ["c"]).tolist() == [[True, True, False, False]]


Made = Callable[..., KnowledgeBase]
Queries = Callable[..., tuple[np.ndarray, np.ndarray]]


def retriever_of(kb: KnowledgeBase) -> ChromaRetriever:
    return ChromaRetriever(kb, ChromaIndex.open(kb))


def plans(rows: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(derived_seed("plans")).normal(size=(rows, width)).astype(np.float32)


def every(rows: int, *names: str) -> dict[str, np.ndarray]:
    return {name: np.ones(rows, np.bool_) for name in names}


def retrieve(
    retriever: ChromaRetriever,
    query: np.ndarray,
    has_view: np.ndarray,
    ids: list[str],
    groups: list[str],
    targets: dict[str, np.ndarray],
    k: int = 10,
    allow_own_group: bool = False,
) -> dict[str, Evidence]:
    return retriever.retrieve(
        query,
        has_view,
        plans(len(ids), retriever.kb.text_embeddings.shape[1]),
        ids=ids,
        groups=groups,
        targets=targets,
        k=k,
        allow_own_group=allow_own_group,
    )


def assert_equals_exact_search(
    kb: KnowledgeBase,
    evidence: dict[str, Evidence],
    query: np.ndarray,
    has_view: np.ndarray,
    ids: list[str],
    groups: list[str],
    k: int,
    allow_own_group: bool = False,
) -> None:
    """Indices, weights, E and C_evi of each row are those of looking at every entry."""
    fair = OwnEntries(kb.ids, kb.groups).allowed(ids, groups, allow_own_group)
    keys, key_views = torch.from_numpy(kb.keys), torch.from_numpy(kb.has_view)
    queries, query_views = torch.from_numpy(query), torch.from_numpy(has_view)
    embeddings = torch.from_numpy(kb.text_embeddings)
    for name, came in evidence.items():
        allowed = torch.from_numpy(fair & kb.has_value[name])
        found = exact_search(queries, query_views, keys, key_views, allowed, k=k)
        weights = attention_weights(found.similarities, 0.07)
        for row, entries in enumerate(came.entries):
            here = found.found[row]
            assert [kb.row_of[entry.id] for entry in entries] == found.indices[row][here].tolist()
            np.testing.assert_allclose([entry.weight for entry in entries], weights[row][here], atol=1e-5)
            np.testing.assert_allclose(
                [entry.similarity for entry in entries], found.similarities[row][here], atol=1e-6
            )
        values = torch.from_numpy(kb.values[name])[found.indices]
        expected = (weights.unsqueeze(-1) * values).sum(dim=1)
        np.testing.assert_allclose(came.aggregated, expected, atol=1e-4)
        cost = evidence_alignment_cost(
            weights, torch.from_numpy(plans(len(ids), kb.text_embeddings.shape[1])), embeddings[found.indices]
        )
        np.testing.assert_allclose(came.alignment_cost, cost, atol=1e-4)
        assert came.excluded.tolist() == (kb.has_value[name] & ~fair).sum(axis=1).tolist()


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("allow_own_group", [False, True])
def test_equal_to_exact_search_with_missing_views_and_groups_of_63(
    made: Made, queries: Queries, missing: float, allow_own_group: bool
) -> None:
    kb = made(700, missing=missing, group_size=63)
    query, has_view = queries(24, missing=missing)
    own = np.random.default_rng(5).choice(len(kb), 16, replace=False)
    ids = [kb.ids[row] for row in own] + [f"new{row}" for row in range(8)]
    groups = [kb.groups[row] for row in own] + ["v3"] * 4 + ["new"] * 4
    # Own keys are asked for: what must not be seen would come first.
    query[:16], has_view[:16] = kb.keys[own], kb.has_view[own]
    evidence = retrieve(
        retriever_of(kb), query, has_view, ids, groups, every(24, "audio", "vision"), 10, allow_own_group
    )
    assert_equals_exact_search(kb, evidence, query, has_view, ids, groups, 10, allow_own_group)
    for came in evidence.values():
        for sample_id, group, entries in zip(ids, groups, came.entries, strict=True):
            assert sample_id not in {entry.id for entry in entries}
            if not allow_own_group:
                assert not any(entry.id.startswith(f"{group}$_$") for entry in entries)


def test_equal_to_exact_search_on_3000_wide_vectors_through_chroma(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(derived_seed("wide"))
    rows = 3_000
    keys, has_view = build_keys({"a": random.normal(size=(rows, 200))}, {"a": np.ones(rows, np.bool_)})
    kb = KnowledgeBase(
        name="wide",
        model_fingerprint="model",
        views=side_by_side({"a": 200}),
        ids=tuple(f"{row:05}" for row in range(rows)),
        groups=tuple(f"g{row // 50}" for row in range(rows)),
        texts=("",) * rows,
        sources=("made",) * rows,
        keys=keys,
        has_view=has_view,
        values={"b": random.normal(size=(rows, 4)).astype(np.float32)},
        has_value={"b": np.ones(rows, np.bool_)},
        text_embeddings=random.normal(size=(rows, 8)).astype(np.float32),
    )
    query, query_views = build_keys({"a": random.normal(size=(100, 200))}, {"a": np.ones(100, np.bool_)})
    ids, groups = [f"{row:05}" for row in range(100)], [f"g{row // 50}" for row in range(100)]
    scanned: list[int] = []
    inner = search._inner

    def counted(vectors: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        scanned.append(len(vectors))
        return inner(vectors, *rest)

    monkeypatch.setattr(search, "_inner", counted)
    evidence = retrieve(retriever_of(kb), query, query_views, ids, groups, every(100, "b"))
    assert scanned == []
    assert_equals_exact_search(kb, evidence, query, query_views, ids, groups, 10)


def test_ties_beyond_what_chroma_fetches_go_by_id(made: Made, queries: Queries) -> None:
    kb = made(400)
    twins = KnowledgeBase(**{**vars_of(kb), "keys": np.repeat(kb.keys[:1], 400, axis=0)})
    query, has_view = queries(3)
    evidence = retrieve(retriever_of(twins), query, has_view, ["x", "y", "z"], ["n"] * 3, every(3, "audio"))
    for entries in evidence["audio"].entries:
        assert [kb.row_of[entry.id] for entry in entries] == list(range(10))


def vars_of(kb: KnowledgeBase) -> dict[str, object]:
    return {name: getattr(kb, name) for name in kb.__dataclass_fields__}


def test_a_row_does_not_depend_on_its_batch(made: Made, queries: Queries) -> None:
    kb = made(500, missing=0.2, group_size=20)
    query, has_view = queries(12, missing=0.3)
    ids, groups = list(kb.ids[:12]), list(kb.groups[:12])
    retriever = retriever_of(kb)
    asked = {"audio": np.arange(12) % 2 == 0, "text": np.arange(12) % 3 == 0}
    whole = retrieve(retriever, query, has_view, ids, groups, asked)
    for row in reversed(range(12)):
        alone = retriever.retrieve(
            query[row : row + 1],
            has_view[row : row + 1],
            plans(12)[row : row + 1],
            ids=ids[row : row + 1],
            groups=groups[row : row + 1],
            targets={name: flags[row : row + 1] for name, flags in asked.items()},
            k=10,
        )
        for name in asked:
            assert [entry.id for entry in alone[name].entries[0]] == [
                entry.id for entry in whole[name].entries[row]
            ]
            np.testing.assert_allclose(alone[name].aggregated[0], whole[name].aggregated[row], atol=1e-6)
            assert alone[name].alignment_cost[0] == pytest.approx(whole[name].alignment_cost[row], abs=1e-6)
            assert alone[name].excluded[0] == whole[name].excluded[row]


def test_only_what_is_asked_for_is_given(made: Made, queries: Queries) -> None:
    kb = made(40)
    query, has_view = queries(2)
    targets = {"audio": np.array([True, False]), "vision": np.array([False, False])}
    evidence = retrieve(retriever_of(kb), query, has_view, ["a", "b"], ["a", "b"], targets)
    assert list(evidence) == ["audio", "vision"]
    assert evidence["audio"].found.tolist() == [True, False]
    assert not evidence["audio"].aggregated[1].any()
    assert not evidence["vision"].found.any()
    assert evidence["vision"].excluded.tolist() == [0, 0]


def test_a_sample_that_shares_no_view_or_has_only_its_own_group_gets_none(
    made: Made, queries: Queries
) -> None:
    kb = made(6, group_size=6)
    query, has_view = queries(2)
    query[1], has_view[1] = 0, False
    evidence = retrieve(retriever_of(kb), query, has_view, ["n", "m"], ["v0", "new"], every(2, "text"))[
        "text"
    ]
    assert evidence.entries == ((), ())
    assert not evidence.aggregated.any()
    assert evidence.alignment_cost.tolist() == [0.0, 0.0]
    assert evidence.excluded.tolist() == [6, 0]


def test_fewer_entries_than_asked_for(made: Made, queries: Queries) -> None:
    kb = made(5, group_size=1)
    query, has_view = queries(1)
    (entries,) = retrieve(retriever_of(kb), query, has_view, [kb.ids[0]], ["x"], every(1, "text"))[
        "text"
    ].entries
    assert len(entries) == 4
    assert sum(entry.weight for entry in entries) == pytest.approx(1.0, abs=1e-6)
    assert {entry.source for entry in entries} == {"made.pkl · train"}
    assert all(entry.text == kb.texts[kb.row_of[entry.id]] for entry in entries)


def test_a_corrected_query_is_ranked_alike(made: Made, queries: Queries) -> None:
    kb = made(600, missing=0.3)
    query, has_view = queries(8, missing=0.4)
    query = query + np.random.default_rng(9).normal(scale=0.3, size=query.shape).astype(np.float32)
    ids = [f"n{row}" for row in range(8)]
    evidence = retrieve(retriever_of(kb), query, has_view, ids, ids, every(8, "vision"))
    assert_equals_exact_search(kb, evidence, query, has_view, ids, ids, 10)


def test_an_index_in_memory_gives_the_same(made: Made, queries: Queries, tmp_path: Path) -> None:
    kb = made(400)
    query, has_view = queries(5)
    blocked = tmp_path / "file"
    blocked.write_text("")
    index = ChromaIndex.open(kb, blocked)
    ids = [f"n{row}" for row in range(5)]
    evidence = retrieve(ChromaRetriever(kb, index), query, has_view, ids, ids, every(5, "text"))
    index.close()
    assert index.degraded
    assert_equals_exact_search(kb, evidence, query, has_view, ids, ids, 10)


def test_what_does_not_fit_is_refused(made: Made, queries: Queries) -> None:
    kb = made(20)
    retriever = retriever_of(kb)
    query, has_view = queries(2)
    ids = ["a", "b"]
    with pytest.raises(KnowledgeBaseError, match="expected one of audio, text, vision, got smell"):
        retrieve(retriever, query, has_view, ids, ids, every(2, "smell"))
    with pytest.raises(KnowledgeBaseError, match="top-k of 1 or more"):
        retrieve(retriever, query, has_view, ids, ids, every(2, "text"), k=0)
    with pytest.raises(KnowledgeBaseError, match=r"got \(2, 14\)"):
        retrieve(retriever, query[:, :14], has_view, ids, ids, every(2, "text"))
    with pytest.raises(KnowledgeBaseError, match="index of the same entries"):
        ChromaRetriever(made(20, seed=4), retriever.index)
