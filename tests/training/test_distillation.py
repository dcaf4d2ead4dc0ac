"""A teacher's plans, learnt by a trained model's planner: kept as they come, never mixed, and followed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.pickles import read_pickle
from omg_graph.data.reader import read_data_file
from omg_graph.data.writing import save_corpus
from omg_graph.errors import ConfigError, DataError, PlanError, SchemaError
from omg_graph.model.folder import MANIFEST, load_model, read_manifest
from omg_graph.model.model import Model
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.pipeline import observe, planner_input, propose
from omg_graph.planner.interface import NoValidPlanError, PlannerInput, Sampling
from omg_graph.planner.prompting import load_prompt
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.training import distillation, student, teachers
from omg_graph.training.distillation import DistillationRequest, distill
from omg_graph.training.folds import fold_of
from omg_graph.training.model_rows import read_model_rows
from omg_graph.training.teaching import IDENTITY, PLANS, SUFFIX, read_plans

Distil = Callable[..., distillation.Distillation]


class Monotone:
    """Says the same of everybody; refuses whom it is told to, and breaks down after some samples."""

    name = "monotone"
    follows_sampling = False

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self.schema, self.plan = schema, plan
        self.asked: list[str] = []
        self.shown: list[tuple[str, ...]] = []
        self.refused: set[str] = set()
        self.breaks_after = 10_000
        self.temperature = 0.0

    def propose(
        self, observations: PlannerInput, sampling: Sampling, seed: int
    ) -> list[list[CandidatePlan] | NoValidPlanError]:
        self.temperature = sampling.temperature
        if len(self.asked) + len(observations.ids) > self.breaks_after:
            raise KeyboardInterrupt
        self.asked += [sample for sample in observations.ids if sample not in self.refused]
        self.shown += observations.observed
        one = self.schema.candidate(self.plan, (-0.1,) * len(self.plan), (1,) * len(self.plan))
        return [
            NoValidPlanError(sample, self.name, "it has nothing to say")
            if sample in self.refused
            else [one] * sampling.candidates
            for sample in observations.ids
        ]


@pytest.fixture
def teacher(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Monotone:
    """A teacher whose plans nothing in the data suggests; it is what any name but ``chat`` stands for."""
    schema = load_model(tiny_model_folder).schema
    made = Monotone(schema, tuple((field.values or ())[-1] for field in schema.fields))

    def find(name: str, model: Model, options: PlannerOptions | None = None) -> Any:
        return made if name == "monotone" else make_planner(name, model, options)

    monkeypatch.setattr(distillation, "make_planner", find)
    return made


@pytest.fixture
def distil(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path) -> Distil:
    """The tiny model taught anew, into a folder of the test's own."""

    def go(teacher: str = "monotone", **request: Any) -> distillation.Distillation:
        wanted = {"data": tiny_data_file, "model": tiny_model_folder, "output": tmp_path / "taught"} | request
        return distill(DistillationRequest(teacher=teacher, **wanted))

    return go


