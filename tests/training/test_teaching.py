"""Plans of a teacher: the file they are in, what is learnt from them, and how true they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omg_graph.data.dataset import Labels, ModalitySpec, Split
from omg_graph.errors import DataError, ModelError
from omg_graph.planner.schemas import AFFECT, class_schema, load_schema, target_values
from omg_graph.training.teaching import (
    PLANS,
    SUFFIX,
    PlansInProgress,
    TaughtPlan,
    TaughtPlans,
    plan_lines,
    read_plans,
)

AFFECT_SCHEMA = load_schema(AFFECT)
PRAISE = {"Entity": "story", "Action": "praises", "Sentiment": "positive"}


def split_of(
    values: list[float],
    *,
    name: str = "train",
    ids: tuple[str, ...] | None = None,
    classes: tuple[str, ...] = (),
) -> Split:
    rows = len(values)
    ids = ids or tuple(f"{name}-{row}" for row in range(rows))
    return Split(
        name=name,
        ids=ids,
        groups=ids,
        modalities=(ModalitySpec(name="audio", kind="vector", shape=(2,)),),
        arrays={"audio": np.zeros((rows, 2), np.float32)},
        observed={"audio": np.ones(rows, np.bool_)},
        labels=Labels("label", "classes" if classes else "regression", np.array(values), classes),
    )


def taught(split: Split, plans: list[dict[str, str] | None]) -> TaughtPlans:
    return TaughtPlans(
        TaughtPlan(id=sample_id, split=split.name, constraints=values, teacher="somebody")
        for sample_id, values in zip(split.ids, plans, strict=True)
    )


def test_a_known_label_decides_the_target_unless_the_teacher_is_to() -> None:
    split = split_of([-2.0, np.nan])
    plans = taught(split, [PRAISE, PRAISE])
    by_label = plans.lesson(split, AFFECT_SCHEMA)
    assert by_label.plans == (("story", "praises", "negative"), ("story", "praises", "positive"))
    assert by_label.facts() == {"rows": 2, "plans": 2, "unwritten": 0, "unfit": 0, "target_from_label": 1}
    by_teacher = plans.lesson(split, AFFECT_SCHEMA, "teacher")
    assert by_teacher.plans == (("story", "praises", "positive"),) * 2
    assert by_teacher.from_label == 0


def test_nothing_is_learnt_where_there_is_no_whole_plan() -> None:
    split = split_of([1.0, np.nan, 1.0])
    open_target = {"Entity": "story", "Action": "praises"}
    lesson = taught(split, [open_target, open_target, None]).lesson(split, AFFECT_SCHEMA)
    assert lesson.plans == (("story", "praises", "weakly positive"), None, None)
    assert (lesson.unwritten, lesson.unfit) == (1, 1)


def test_a_label_may_break_the_schema() -> None:
    schema = AFFECT_SCHEMA.model_dump()
    actions = schema["fields"][1]["values"]
    degrees = schema["fields"][2]["values"]
    schema["fields"][2]["within"] = {
        action: [word for word in degrees if action != "praises" or "negative" not in word]
        for action in actions
    }
    within = type(AFFECT_SCHEMA).model_validate(schema)
    split = split_of([-2.0, 2.0])
    lesson = taught(split, [PRAISE, PRAISE]).lesson(split, within)
    assert lesson.plans == (None, ("story", "praises", "positive"))
    assert lesson.unfit == 1


def test_agreement_is_of_the_teachers_own_targets() -> None:
    split = split_of([-2.0, 1.6, 3.0, np.nan])
    plans = taught(
        split,
        [PRAISE | {"Sentiment": word} for word in ("positive", "positive", "strongly positive", "neutral")],
    )
    told = plans.agreement(split, AFFECT_SCHEMA, "mosi")
    assert told["n"] == 3
    assert told["acc2"] == pytest.approx(2 / 3)
    assert told["acc7"] == pytest.approx(2 / 3)
    assert plans.agreement(split_of([np.nan]), AFFECT_SCHEMA, "none") == {}


def test_agreement_on_classes() -> None:
    names = ("Ant", "Bee")
    schema = class_schema(names)
    split = split_of([0, 1, 1], classes=names)
    assert target_values(schema, split.labels) == ["ant", "bee", "bee"]
    told = taught(split, [{"Class": "ant"}, {"Class": "ant"}, {"Class": "bee"}]).agreement(
        split, schema, "classes"
    )
    assert told["n"] == 3
    assert told["accuracy"] == pytest.approx(2 / 3)


def test_labels_of_another_kind_tell_no_target() -> None:
    assert target_values(AFFECT_SCHEMA, split_of([0], classes=("a",)).labels) is None
    assert target_values(class_schema(("a", "b")), split_of([0.5]).labels) is None


def test_ids_that_come_in_both_splits_are_told_apart(tmp_path: Path) -> None:
    train, valid = split_of([1.0], ids=("0",)), split_of([1.0], name="valid", ids=("0",))
    path = tmp_path / "plans.jsonl"
    other = PRAISE | {"Entity": "music"}
    path.write_bytes(plan_lines([*taught(train, [PRAISE]).plans, *taught(valid, [other]).plans]))
    plans = read_plans(path, AFFECT_SCHEMA)
    assert plans.lesson(train, AFFECT_SCHEMA).plans[0][0] == "story"
    assert plans.lesson(valid, AFFECT_SCHEMA).plans[0][0] == "music"
    # a fold calls all of its rows train: an id that is there once is found all the same
    assert taught(valid, [other]).find("0", "train") is not None


def test_row_numbers_are_those_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "plans.jsonl"
    plain = taught(split_of([1.0, 0.0], ids=("0", "1")), [PRAISE, PRAISE])
    path.write_bytes(plan_lines(plain.of_rows("abc").plans))
    numbered = read_plans(path, AFFECT_SCHEMA)
    assert numbered.find("1", "train") is not None
    assert not numbered.of_others("abc")
    assert numbered.of_others("def")
    assert not plain.of_others("def")


def test_plans_that_leave_all_to_the_label_are_plans(tmp_path: Path) -> None:
    """As the lexical teacher writes them where there is no text."""
    path = tmp_path / "plans.jsonl"
    split, schema = split_of([1.0, 0.0], classes=("happy", "sad")), class_schema(["happy", "sad"])
    path.write_bytes(plan_lines(taught(split, [{}, {}]).plans))
    plans = read_plans(path, schema)
    assert plans.lesson(split, schema).plans == (("sad",), ("happy",))
    assert plans.lesson(split, schema, "teacher").plans == (None, None)


def test_a_line_that_did_not_end_is_dropped(tmp_path: Path) -> None:
    def begun() -> PlansInProgress:
        return PlansInProgress(tmp_path / "model", {"teacher": "somebody"}, AFFECT_SCHEMA)

    path = tmp_path / f"model{SUFFIX}" / PLANS
    first, second = taught(split_of([1.0, 1.0]), [PRAISE, PRAISE]).plans
    begun().add([first])
    whole = path.read_bytes()
    for cut in (1, 20, len(plan_lines([second])) - 1):
        path.write_bytes(whole + plan_lines([second])[:cut])
        assert list(begun().plans.values()) == [first]
        assert path.read_bytes() == whole
    begun().add([second])
    assert list(begun().plans.values()) == [first, second]
    path.write_bytes(whole + b"\xff\n")
    with pytest.raises(DataError, match="--restart"):
        begun()
    with pytest.raises(ModelError, match="inside a folder"):
        PlansInProgress(Path("/"), {}, AFFECT_SCHEMA)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "expected a plan"),
        ('{"id": "a"}', "constraints"),
        ('{"id": "a", "constraints": {}, "odd": 1}', "odd"),
        ('{"id": "a", "constraints": {"Entity": "story", "Action": "praises", "Mood": "x"}}', "'Mood' isn't"),
        ('{"id": "a", "constraints": {"Entity": "story"}}', "Action is missing"),
        ('{"id": "a", "constraints": {"Entity": "story", "Action": "sings"}}', "Action can't be 'sings'"),
        (
            '{"id": "a", "constraints": {"Entity": "story", "Action": "praises", "Sentiment": "odd"}}',
            "Sentiment can't be 'odd'",
        ),
    ],
)
def test_a_line_that_is_no_plan_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "plans.jsonl"
    path.write_text(json.dumps({"id": "first", "constraints": PRAISE}) + "\n\n" + line, "utf-8")
    with pytest.raises(DataError, match=r"plans\.jsonl:3") as error:
        read_plans(path, AFFECT_SCHEMA)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_plans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plans.jsonl"
    with pytest.raises(DataError, match="a file of plans was expected"):
        read_plans(path, AFFECT_SCHEMA)
    path.write_text('{"id": "a", "constraints": null, "reason": "declined"}\n', "utf-8")
    with pytest.raises(DataError, match="at least one plan"):
        read_plans(path, AFFECT_SCHEMA)
    path.write_text((json.dumps({"id": "a", "constraints": PRAISE}) + "\n") * 2, "utf-8")
    with pytest.raises(DataError, match="'a' comes twice"):
        read_plans(path, AFFECT_SCHEMA)
