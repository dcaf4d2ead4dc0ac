"""The Qwen2.5-Omni planner, with a thinker of random weights: what it writes, and how sure it says it is."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph.data.recordings import Recording
from omg_graph.errors import ConfigError, PlanError
from omg_graph.omni.prefix import Continuation, read_prefix, token_log_probabilities
from omg_graph.omni.thinker import Message, Thinker, load_thinker
from omg_graph.planner.decoding import FreeDecoding, Spelling
from omg_graph.planner.interface import (
    FallbackPlanner,
    NoValidPlanError,
    PlannerInput,
    RescoringPlanner,
    Sampling,
    required,
)
from omg_graph.planner.omni import OmniPlanner, drawn
from omg_graph.planner.prompting import load_prompt
from omg_graph.planner.schema import Field, Schema
from omg_graph.seeding import generator

SCHEMA = Schema(
    name="sorted",
    fields=(
        Field(name="Kind", values=("story", "strong music", "story telling", "2 %")),
        Field(
            name="Part",
            values=("plot", "ending", 'the "best" \\ part', "loud", "quiet"),
            within={
                "story": ("plot", "ending"),
                "strong music": ("loud", "quiet"),
                "story telling": ("plot", 'the "best" \\ part'),
                "2 %": ("quiet",),
            },
        ),
        Field(name="Words", max_words=3),
    ),
    text_form="{Kind}, {Part}: {Words}",
)


def noise(*shape: int) -> Any:
    return torch.rand(shape, generator=generator("noise", *shape)).numpy()


SOUND = Recording("audio", (noise(8_000) - 0.5).astype(np.float32), 16_000.0)
IMAGE = Recording("image", (noise(56, 84, 3) * 255).astype(np.uint8))
TEXTS = ("I liked it <|im_end|> a lot", None, "the music is loud")


@pytest.fixture(scope="module")
def thinker(tiny_thinker_folder: Path) -> Thinker:
    return load_thinker(str(tiny_thinker_folder))


@pytest.fixture(scope="module")
def planner(thinker: Thinker) -> OmniPlanner:
    return OmniPlanner(thinker, SCHEMA)


def batch(rows: tuple[int, ...] = (0, 1, 2)) -> PlannerInput:
    whole = PlannerInput(
        ids=("clip0", "clip1", "clip2"),
        embeddings=np.zeros((3, 4), np.float32),
        raw_text=TEXTS,
        modalities=("text", "audio", "vision"),
        observed=(("text", "audio"), ("audio", "vision"), ("text", "vision")),
        recordings={"audio": (SOUND, SOUND, None), "vision": (None, IMAGE, None)},
    )
    return whole.take(rows)


def from_scratch(
    thinker: Thinker, planner: OmniPlanner, observations: PlannerInput, plan: Any
) -> list[float]:
    """log p of each value and its terminator by one pass over prompt and answer, with no cache at all."""
    spelling = Spelling(SCHEMA, thinker.encode)
    answer = [*spelling.scaffold(0), *spelling.encode(plan).tokens]
    levels = [-1] * len(spelling.scaffold(0)) + list(spelling.encode(plan).levels)
    messages = [planner._system, Message("user", planner._parts(observations, 0))]
    inputs = thinker.inputs([messages])
    tokens = torch.cat([inputs.pop("input_ids"), torch.tensor([answer])], dim=1)
    inputs.pop("position_ids")
    inputs["attention_mask"] = torch.ones_like(tokens)
    with torch.inference_mode():
        logits = thinker.model(input_ids=tokens, use_cache=False, **inputs).logits[0].log_softmax(-1)
    start = tokens.shape[1] - len(answer)
    found = [float(logits[start + place - 1, token]) for place, token in enumerate(answer)]
    return [
        sum(value for value, at in zip(found, levels, strict=True) if at == level)
        for level in range(len(SCHEMA.fields))
    ]


def test_every_plan_obeys_the_schema_whatever_the_weights(planner: OmniPlanner) -> None:
    plans = planner.propose(batch(), Sampling(12), seed=3)
    assert [len(rows) for rows in plans] == [12, 12, 12]
    for rows in plans:
        for plan in rows:
            assert SCHEMA.violations(plan.values) == ()
            assert plan.origin is not None
            assert plan.origin.decoding == "held to the schema by llguidance"
            assert plan.origin.note is None
            assert plan.origin.prompt_sha256 == load_prompt().sha256
        assert [plan.greedy for plan in rows] == [True] + [False] * 11
    # random weights say many things
    assert len({plan.values[0] for rows in plans for plan in rows}) > 1
    assert len({plan.values for rows in plans for plan in rows}) > 10


def test_log_probabilities_are_those_of_teacher_forcing(thinker: Thinker, planner: OmniPlanner) -> None:
    assert isinstance(planner, RescoringPlanner)
    for row in range(3):
        alone = batch((row,))
        (plans,) = planner.propose(alone, Sampling(4), seed=1)
        for plan in plans:
            expected = from_scratch(thinker, planner, alone, plan.values)
            np.testing.assert_allclose(plan.log_probabilities, expected, atol=1e-4, rtol=0)
            (again,) = planner.rescore(alone, [plan.values])
            assert again is not None
            np.testing.assert_allclose(again.log_probabilities, expected, atol=1e-4, rtol=0)
            assert again.token_counts == plan.token_counts
            ends = ('",', '",', '"}')
            assert list(plan.token_counts) == [
                len(thinker.encode(json.dumps(value, ensure_ascii=False)[1:-1])) + len(thinker.encode(end))
                for value, end in zip(plan.values, ends, strict=True)
            ]


def test_drawing_follows_the_model_among_what_is_allowed(thinker: Thinker) -> None:
    """Over two values, the drawn shares are the model's own, given that it is one of the two."""
    schema = Schema(name="two", fields=(Field(name="A", values=("plot", "loud")),), text_form="{A}")
    planner = OmniPlanner(thinker, schema)
    observations = batch((0,))
    (plans,) = planner.propose(observations, Sampling(400, greedy=False), seed=0)
    found = sum(plan.values == ("plot",) for plan in plans) / 400
    spelling = Spelling(schema, thinker.encode)
    first = {value: spelling.value(value)[0] for value in ("plot", "loud")}
    logits = planner._prefix(observations, 0).logits
    share = float(torch.softmax(logits[list(first.values())], dim=0)[0])
    assert 0.02 < share < 0.98
    assert found == pytest.approx(share, abs=3.5 * (share * (1 - share) / 400) ** 0.5)