def test_the_student_says_what_its_teacher_always_says(
    distil: Distil, teacher: Monotone, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = distillation.settings_of
    monkeypatch.setattr(student, "STEPS", replace(student.STEPS, learning_rate=0.01))
    monkeypatch.setattr(
        distillation,
        "settings_of",
        lambda model: (found := settings(model)).model_copy(
            update={"planner": found.planner.model_copy(update={"epochs": 60})}
        ),
    )
    made = distil(target="teacher")
    before, after = load_model(tiny_model_folder), load_model(made.place)
    # it was shown everything of every training and validation sample, once
    room = read_model_rows(before, tiny_data_file)
    assert teacher.asked == [*room.train.ids, *room.valid.ids]
    assert set(teacher.shown) == {("text", "audio", "vision")}
    for hidden in ("text", "audio"):
        masks = np.broadcast_to(np.array(before.names) == hidden, room.valid.mask().shape)
        partial = room.valid.hide(masks)
        plans = propose(after, partial, observe(after, partial), 1, 0)
        assert {plan.values for (plan,) in plans} == {teacher.plan}
    assert [plan.values for (plan,) in plans] != [
        plan.values for (plan,) in propose(before, partial, observe(before, partial), 1, 0)
    ]
    # nothing but the planner has changed
    for name in ("executor.safetensors", "observation_encoder.safetensors", "knowledge_base/entries.jsonl"):
        assert (made.place / name).read_bytes() == (tiny_model_folder / name).read_bytes()


def test_the_label_decides_the_target(distil: Distil, teacher: Monotone, tiny_model_folder: Path) -> None:
    made = distil()
    model = load_model(tiny_model_folder)
    facts = made.facts
    assert facts["train"] == {"rows": 48, "plans": 48, "unwritten": 0, "unfit": 0, "target_from_label": 48}
    assert facts["agreement"]["train"]["n"] == 48
    # the file holds what the teacher said itself, so that another target costs no call
    taught = read_plans(made.place / PLANS, model.schema)
    assert {tuple((plan.constraints or {}).values()) for plan in taught.plans} == {teacher.plan}
    manifest = read_manifest(made.place)
    assert manifest.training["distillation"]["from"] == model.manifest.fingerprint
    assert manifest.training["distillation"]["teachers"] == {"monotone": 64}
    assert any("stay as they were trained" in remark for remark in manifest.notes)
    assert "run" not in manifest.training
    assert PLANS in manifest.files


def test_an_interrupted_run_goes_on_to_the_same_model(
    distil: Distil, teacher: Monotone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher.breaks_after = 20
    with pytest.raises(KeyboardInterrupt):
        distil()
    # no more samples are under way at once than a chat planner asks for
    assert len(teacher.asked) == 2 * teachers.BATCH == 16
    place = tmp_path / f"taught{SUFFIX}"
    kept = (place / PLANS).read_bytes()
    assert kept.count(b"\n") == 16
    (place / PLANS).write_bytes(kept + b'{"id": "half a li')
    teacher.breaks_after = 10_000
    # killed once more, between the plans and the model
    with monkeypatch.context() as patch:
        patch.setattr(distillation, "teach", None)
        with pytest.raises(TypeError):
            distil()
    resumed = distil()
    assert len(teacher.asked) == len(set(teacher.asked)) == 64
    assert resumed.facts["written_now"] == 0
    assert resumed.fingerprint == distil(output=tmp_path / "at once").fingerprint
    assert not list(tmp_path.glob(f"*{SUFFIX}"))


def test_plans_of_another_request_are_not_mixed(
    distil: Distil, teacher: Monotone, tiny_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher.breaks_after = 20
    plans = {"output": None, "plans_only": tmp_path / "plans.jsonl"}
    with pytest.raises(KeyboardInterrupt):
        distil(**plans)
    other = tmp_path / "other.pkl"
    other.write_bytes(tiny_data_file.read_bytes() + b"x")
    for change in ({"candidates": 2}, {"temperature": 2.0}, {"data": other}):
        with pytest.raises(ConfigError, match=rf"another .*{next(iter(change))}.*--restart") as error:
            distil(**plans, **change)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(teacher, "name", "somebody else")
    with pytest.raises(ConfigError, match=r"teacher \(monotone, not somebody else\)"):
        distil(**plans)
    teacher.breaks_after = 10_000
    distil(**plans, temperature=2.0, restart=True)
    assert len(teacher.asked) == 16 + 64
    assert teacher.temperature == 2.0


def test_a_folder_of_somebody_else_is_left_alone(distil: Distil, teacher: Monotone, tmp_path: Path) -> None:
    place = tmp_path / f"taught{SUFFIX}"
    place.mkdir()
    (place / "diary.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(ConfigError, match="something else is there"):
            distil(restart=restart)
    assert (place / "diary.txt").read_text() == "mine"
    (place / "diary.txt").rename(place / f".{IDENTITY}.x")
    distil()
    assert not place.exists()


def test_samples_without_a_valid_plan(distil: Distil, teacher: Monotone, tiny_data_file: Path) -> None:
    model = load_model(distil("lexical").place)
    lost = sorted(read_model_rows(model, tiny_data_file).train.ids)[:2]
    teacher.refused = set(lost)
    with pytest.raises(PlanError, match=r"nothing to say.*--on-invalid-plan lexical or skip"):
        distil(overwrite=True)
    asked = len(teacher.asked)
    skipped = distil(overwrite=True, on_invalid="skip")
    assert len(teacher.asked) == 62 > asked
    assert skipped.facts["failed"] == skipped.facts["train"]["unwritten"] == 2
    written = [json.loads(line) for line in (skipped.place / PLANS).read_text("utf-8").splitlines()]
    assert {line["id"]: line["reason"] for line in written if line["constraints"] is None} == dict.fromkeys(
        lost, "it has nothing to say"
    )
    replaced = distil(overwrite=True, on_invalid="lexical")
    assert replaced.facts["teachers"] == {"monotone": 62, "lexical (fallback)": 2}
    assert replaced.facts["train"]["plans"] == 48


def test_a_plan_that_breaks_the_schema_is_a_failure(distil: Distil, teacher: Monotone) -> None:
    teacher.plan = ("nonsense",) * 3
    with pytest.raises(PlanError, match="obeys schema"):
        distil()
    with pytest.raises(Exception, match="none fits one of them"):
        distil(on_invalid="skip")


def test_in_place_the_model_is_replaced_whole(
    distil: Distil, teacher: Monotone, tiny_model_folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(tiny_model_folder, copied)
    teacher.breaks_after = 20
    with pytest.raises(KeyboardInterrupt):
        distil(model=copied, output=None)
    before = (copied / MANIFEST).read_bytes()
    assert before == (tiny_model_folder / MANIFEST).read_bytes()
    teacher.breaks_after = 10_000
    first = distil(model=copied, output=None)
    assert first.place == copied
    assert load_model(copied).manifest.fingerprint == first.fingerprint
    again = distil(model=copied, output=None)
    assert again.fingerprint == first.fingerprint
    assert sum("distilled again" in remark for remark in load_model(copied).manifest.notes) == 1


def test_lexical_plans_are_those_that_train_uses(
    distil: Distil, tiny_model_folder: Path, tiny_data_file: Path
) -> None:
    """The same rows, plans and seeds make the same student: both commands run the same code."""
    made = distil("lexical")
    assert made.facts["calls"] is None
    assert made.facts["agreement"]["train"]["n"] == 48
    old, new = tiny_model_folder / "planner", made.place / "planner"
    for path in sorted(old.rglob("*")):
        if path.is_file():
            assert (new / path.relative_to(old)).read_bytes() == path.read_bytes(), path.name


def test_what_contradicts_itself_is_refused(
    distil: Distil, teacher: Monotone, tiny_plain_file: Path, tiny_plain_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="got 'distilled'"):
        distil("distilled")
    with pytest.raises(ConfigError, match="got both"):
        distil(plans_only=tmp_path / "plans.jsonl")
    with pytest.raises(ConfigError, match="--plans-only"):
        distil(schema_file=tmp_path / "schema.yaml")
    with pytest.raises(ConfigError, match="expected --output"):
        distil(model=None, output=None)
    with pytest.raises(SchemaError, match="lexical annotator"):
        distil("lexical", data=tiny_plain_file, model=tiny_plain_folder)
    with pytest.raises(ConfigError, match="--teacher chat needs a model"):
        distil("chat")


def test_how_a_teacher_is_to_draw_is_not_passed_over_in_silence(
    distil: Distil, teacher: Monotone, tmp_path: Path
) -> None:
    made = distil(plans_only=tmp_path / "plans.jsonl", output=None, temperature=2.0, top_p=0.5)
    assert "temperature, top_p have no effect: monotone ignores sampling settings" in made.notes
    lexical = distil("lexical", plans_only=tmp_path / "words.jsonl", output=None, temperature=2.0)
    assert "temperature has no effect: lexical ignores sampling settings" in lexical.notes


def test_a_model_of_one_fold_is_taught_its_own_rows(tiny_model_folder: Path, tiny_data_file: Path) -> None:
    model = load_model(tiny_model_folder)
    part = fold_of(read_data_file(tiny_data_file, leave_out=("test",)), 1, 2)
    data = model.manifest.data | {"fold": part.facts()}
    room = read_model_rows(
        replace(model, manifest=model.manifest.model_copy(update={"data": data})), tiny_data_file
    )
    assert part.held_out
    assert not set(part.held_out).intersection([*room.train.ids, *room.valid.ids])
    assert len(room.train) + len(room.valid) + len(part.held_out) == 64


def test_only_plans_under_another_schema(
    distil: Distil, teacher: Monotone, train_tiny: Callable[..., Path], tiny_data_file: Path, tmp_path: Path
) -> None:
    """A schema that no rule fills: the teacher writes plans, and ``omg train`` makes a model of them."""
    schema = tmp_path / "topic.yaml"
    schema.write_text(
        "name: topic\nfields:\n  - {name: Topic, max_words: 4}\n  - {name: Mood, values: [low, high]}\n"
        'text_form: "{Topic}: {Mood}"\ntarget: Mood\ndegrees: {low: -1, high: 1}\n',
        "utf-8",
    )
    teacher.plan = ("a long summer", "high")
    plans = tmp_path / "plans.jsonl"
    made = distil(plans_only=plans, schema_file=schema, output=None)
    assert made.fingerprint is None
    with pytest.raises(ConfigError, match="there already"):
        distil(plans_only=plans, schema_file=schema, output=None)
    folder = train_tiny(tiny_data_file, "topics", plans=str(plans), schema_file=str(schema))
    model = load_model(folder)
    assert model.schema.field_names == ("Topic", "Mood")
    assert model.knowledge_base.texts[0].startswith("a long summer: ")
    facts = model.manifest.training["plans"]
    assert (facts["teachers"], facts["train"]["target_from_label"]) == ({"monotone": 64}, 48)
    room = read_model_rows(model, tiny_data_file)
    inputs = planner_input(room.valid, observe(model, room.valid))
    said = {plan.values for (plan,) in model.planner.propose(inputs, Sampling(1), 0)}
    assert not any(model.schema.violations(plan) for plan in said)
    assert {word for topic, _ in said for word in topic.split()} <= {*["a", "long", "summer", "low", "high"]}


def test_plans_of_numbered_rows_are_refused_for_another_file(
    distil: Distil, train_tiny: Callable[..., Path], tiny_data_file: Path, tmp_path: Path
) -> None:
    numbered, other = tmp_path / "numbered.pkl", tmp_path / "other.pkl"
    content = read_pickle(tiny_data_file)
    assert isinstance(content, dict)
    for path, splits in ((numbered, ("train", "valid")), (other, ("train", "test"))):
        rows = [{name: value for name, value in content[of].items() if name != "id"} for of in splits]
        path.write_bytes(pickle.dumps(dict(zip(("train", "valid"), rows, strict=True)), 4))
    plans = tmp_path / "plans.jsonl"
    distil("lexical", data=numbered, plans_only=plans, output=None)
    with pytest.raises(DataError, match="another file's row numbers"):
        train_tiny(other, "of-another", plans=str(plans))


def test_a_thinker_teaches_on_other_data(
    distil: Distil, tiny_data_file: Path, tiny_thinker_folder: Path, tmp_path: Path
) -> None:
    """A language model on this machine."""
    splits = read_data_file(tiny_data_file, leave_out=("test",)).splits
    few = {name: split.take(range(8 if name == "train" else 4)) for name, split in splits.items()}
    path = tmp_path / "few.pkl"
    save_corpus(path, few)
    made = distil("qwen-omni", data=path, options=PlannerOptions(model=str(tiny_thinker_folder)))
    assert list(made.facts["teachers"].values()) == [12]
    assert next(iter(made.facts["teachers"])).startswith("qwen-omni")
    assert made.facts["train"]["plans"] == 8
    assert made.facts["prompts"][0]["sha256"] == load_prompt().sha256
    assert any("isn't the file that the model was trained on" in remark for remark in made.notes)
