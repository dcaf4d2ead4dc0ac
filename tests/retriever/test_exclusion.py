from __future__ import annotations

from omg_graph.retriever.exclusion import OwnEntries

OWN = OwnEntries(["a1", "a2", "b1", "c1"], ["a", "a", "b", "c"])


def test_neither_itself_nor_its_group() -> None:
    allowed = OWN.allowed(["a1", "new", "new"], ["a", "b", "nobody"])
    assert allowed.tolist() == [[False, False, True, True], [True, True, False, True], [True] * 4]


def test_never_itself_even_where_its_group_is_allowed() -> None:
    assert OWN.allowed(["a1"], ["a"], allow_own_group=True).tolist() == [[False, True, True, True]]


def test_itself_is_found_by_id_in_another_group() -> None:
    assert OWN.allowed(["b1"], ["c"]).tolist() == [[True, True, False, False]]