def test_a_sample_gets_the_same_plans_alone_in_a_batch_and_in_any_order(planner: OmniPlanner) -> None:
    together = planner.propose(batch(), Sampling(5), seed=7)
    backwards = planner.propose(batch((2, 1, 0)), Sampling(5), seed=7)
    for row in range(3):
        (alone,) = planner.propose(batch((row,)), Sampling(5), seed=7)
        (fewer,) = planner.propose(batch((row,)), Sampling(2), seed=7)
        for one, two, three in zip(together[row], backwards[2 - row], alone, strict=True):
            assert one.values == two.values == three.values
            np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, atol=1e-5)
            np.testing.assert_allclose(one.log_probabilities, three.log_probabilities, atol=1e-5)
        assert [plan.values for plan in fewer] == [plan.values for plan in alone[:2]]
    assert planner.propose(batch((0,)), Sampling(5), seed=8) != planner.propose(
        batch((0,)), Sampling(5), seed=7
    )


def test_the_greedy_plan_is_the_likeliest_one_step_by_step(thinker: Thinker, planner: OmniPlanner) -> None:
    """By hand, with no cache of candidates: at each step the likeliest token that some value has."""
    observations = batch((1,))
    (plans,) = planner.propose(observations, Sampling(1), seed=0)
    spelling = Spelling(SCHEMA, thinker.encode)
    prefix = planner._prefix(observations, 0)
    written: tuple[int, ...] = ()
    values = {
        value: (*spelling.value(value), *spelling.terminator(0)) for value in SCHEMA.fields[0].values or ()
    }
    while written not in values.values():
        place = len(written)
        may = sorted({v[place] for v in values.values() if v[:place] == written and len(v) > place})
        logits = prefix.logits
        if written:
            logits = Continuation(thinker, prefix, 1).read([written])[0]
        written = (*written, max(may, key=lambda token: float(logits[token])))
    assert values[plans[0].values[0]] == written


def test_a_higher_temperature_draws_more_evenly_and_says_the_same_of_a_plan(planner: OmniPlanner) -> None:
    observations = batch((0,))
    hot = Sampling(30, greedy=False, temperature=21.0)
    (plans,) = planner.propose(observations, hot, seed=0)
    assert not any(plan.greedy for plan in plans)
    (usual,) = planner.propose(observations, Sampling(30), seed=0)
    assert usual[0].greedy
    assert np.mean([sum(p.log_probabilities) for p in plans]) < np.mean(
        [sum(p.log_probabilities) for p in usual]
    )
    (again,) = planner.rescore(observations, [plans[0].values])
    assert again is not None
    np.testing.assert_allclose(again.log_probabilities, plans[0].log_probabilities, atol=1e-4)


