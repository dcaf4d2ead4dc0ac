"""Recordings on their way through the graph: by reference, from the data folder, to the planner alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import Field

from omg_graph import build_graph, fork_run, reconstruct
from omg_graph.batches import load_recordings, store_batch
from omg_graph.data.media import image_bytes, wav_bytes
from omg_graph.data.reader import read_data_file
from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError
from omg_graph.files import DataFolder
from omg_graph.model.model import Model
from omg_graph.planner.chat import ChatPlanner
from omg_graph.record.artifacts import DiskArtifactStore, MemoryArtifactStore
from omg_graph.review.edits import OBSERVATION
from omg_graph.state import Settings, checkpoint_serializer

TONE = np.sin(np.arange(8_000) / 9).astype(np.float32)
FRAMES = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)


class Listener(GenericFakeChatModel):
    """Remembers what kinds of content blocks it was sent."""

    sent: list[list[str]] = Field(default_factory=list)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        content = messages[-1].content
        self.sent.append(["text"] if isinstance(content, str) else [part["type"] for part in content])
        return super()._generate(messages, *args, **kwargs)


@pytest.fixture
def listener(model: Model) -> Listener:
    answer = json.dumps({field.name: (field.values or ())[0] for field in model.schema.fields})
    return Listener(messages=iter([AIMessage(answer)] * 100), sent=[])


@pytest.fixture
def hearing(model: Model, listener: Listener) -> Model:
    """The model with a planner that is sent recordings."""
    return model.with_planner(ChatPlanner(listener, model.schema, media="on", concurrency=1))


@pytest.fixture
def folder(tmp_path: Path, tiny_data_file: Path) -> Path:
    """A data folder: one clip with a sound beside it and a video in it, and a file outside."""
    made = tmp_path / "data"
    made.mkdir()
    (made / "a.wav").write_bytes(wav_bytes(TONE, 8_000))
    (made / "a.png").write_bytes(image_bytes(FRAMES[1]))
    (tmp_path / "secret.wav").write_bytes(wav_bytes(TONE, 8_000))
    split = read_data_file(tiny_data_file).splits["test"]
    sample: dict[str, Any] = {name: split.arrays[name][0] for name in split.names}
    sample |= {"id": split.ids[0], "raw_text": split.raw_text and split.raw_text[0]}
    sample |= {"raw_audio": "a.wav", "raw_vision": FRAMES, "raw_vision_rate": 5}
    (made / "clip.pkl").write_bytes(pickle.dumps(sample))
    return made


BOTH = ["text", "text", "audio", "text", "image", "image", "image"]


@pytest.mark.parametrize(
    ("missing", "blocks", "modalities"),
    [
        (["text"], BOTH, ["audio", "vision"]),
        (["audio"], ["text", "text", "image", "image", "image"], ["vision"]),
        (["vision"], ["text", "text", "audio"], ["audio"]),
        (["audio", "vision"], ["text"], []),
    ],
)
def test_the_planner_is_given_what_is_observed_and_nothing_hidden(
    hearing: Model,
    listener: Listener,
    folder: Path,
    missing: list[str],
    blocks: list[str],
    modalities: list[str],
) -> None:
    (trajectory,) = reconstruct(hearing, folder / "clip.pkl", missing=missing)
    assert listener.sent == [blocks] * len(listener.sent)
    assert trajectory.plan is not None
    assert [one.modality for one in trajectory.plan.recordings] == modalities
    told = trajectory.model_dump_json()
    assert "a.wav" not in told
    if "audio" in modalities:
        assert trajectory.plan.recordings[0].sha256 == Recording("audio", folder / "a.wav").sha256


def test_the_models_own_planner_says_nothing_of_recordings(model: Model, folder: Path) -> None:
    (with_them,) = reconstruct(model, folder / "clip.pkl", missing=["text"])
    sample = pickle.loads((folder / "clip.pkl").read_bytes())
    plain = {name: value for name, value in sample.items() if name not in ("raw_audio", "raw_vision")}
    (without,) = reconstruct(
        model, {k: v for k, v in plain.items() if k != "raw_vision_rate"}, missing=["text"]
    )
    assert with_them.plan == without.plan
    assert with_them.plan is not None
    assert "recordings" not in with_them.plan.model_dump()
    assert with_them.reconstruction == without.reconstruction


def test_they_outlive_a_checkpoint_in_which_they_take_no_room(
    hearing: Model, listener: Listener, folder: Path, tmp_path: Path
) -> None:
    sample = pickle.loads((folder / "clip.pkl").read_bytes())
    sample["raw_audio"], sample["raw_audio_rate"] = np.tile(TONE, 60), 8_000
    path, thread = tmp_path / "checkpoints.sqlite", {"configurable": {"thread_id": "1"}}
    for step in ("start", "resume"):
        with SqliteSaver.from_conn_string(str(path)) as saver:
            saver.serde = checkpoint_serializer()
            store = DiskArtifactStore(tmp_path / "arrays")
            graph = build_graph(hearing, artifacts=store, checkpointer=saver)
            if step == "start":
                graph.invoke({"samples": [sample], "missing": ["text"]}, thread, interrupt_before=["planner"])
                assert not listener.sent
            else:
                (trajectory,) = graph.invoke(None, thread)["trajectories"]
    assert listener.sent[0] == BOTH
    assert [one.seconds for one in trajectory.plan.recordings] == [60.0, 0.6]
    assert path.stat().st_size < 200_000 < sample["raw_audio"].nbytes


def test_more_candidates_are_asked_for_with_the_recordings(
    hearing: Model, listener: Listener, folder: Path
) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    graph = build_graph(hearing, checkpointer=InMemorySaver(serde=checkpoint_serializer()))
    thread = {"configurable": {"thread_id": "1"}}
    given = {"path": str(folder / "clip.pkl"), "missing": ["text"]}
    graph.invoke(given, thread, context=Settings(review_plan=True, candidates=2))
    asked = len(listener.sent)
    graph.invoke(Command(resume={"redraw": True}), thread, context=Settings(review_plan=True, candidates=2))
    assert listener.sent[asked:] == [BOTH] * 2
    (trajectory,) = graph.invoke(Command(resume={"accept": True}), thread)["trajectories"]
    assert [one.modality for one in trajectory.plan.recordings] == ["audio", "vision"]


def test_a_fork_asks_no_planner_and_keeps_what_was_seen(
    hearing: Model, listener: Listener, folder: Path
) -> None:
    store = MemoryArtifactStore()
    (before,) = reconstruct(hearing, folder / "clip.pkl", missing=["text"], artifacts=store)
    assert before.plan is not None
    assert OBSERVATION in before.arrays
    asked = len(listener.sent)
    field = hearing.schema.fields[-1]
    changed = fork_run(hearing, before, artifacts=store, constraints={field.name: (field.values or ())[-1]})
    assert len(listener.sent) == asked
    assert changed.plan is not None
    assert changed.plan.recordings == before.plan.recordings
    assert changed.arrays[OBSERVATION] == before.arrays[OBSERVATION]


def test_ranking_whole_trajectories_keeps_them(hearing: Model, folder: Path) -> None:
    settings = Settings(select="utility", draws=2)
    (trajectory,) = reconstruct(hearing, folder / "clip.pkl", missing=["text"], settings=settings)
    assert trajectory.plan is not None
    assert [one.modality for one in trajectory.plan.recordings] == ["audio", "vision"]


@pytest.mark.parametrize("inline", [False, True])
def test_on_a_server_recordings_come_from_the_data_folder(
    hearing: Model,
    listener: Listener,
    folder: Path,
    inline: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    graph = build_graph(hearing, data_folder=folder)
    sample = pickle.loads((folder / "clip.pkl").read_bytes())
    sample["raw_vision"] = ["a.png", "a.png"]
    (folder / "clip.pkl").write_bytes(pickle.dumps(sample))
    source = {"samples": [sample]} if inline else {"path": "clip.pkl"}
    result = graph.invoke({**source, "missing": ["text"]}, output_keys=["batch", "trajectories"])
    assert listener.sent[0] == ["text", "text", "audio", "text", "image", "image"]
    (sound,) = result["batch"].recordings["audio"]
    assert sound.path == "a.wav"
    assert str(folder) not in result["batch"].model_dump_json()
    sample["raw_audio"] = "../secret.wav"
    with pytest.raises(DataError, match="leads out of it"):
        graph.invoke({"samples": [sample], "missing": ["text"]})


Forge = Callable[[dict[str, Any], MemoryArtifactStore], None]


def _by_path(ref: dict[str, Any], _: MemoryArtifactStore) -> None:
    ref["path"] = "../secret.wav"


def _by_array(ref: dict[str, Any], store: MemoryArtifactStore) -> None:
    ref.update(path=None, kind="video", array=store.put(np.array(["/etc/hostname"])).model_dump())


def _by_nothing(ref: dict[str, Any], _: MemoryArtifactStore) -> None:
    ref["path"] = None


@pytest.mark.parametrize("forge", [_by_path, _by_array, _by_nothing])
def test_a_batch_that_a_stranger_wrote_leads_nowhere_else(
    hearing: Model, listener: Listener, folder: Path, forge: Forge
) -> None:
    store = MemoryArtifactStore()
    split = read_data_file(folder / "clip.pkl", specs=hearing.latent_space.specs).splits["data"]
    batch = store_batch(split, None, None, store, DataFolder(folder)).model_dump()
    forge(batch["recordings"]["audio"][0], store)
    graph = build_graph(hearing, data_folder=folder, artifacts=store)
    with pytest.raises(DataError, match="expected"):
        graph.invoke({"batch": batch})
    assert not listener.sent


def test_a_batch_gives_back_what_was_put_into_it(folder: Path) -> None:
    sample = pickle.loads((folder / "clip.pkl").read_bytes())
    sample["raw_vision"] = ["a.png"] * 3
    (folder / "clip.pkl").write_bytes(pickle.dumps(sample))
    split = read_data_file(folder / "clip.pkl").splits["data"]
    for place in (None, DataFolder(folder)):
        store = MemoryArtifactStore()
        again = load_recordings(store_batch(split, None, None, store, place), store, place)
        for name, recordings in split.recordings.items():
            for before, after in zip(recordings, again.recordings[name], strict=True):
                assert before is not None
                assert after is not None
                assert (before.kind, before.rate, before.paths, before.sha256) == (
                    after.kind,
                    after.rate,
                    after.paths,
                    after.sha256,
                )
