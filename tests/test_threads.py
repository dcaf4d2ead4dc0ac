"""One compiled graph, shared: threads and event loops get what they would get one after another."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.reader import read_data_file
from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.trajectory import CandidatePlan, Trajectory
from omg_graph.retriever.index import ChromaIndex
from omg_graph.retriever.retriever import ChromaRetriever
from omg_graph.state import Settings

THREADS = 8
MISSING = (["audio"], ["vision"], ["text"], ["audio", "vision"], ["text", "audio"], [])
Work = Callable[[int], Any]


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(scope="module")
def samples(tiny_data_file: Path) -> list[dict[str, Any]]:
    """Clips as another program would send them, that miss different things."""
    split = read_data_file(tiny_data_file, with_labels=False).splits["valid"]
    assert split.raw_text is not None
    return [
        {
            "id": split.ids[row % len(split)],
            "raw_text": None if "text" in missing else split.raw_text[row % len(split)],
            **{
                name: None if name in missing else array[row % len(split)].tolist()
                for name, array in split.arrays.items()
            },
        }
        for row, missing in enumerate((MISSING * 2)[:THREADS])
    ]


def at_once(work: Work) -> list[Any]:
    """What the threads return, which all begin at the same moment."""
    gate = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def check_same(
    found: Sequence[Trajectory],
    expected: Sequence[Trajectory],
    stores: tuple[MemoryArtifactStore, MemoryArtifactStore],
) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.id, one.missing, one.seed) == (other.id, other.missing, other.seed)
        assert one.plan is not None
        assert other.plan is not None
        assert [c.text for c in one.plan.candidates] == [c.text for c in other.plan.candidates]
        assert one.plan.chosen == other.plan.chosen
        assert {name: [e.id for e in rows] for name, rows in one.evidence.items()} == {
            name: [e.id for e in rows] for name, rows in other.evidence.items()
        }
        refs = {**one.arrays, **one.reconstruction}, {**other.arrays, **other.reconstruction}
        assert set(refs[0]) == set(refs[1])
        for key, ref in refs[0].items():
            np.testing.assert_allclose(
                stores[0].get(ref), stores[1].get(refs[1][key]), rtol=1e-4, atol=1e-4, err_msg=key
            )
        assert one.prediction is not None
        assert other.prediction is not None
        assert one.prediction.probabilities == pytest.approx(other.prediction.probabilities, abs=1e-4)


def cold(folder: Path | None) -> Model:
    """A model as the first request of a new process finds it, and with no plan embedded yet."""
    model = load_model(folder)
    model.text_encoder.table.clear()
    return model


@pytest.mark.parametrize("embedded", [False, True], ids=["scored one by one", "through Chroma"])
def test_as_one_after_another(embedded: bool, tiny_model_folder: Path, samples: list[dict[str, Any]]) -> None:
    if embedded:
        (clip,) = read_data_file(Path(__file__).parents[1] / "examples" / "sample.pkl").splits.values()
        views = {name: array[0].tolist() for name, array in clip.arrays.items()}
        given = [{"id": f"new-{row}", **views, ("vision", "text")[row % 2]: None} for row in range(THREADS)]
    else:
        given = samples
    folder = None if embedded else tiny_model_folder
    stores = MemoryArtifactStore(), MemoryArtifactStore()
    models = cold(folder), cold(folder)
    graphs = [build_graph(model, artifacts=store) for model, store in zip(models, stores, strict=True)]

    def run(graph: int) -> Work:
        def work(number: int) -> Trajectory:
            settings = Settings(draws=2, steps=3, seed=number)
            (made,) = graphs[graph].invoke({"samples": [given[number]]}, context=settings)["trajectories"]
            return made

        return work

    found = at_once(run(0))
    check_same(found, [run(1)(number) for number in range(THREADS)], stores)
    retriever = models[0].retriever
    assert isinstance(retriever, ChromaRetriever)
    entries = len(retriever.index.partitions[0].rows)
    assert (entries > 500) == embedded


def test_every_thread_is_told_of_its_own_run(tiny_model_folder: Path, samples: list[dict[str, Any]]) -> None:
    graph = build_graph(load_model(tiny_model_folder))

    def steps_told(number: int) -> list[int]:
        request, settings = {"samples": [samples[0]]}, Settings(steps=number + 1)
        events = graph.stream(request, context=settings, stream_mode="custom")
        return [event["step"] for event in events if event["node"] == "executor"]

    assert at_once(steps_told) == [list(range(1, number + 2)) for number in range(THREADS)]


def test_the_index_is_opened_once(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, opened = load_model(tiny_model_folder), []
    original = ChromaIndex.open

    def slow(*arguments: Any) -> ChromaIndex:
        opened.append(threading.get_ident())
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(ChromaIndex, "open", slow)
    assert len({id(found) for found in at_once(lambda _: model.retriever)}) == 1
    assert len(opened) == 1


class WatchedPlanner:
    """The model's own planner, which notes the threads that it is asked in."""

    name = "watched"
    follows_sampling = False

    def __init__(self, model: Model) -> None:
        self.planner, self.threads = model.planner, set[int]()

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[CandidatePlan]]:
        self.threads.add(threading.get_ident())
        return self.planner.propose(observations, sampling, seed)


def test_from_an_event_loop(tiny_model_folder: Path, samples: list[dict[str, Any]]) -> None:
    """``ainvoke`` and ``astream`` give the same, and never work in the loop's own thread."""
    model = load_model(tiny_model_folder)
    planner = WatchedPlanner(model)
    stores = MemoryArtifactStore(), MemoryArtifactStore()
    watched = build_graph(replace(model, planner=planner), artifacts=stores[0])
    plain = build_graph(model, artifacts=stores[1])

    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        settings = Settings(steps=2)
        invoked = await asyncio.gather(
            *(watched.ainvoke({"samples": [sample]}, context=settings) for sample in samples)
        )
        stream = watched.astream({"samples": samples[:1]}, context=settings, stream_mode="custom")
        return invoked, [event async for event in stream]

    invoked, events = asyncio.run(run())
    found = [result["trajectories"][0] for result in invoked]
    expected = [
        plain.invoke({"samples": [sample]}, context=Settings(steps=2))["trajectories"][0]
        for sample in samples
    ]
    check_same(found, expected, stores)
    assert [event["node"] for event in events] == ["planner", "rerank", "retriever", "executor", "executor"]
    assert planner.threads
    assert threading.get_ident() not in planner.threads