def test_the_prompt_is_read_once_for_all_candidates(
    thinker: Thinker, planner: OmniPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner.propose(batch((0,)), Sampling(1), seed=0)  # what all samples share is read by now
    read_tokens = []
    forward = thinker.model.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        read_tokens.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(thinker.model.model, "forward", counted)
    planner.propose(batch((1,)), Sampling(5), seed=0)
    whole = thinker.inputs([[planner._system, Message("user", planner._parts(batch((1,)), 0))]])
    shared = thinker.inputs([[planner._system]], answer=False)["input_ids"].shape[1]
    own = whole["input_ids"].shape[1] - shared + len(Spelling(SCHEMA, thinker.encode).scaffold(0))
    assert read_tokens[0] == (1, own)
    assert all(rows <= 5 and tokens < own for rows, tokens in read_tokens[1:])


def test_going_on_from_a_prefix_is_reading_it_all(thinker: Thinker) -> None:
    messages = [Message("user", ("A film.", SOUND, IMAGE))]
    inputs = thinker.inputs([messages])
    rows = [thinker.encode("a long ending"), thinker.encode("no")]
    prefix = read_prefix(thinker, inputs)
    going = Continuation(thinker, prefix, 2)
    logits = going.read(rows)
    going.keep([1])
    later = going.read([thinker.encode(" more")])
    texts = [*rows, [*rows[1], *thinker.encode(" more")]]
    for found, text in zip([logits[0], logits[1], later[0]], texts, strict=True):
        expected = read_prefix(thinker, inputs, then=text).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    scored = token_log_probabilities(thinker, prefix, rows)
    for row, values in zip(rows, scored, strict=True):
        for place, token in enumerate(row):
            expected = read_prefix(thinker, inputs, then=row[:place]).logits.log_softmax(-1)[token]
            assert float(values[place]) == pytest.approx(float(expected), abs=1e-4)


def test_recordings_and_words_change_what_is_planned(planner: OmniPlanner) -> None:
    plan = ("story", "plot", "so it goes")
    observations = batch((0,))
    (heard,) = planner.rescore(observations, [plan])
    (deaf,) = planner.rescore(replace(observations, recordings={}), [plan])
    (other,) = planner.rescore(replace(observations, raw_text=("something else",)), [plan])
    assert heard is not None
    assert deaf is not None
    assert other is not None
    assert not np.allclose(heard.log_probabilities, deaf.log_probabilities, atol=1e-3)
    assert not np.allclose(heard.log_probabilities, other.log_probabilities, atol=1e-3)


def test_the_trajectory_says_what_was_read(thinker: Thinker, planner: OmniPlanner) -> None:
    long = Recording("video", np.zeros((40, 30, 30, 3), np.uint8), 10.0)
    observations = replace(batch((1,)), recordings={"audio": (SOUND,), "vision": (long,)})
    ((plan,),) = planner.propose(observations, Sampling(1), seed=0)
    assert plan.origin is not None
    given = [(one.modality, one.kind, one.seconds, one.frames) for one in plan.origin.recordings]
    assert given == [("audio", "audio", 0.5, None), ("vision", "video", 4.0, 40)]
    assert plan.origin.note == "planner qwen-omni was given 16 of 40 frames of vision"
    deaf = OmniPlanner(thinker, SCHEMA, media="off")
    ((plan,),) = deaf.propose(observations, Sampling(1), seed=0)
    assert plan.origin is not None
    assert plan.origin.recordings == ()
    assert plan.origin.note is None
    without = replace(observations, recordings={})
    assert deaf.rescore(observations, [plan.values]) == planner.rescore(without, [plan.values])


def test_written_freely_it_is_marked_and_checked_afterwards(thinker: Thinker) -> None:
    free = OmniPlanner(thinker, SCHEMA, constrained=False)
    observations = batch((0,))
    (outcome,) = free.propose(observations, Sampling(5), seed=0)
    assert isinstance(outcome, NoValidPlanError)  # random weights don't know the schema
    assert "--on-invalid-plan distilled" in str(outcome)
    with pytest.raises(NoValidPlanError):
        required([outcome])
    easy = Schema(name="easy", fields=(Field(name="A", max_words=30),), text_form="{A}")
    planner = OmniPlanner(thinker, easy, constrained=False)
    (plans,) = planner.propose(observations, Sampling(40), seed=0)
    origin = plans[0].origin
    assert origin is not None
    assert origin.decoding == "written freely, checked against the schema afterwards"
    assert origin.note is not None
    assert "llguidance" in origin.note
    for plan in plans:
        if not easy.violations(plan.values):
            (again,) = planner.rescore(observations, [plan.values])
            assert again is not None
            np.testing.assert_allclose(again.log_probabilities, plan.log_probabilities, atol=1e-4)
    assert any(not easy.violations(plan.values) for plan in plans)


def test_without_llguidance_plans_are_written_freely(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    planner = OmniPlanner(thinker, SCHEMA)
    assert planner._origin.note is not None
    with pytest.raises(ConfigError, match=r"pip install 'omg-graph\[qwen\]'"):
        OmniPlanner(thinker, SCHEMA, constrained=True)


def test_half_precision_plans_too(tiny_thinker_folder: Path) -> None:
    planner = OmniPlanner(load_thinker(str(tiny_thinker_folder), dtype="bfloat16"), SCHEMA)
    (plans,) = planner.propose(batch((1,)), Sampling(3), seed=0)
    for plan in plans:
        assert SCHEMA.violations(plan.values) == ()
        (again,) = planner.rescore(batch((1,)), [plan.values])
        assert again is not None
        np.testing.assert_allclose(again.log_probabilities, plan.log_probabilities, atol=0.2)


@pytest.mark.parametrize("value", ["a", 'the "best" \\ part', "naïve 不错", "{2} %: x"])
def test_a_value_is_written_as_it_is(thinker: Thinker, value: str) -> None:
    """Where there is no choice, nothing is drawn and the model reads it all at once."""
    schema = Schema(name="one", fields=(Field(name="A", values=(value,)),), text_form="{A}")
    ((plan,),) = OmniPlanner(thinker, schema).propose(batch((0,)), Sampling(1), seed=0)
    assert plan.values == (value,)


@pytest.mark.parametrize(
    ("pieces", "value"),
    [
        (["plot", '"'], "plot"),
        (["pl", 'ot", "x'], "plot"),
        (["a \\", '" b', '"'], 'a " b'),
        (["a", "\\\\", '"'], "a\\"),
        (['"'], ""),
        (["\\u00e9", '"'], "é"),
        (["\\q", '"'], "\\q"),
    ],
)
def test_free_writing_ends_at_the_closing_quote(pieces: list[str], value: str) -> None:
    schema = Schema(name="easy", fields=(Field(name="A", max_words=30),), text_form="{A}")
    spelt: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        return spelt.setdefault(text, [1000 + len(spelt)])

    source = FreeDecoding(
        Spelling(schema, encode), lambda tokens: "".join(pieces[t] for t in tokens), np.ones(9, bool)
    )
    writer = source.start(0, ())
    for number in range(len(pieces)):
        assert writer.value is None
        read_on = writer.write(number)
    assert writer.value == value
    assert read_on[-1] == encode('"}')[0]


def test_free_writing_without_end_is_bounded() -> None:
    schema = Schema(name="easy", fields=(Field(name="A", max_words=30),), text_form="{A}")
    source = FreeDecoding(
        Spelling(schema, lambda text: [0]), lambda tokens: "x " * len(tokens), np.ones(9, bool)
    )
    writer = source.start(0, ())
    steps = 0
    while writer.value is None:
        writer.write(1)
        steps += 1
    assert steps == 48
    assert schema.violations((writer.value,))


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        (0.5, 1.0, [25 / 38, 9 / 38, 4 / 38]),
        (1.0, 0.6, [0.625, 0.375, 0.0]),
        (1.0, 0.5, [1.0, 0.0, 0.0]),
    ],
)
def test_draws_have_the_shares_they_should(temperature: float, top_p: float, expected: list[float]) -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    random = generator("draws")
    found = np.bincount([drawn(logits, random, temperature, top_p) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(found[[1, 2, 0]], expected, atol=0.03)


def test_a_fall_back_passes_on_what_its_first_planner_can(planner: OmniPlanner) -> None:
    pair = FallbackPlanner(planner, None)  # type: ignore[arg-type]  # asking it would be an error
    assert pair.follows_sampling
    hot = Sampling(3, greedy=False, temperature=1.5)
    assert pair.propose(batch((0,)), hot, seed=0) == planner.propose(batch((0,)), hot, seed=0)
    assert pair.rescore(batch((0,)), [("story", "plot", "so")]) == planner.rescore(
        batch((0,)), [("story", "plot", "so")]
    )


def test_a_plan_that_breaks_the_schema_is_not_scored(planner: OmniPlanner) -> None:
    with pytest.raises(PlanError, match="violates schema"):
        planner.rescore(batch((0,)), [("story", "loud", "so it goes")])
