"""The distilled planner: true log-probabilities, results of a sample's own, and that it can learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from omg_graph.errors import ConfigError, ModelError, PlanError, SchemaError
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.schema import Field, Schema
from omg_graph.planner.schemas import load_schema
from omg_graph.planner.student import LANGUAGE_MODEL_FOLDER, MICRO_BATCH, StudentPlanner, choose_tokens
from omg_graph.seeding import generator

WIDTH = 8
LABEL_WIDTH = 3

TOY = Schema(
    name="toy",
    fields=(
        Field(name="Shape", values=("circle", "square", "rounded square")),
        Field(
            name="Size",
            values=("small", "very small", "large", "very very large"),
            within={
                "circle": ("small", "very small"),
                "square": ("large", "very very large"),
                "rounded square": ("small",),
            },
        ),
        Field(name="Note", max_words=3),
    ),
    text_form="{Shape}, {Size}: {Note}",
)
NOTES = ("plain", "with a hole", "seen before")


def student() -> StudentPlanner:
    return StudentPlanner(TOY, WIDTH, words=NOTES, width=32, seed=3).eval()


def label_student() -> StudentPlanner:
    """A student that takes label estimates, and whose logits depend on them."""
    planner = StudentPlanner(TOY, WIDTH, words=NOTES, width=32, seed=3, label_width=LABEL_WIDTH).eval()
    assert planner.label_bias is not None
    torch.nn.init.normal_(planner.label_bias.weight, generator=torch.Generator().manual_seed(0))
    return planner


def observations(count: int, seed: int = 0) -> PlannerInput:
    random = np.random.default_rng(seed)
    embeddings = random.standard_normal((count, WIDTH)).astype(np.float32)
    estimates = random.standard_normal((count, LABEL_WIDTH)).astype(np.float32)
    return PlannerInput(
        tuple(f"clip{i}" for i in range(count)), embeddings, (None,) * count, label_estimates=estimates
    )


@pytest.mark.parametrize("make", [student, label_student])
def test_no_candidate_breaks_the_schema_and_its_log_probabilities_are_the_models(
    make: Callable[[], StudentPlanner],
) -> None:
    planner, batch = make(), observations(7)
    proposed = planner.propose(batch, Sampling(6), seed=11)
    assert [len(plans) for plans in proposed] == [6] * 7
    for row, plans in enumerate(proposed):
        assert all(TOY.violations(plan.values) == () for plan in plans)
        for plan in plans:
            assert plan.token_counts == (2, 2, len(plan.values[2].split()) + 1)
            expected = [sum(own) for own in by_hand(planner, batch, row, plan.values)]
            assert plan.log_probabilities == pytest.approx(expected, abs=1e-4)
    (last,) = planner.rescore(batch.take([6]), [proposed[6][5].values])
    assert last is not None
    assert (last.values, last.token_counts) == (proposed[6][5].values, proposed[6][5].token_counts)
    assert last.log_probabilities == pytest.approx(proposed[6][5].log_probabilities, abs=1e-4)


def by_hand(
    planner: StudentPlanner, batch: PlannerInput, row: int, plan: tuple[str, ...]
) -> list[list[float]]:
    """log pi of each token of each value and of its terminator, one forward pass for each token."""
    vocabulary, found = planner.vocabulary, []
    before: list[int] = []
    with torch.no_grad():
        prefix = planner.prefix_norm(
            planner.projection(torch.from_numpy(batch.embeddings[row])).view(1, 2, -1)
        )
        bias = None
        if planner.label_bias is not None and batch.label_estimates is not None:
            bias = planner.label_bias(torch.from_numpy(batch.label_estimates[row : row + 1]))[0]
        for level, value in enumerate(plan):
            before.append(vocabulary.scaffold(level))
            own = []
            for token in (*vocabulary.tokens_of(level, value), vocabulary.end):
                words = planner.language_model.get_input_embeddings()(torch.tensor([before]))
                logits = planner.language_model(inputs_embeds=torch.cat([prefix, words], dim=1)).logits[0, -1]
                logits = logits if bias is None else logits + bias[level]
                own.append(float(logits.log_softmax(dim=-1)[token]))
                before.append(token)
            found.append(own)
    return found


def test_log_probabilities_are_over_the_whole_vocabulary() -> None:
    """One value is allowed, yet its log-probability is not zero: the grammar changes no probability."""
    schema = Schema(name="one", fields=(Field(name="Only", values=("one way",)),), text_form="{Only}")
    planner = StudentPlanner(schema, WIDTH, width=32).eval()
    (plans,) = planner.propose(observations(1), Sampling(2), seed=0)
    assert plans[0].values == plans[1].values == ("one way",)
    assert plans[0].token_counts == (2,)
    uniform = -2 * math.log(len(planner.vocabulary))
    assert plans[0].log_probabilities[0] == pytest.approx(uniform, abs=1.0)


def test_a_sample_alone_gets_the_plans_it_gets_in_any_batch() -> None:
    planner = student()
    batch = observations(MICRO_BATCH + 3)
    together = planner.propose(batch, Sampling(4), seed=5)
    order = np.random.default_rng(1).permutation(len(batch.ids))[:20]
    shuffled = planner.propose(
        PlannerInput(tuple(batch.ids[i] for i in order), batch.embeddings[order], (None,) * len(order)),
        Sampling(4),
        seed=5,
    )
    for row, plans in zip(order, shuffled, strict=True):
        alone = planner.propose(
            PlannerInput((batch.ids[row],), batch.embeddings[row : row + 1], (None,)), Sampling(4), seed=5
        )[0]
        for ours, other, single in zip(plans, together[row], alone, strict=True):
            assert ours.values == other.values == single.values
            np.testing.assert_allclose(ours.log_probabilities, other.log_probabilities, atol=1e-4)
            np.testing.assert_allclose(ours.log_probabilities, single.log_probabilities, atol=1e-4)


def test_fewer_candidates_are_the_first_of_more() -> None:
    planner = student()
    few = planner.propose(observations(5), Sampling(2), seed=9)
    many = planner.propose(observations(5), Sampling(6), seed=9)
    assert [[p.values for p in plans] for plans in few] == [[p.values for p in plans[:2]] for plans in many]


def test_the_greedy_plan_comes_first_and_only_if_asked_for() -> None:
    planner = student()
    batch = observations(4)
    with_greedy = planner.propose(batch, Sampling(3), seed=0)
    assert [[p.greedy for p in plans] for plans in with_greedy] == [[True, False, False]] * 4
    assert [p[0] for p in planner.propose(batch, Sampling(1), seed=99)] == [p[0] for p in with_greedy]
    sampled = planner.propose(batch, Sampling(3, greedy=False), seed=0)
    assert not any(p.greedy for plans in sampled for p in plans)
    assert [p[1:] for p in sampled] == [p[1:] for p in with_greedy]


def test_draws_follow_the_models_distribution_under_the_grammar() -> None:
    schema = Schema(name="three", fields=(Field(name="Pick", values=("a", "b", "c")),), text_form="{Pick}")
    planner = StudentPlanner(schema, WIDTH, width=32, seed=1).eval()
    with torch.no_grad():
        planner.language_model.lm_head.weight.mul_(20)
    one = observations(1)
    count = 3000
    batch = PlannerInput(
        tuple(str(i) for i in range(count)), np.repeat(one.embeddings, count, axis=0), (None,) * count
    )
    drawn = [p[0].values[0] for p in planner.propose(batch, Sampling(1, greedy=False), seed=2)]
    logs = torch.tensor([by_hand(planner, one, 0, (value,))[0][0] for value in "abc"])
    expected = logs.softmax(dim=0)
    shares = np.array([drawn.count(value) / count for value in "abc"])
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / count))


def test_label_estimates_count_where_the_planner_takes_them() -> None:
    batch = observations(3)
    assert batch.label_estimates is not None
    other = replace(batch, label_estimates=-batch.label_estimates)
    unread, read = student(), label_student()
    assert unread.propose(batch, Sampling(4), seed=1) == unread.propose(other, Sampling(4), seed=1)
    assert read.propose(batch, Sampling(4), seed=1) != read.propose(other, Sampling(4), seed=1)
    with pytest.raises(PlanError, match="label estimates"):
        read.propose(replace(batch, label_estimates=None), Sampling(4), seed=1)


def test_label_estimates_count_in_units_of_their_own_spread() -> None:
    bias = label_student().label_bias
    assert bias is not None
    estimates = torch.from_numpy(observations(50).label_estimates)
    bias.standardise(estimates)
    before = bias(estimates)
    bias.standardise(1000 * estimates)
    torch.testing.assert_close(bias(1000 * estimates), before)


def test_soft_targets_are_shares_of_neighbouring_degrees_and_count_by_them() -> None:
    planner = StudentPlanner(load_schema("affect"), WIDTH, width=32).eval()
    targets, degrees = planner.soft_degrees(0.8), planner.schema.degrees
    assert targets is not None
    assert degrees is not None
    tokens = [planner.vocabulary.tokens_of(2, value)[0] for value in sorted(degrees, key=degrees.__getitem__)]
    middle = targets[tokens[3], tokens].tolist()
    assert sum(middle) == pytest.approx(1.0)
    assert middle == pytest.approx(middle[::-1])
    assert middle[0] < middle[1] < middle[2] < middle[3]
    assert float(targets[tokens[0], tokens[0]]) > middle[3]  # at an end there is one neighbour
    other = planner.vocabulary.tokens_of(0, "story")[0]
    assert float(targets[other, other]) == 1.0
    assert planner.soft_degrees(0.0) is None
    assert student().soft_degrees(0.8) is None

    batch, plan = observations(1), ("story", "praises", "neutral")
    embeddings = torch.from_numpy(batch.embeddings)
    # the terminators' part is the same for all degrees, so their difference is that of the degrees' tokens
    costs = np.array(
        [by_hand(planner, batch, 0, (*plan[:2], planner.vocabulary.tokens[token]))[2][0] for token in tokens]
    )
    with torch.no_grad():
        soft = planner.loss(embeddings, [plan], soft_targets=targets) - planner.loss(embeddings, [plan])
    six = 6  # three values and their terminators
    assert six * float(soft) == pytest.approx(costs[3] - float(np.dot(middle, costs)), abs=1e-5)


def test_it_learns_which_plan_belongs_to_which_embedding() -> None:
    plans = [
        ("circle", "very small", "plain"),
        ("square", "very very large", "with a hole"),
        ("rounded square", "small", "seen before"),
    ]
    centres = np.eye(3, WIDTH, dtype=np.float32) * 3
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 96)
    embeddings = centres[truth] + 0.2 * rng.standard_normal((96, WIDTH)).astype(np.float32)
    planner = student().train()
    optimiser = torch.optim.Adam(planner.parameters(), lr=3e-3)
    rows = [plans[i] for i in truth]
    before = float(planner.loss(torch.from_numpy(embeddings), rows).detach())
    for step in range(80):
        optimiser.zero_grad()
        planner.loss(torch.from_numpy(embeddings), rows, generator(0, "step", step)).backward()
        optimiser.step()
    planner.eval()
    after = float(planner.loss(torch.from_numpy(embeddings), rows).detach())
    assert before > 2.0
    assert after < 0.05
    unseen = PlannerInput(("x", "y", "z"), centres, (None,) * 3)
    assert [p[0].values for p in planner.propose(unseen, Sampling(1), seed=0)] == plans


def test_dropout_is_drawn_from_the_generator_alone() -> None:
    planner = student().train()
    embeddings = torch.from_numpy(observations(4).embeddings)
    plans = [("circle", "small", "plain")] * 4
    torch.manual_seed(0)
    first = planner.loss(embeddings, plans, generator(1, "a"))
    torch.manual_seed(1)
    assert torch.equal(first, planner.loss(embeddings, plans, generator(1, "a")))
    assert not torch.equal(first, planner.loss(embeddings, plans, generator(1, "b")))
    assert torch.equal(planner.loss(embeddings, plans), planner.eval().loss(embeddings, plans, generator(1)))


def test_first_weights_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = student()
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.projection.weight, student().projection.weight)
    other = StudentPlanner(TOY, WIDTH, words=NOTES, width=32, seed=4)
    assert not torch.equal(first.projection.weight, other.projection.weight)


@pytest.mark.parametrize("make", [student, label_student])
def test_a_saved_student_comes_back_the_same(make: Callable[[], StudentPlanner], tmp_path: Path) -> None:
    planner = make()
    planner.save(tmp_path / "planner")
    suffixes = {path.suffix for path in (tmp_path / "planner").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    loaded = StudentPlanner.load(tmp_path / "planner")
    assert loaded.schema == planner.schema
    batch = observations(3)
    assert loaded.propose(batch, Sampling(4), seed=1) == planner.propose(batch, Sampling(4), seed=1)
    # other programs may read the language model by itself
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "planner" / LANGUAGE_MODEL_FOLDER)
    assert torch.equal(alone.lm_head.weight, planner.language_model.lm_head.weight)


@pytest.mark.parametrize("damage", ["missing", "cut", "other schema"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "planner"
    student().save(folder)
    if damage == "missing":
        (folder / "projection.safetensors").unlink()
    elif damage == "cut":
        weights = folder / LANGUAGE_MODEL_FOLDER / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        other = Schema(name="other", fields=(Field(name="Kind", values=("a", "b")),), text_form="{Kind}")
        (folder / "schema.json").write_text(other.to_json())
    with pytest.raises(ModelError):
        StudentPlanner.load(folder)


def test_what_makes_no_sense_is_refused() -> None:
    planner = student()
    with pytest.raises(ConfigError, match="candidates"):
        planner.propose(observations(1), Sampling(0), seed=0)
    with pytest.raises(ConfigError, match="temperature"):
        planner.propose(observations(1), Sampling(1, temperature=0.0), seed=0)
    with pytest.raises(ConfigError, match="top-p"):
        planner.propose(observations(1), Sampling(1, top_p=0.0), seed=0)
    with pytest.raises(ConfigError, match="width"):
        StudentPlanner(TOY, WIDTH, words=NOTES, width=30)
    with pytest.raises(SchemaError, match="free text"):
        StudentPlanner(TOY, WIDTH)
    with pytest.raises(PlanError, match="after 'circle'"):
        planner.score(torch.zeros(1, WIDTH), [("circle", "large", "plain")])
    empty = replace(observations(1), ids=(), embeddings=np.zeros((0, WIDTH), dtype=np.float32), raw_text=())
    assert planner.propose(empty, Sampling(2), seed=0) == []


def test_words_that_it_does_not_know_have_no_probability() -> None:
    known, unknown = ("circle", "small", "plain"), ("circle", "small", "marmalade")
    planner = student()
    scored = planner.rescore(observations(3), [unknown, known, unknown])
    assert [plan and plan.values for plan in scored] == [None, known, None]
    (alone,) = planner.rescore(observations(3).take([1]), [known])
    assert alone is not None
    np.testing.assert_allclose(alone.log_probabilities, scored[1].log_probabilities, atol=1e-5)  # type: ignore[union-attr]
    assert planner.rescore(observations(1), [unknown]) == [None]


def test_top_p_leaves_the_unlikely_out_and_the_greedy_plan_in() -> None:
    sharp = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    noise = torch.tensor([[0.0, 0.0, 40.0, 50.0]])

    def chosen(**settings: float) -> int:
        return int(choose_tokens(sharp, noise, Sampling(**settings)))  # type: ignore[arg-type]

    assert chosen() == chosen(top_p=0.96) == 3
    assert chosen(top_p=0.9) == 2
    assert chosen(top_p=0.6) == chosen(top_p=1e-6) == 0
    # a high temperature flattens the shares: three are needed for what two had
    assert chosen(temperature=100.0, top_p=0.6) == 2
    for plans in label_student().propose(observations(4), Sampling(3, top_p=1e-6), seed=0):
        assert len({(plan.values, plan.log_probabilities) for plan in plans}) == 1
    (plans,) = student().propose(observations(1), Sampling(4, temperature=1e-6), seed=0)
    assert len({plan.values for plan in plans}) == 1
