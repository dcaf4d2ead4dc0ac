"""One run: a world, every variant trained in it, and all methods measured clip by clip."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from omg_graph.bench.study import measuring
from omg_graph.bench.study.exact import (
    Exact,
    exact_posterior,
    informed_prior,
    learn_details,
    likeliest_plans,
    prior_of_parts,
)
from omg_graph.bench.study.measuring import Scores, Seen
from omg_graph.bench.study.settings import StudySetting
from omg_graph.bench.study.swaps import Followed, plan_of, swap_evidence, swap_plans
from omg_graph.bench.study.variants import MODEL, Variant, train_variants
from omg_graph.bench.study.world import World, make_world
from omg_graph.model.model import Model
from omg_graph.planner.schema import Plan
from omg_graph.simulator import AffectSimulator
from omg_graph.simulator.content import Float64Array
from omg_graph.training.request import Progress

EXACT = "exact posterior"
EXACT_GIVEN_PLAN = "exact posterior, given the true plan"
LEARNED = "exact but for details, learned from the entries"
PRIOR_OF_PARTS = "exact but for the prior, learned from parts of the training clips"
EXACT_MEAN = "exact mean as the only draw"
NEAREST = "copy of the nearest entry"
EVIDENCE = "evidence alone"
GIVEN_PLAN = ", given the true plan"
"""After the name of a method that is given the true plan at inference."""


class PatternResult(BaseModel):
    """What came out where the same modalities of every test clip are observed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: dict[str, dict[str, list[float]]]
    """Method to its ``Scores``, clip by clip."""
    swaps: dict[str, dict[str, dict[str, list[float]]]]
    """Method to ``plan`` or ``evidence`` to its ``Followed``, clip by clip."""
    plans: dict[str, dict[str, list[float]]]
    """Who plans, the model or Bayes's rule, to a field to whether the plan is right in it, clip by clip."""


class RunResult(BaseModel):
    """One setting and seed, whole: what a study keeps, so that it can go on after being cut off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    seed: int
    identity: str
    """SHA-256 of everything that decides the result."""
    ids: list[str]
    groups: list[str]
    unseen: list[bool]
    training_clips: int
    """0 for the embedded default, whose training is over."""
    patterns: dict[str, PatternResult]
    training: dict[str, dict[str, Any]]
    """Variant to epochs, trust and whether the learned query was kept."""
    seconds: float


@dataclass(frozen=True)
class RunSettings:
    """What all runs of a study have in common."""

    training: Mapping[str, Any]
    draws: int = 19
    """Samples of what is missing, of every method that draws."""
    text_encoder: str | None = None


def run_setting(
    setting: StudySetting,
    simulator: AffectSimulator,
    seed: int,
    settings: RunSettings,
    identity: str,
    progress: Progress,
) -> RunResult:
    """Simulates, trains and measures.

    Args:
        setting: the world and the patterns.
        simulator: made from the setting's config; the same for all its seeds.
        seed: of the clips and of the training.
        settings: of the training.
        identity: what the result is kept under.
        progress: called at every stage.
    """
    started = time.perf_counter()
    world = make_world(setting, simulator, seed)
    shown = {pattern: measuring.show(world.test, pattern) for pattern in setting.patterns}
    exact = {pattern: exact_posterior(world, split) for pattern, split in shown.items()}
    truth = [simulator.content(k) for k in world.contents.tolist()]
    knowing = informed_prior(world, truth)
    given_plan = {pattern: exact_posterior(world, split, knowing) for pattern, split in shown.items()}
    true_plans = [plan_of(content) for content in truth]
    learned = learn_details(world) if simulator.contents.details else None
    methods: dict[tuple[str, ...], dict[str, Scores]] = {}
    swaps: dict[tuple[str, ...], dict[str, dict[str, Followed]]] = {pattern: {} for pattern in shown}
    plans: dict[tuple[str, ...], dict[str, list[Plan]]] = {}
    for pattern, split in shown.items():
        plans[pattern] = {EXACT: likeliest_plans(world, exact[pattern])}
        answers = {EXACT: measuring.exact_answer(exact[pattern], settings.draws)}
        answers[EXACT_MEAN] = measuring.mean_as_draw(answers[EXACT])
        known = {}
        if learned is not None:
            known[LEARNED] = exact_posterior(world, split, None, learned)
        if setting.composed:
            known[PRIOR_OF_PARTS] = exact_posterior(world, split, prior_of_parts(world))
        answers |= {name: measuring.exact_answer(found, settings.draws) for name, found in known.items()}
        methods[pattern] = {
            name: measuring.scores(world, answered, exact[pattern]) for name, answered in answers.items()
        }
        if setting.taught:
            answered = measuring.exact_answer(given_plan[pattern], settings.draws)
            methods[pattern][EXACT_GIVEN_PLAN] = measuring.scores(world, answered, given_plan[pattern])
    training = {}
    fields: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        variants = train_variants(
            world, Path(folder), settings.training, seed, progress, settings.text_encoder
        )
        for variant, model in variants:
            training[variant.name] = {
                name: model.manifest.training.get(name)
                for name in ("executor_epochs", "trust", "query_projection", "reader")
            }
            for number, (pattern, split) in enumerate(shown.items()):
                seen = measuring.look(model, split)
                part = _Part(world, variant, model, seen, exact[pattern], given_plan[pattern], settings.draws)
                methods[pattern] |= part.methods(true_plans)
                if variant is MODEL:
                    plans[pattern][variant.name] = seen.plans
                    fields = model.schema.field_names
                if followed := part.swaps():
                    swaps[pattern][variant.name] = followed
                progress(f"measuring {variant.name}", number + 1, len(shown), None)
    return RunResult(
        setting=setting.name,
        seed=seed,
        identity=identity,
        ids=list(world.test.ids),
        groups=list(world.test.groups),
        unseen=world.unseen.tolist(),
        training_clips=0 if world.train is None else len(world.train),
        patterns={
            "+".join(pattern): PatternResult(
                methods={name: _listed(scores) for name, scores in methods[pattern].items()},
                swaps={
                    name: {what: _listed(followed) for what, followed in of_model.items()}
                    for name, of_model in swaps[pattern].items()
                },
                plans={
                    name: _by_field(fields, measuring.plan_hits(of_planner, true_plans))
                    for name, of_planner in plans[pattern].items()
                },
            )
            for pattern in shown
        },
        training=training,
        seconds=round(time.perf_counter() - started, 1),
    )


@dataclass(frozen=True)
class _Part:
    """One trained variant under one pattern."""

    world: World
    variant: Variant
    model: Model
    seen: Seen
    exact: Exact
    given_plan: Exact
    draws: int

    def methods(self, true_plans: list[Plan]) -> dict[str, Scores]:
        """The variant's own scores, and what else can be measured with it."""
        world, model, seen, name = self.world, self.model, self.seen, self.variant.name
        made = {name: measuring.scores(world, measuring.answer(model, seen, draws=self.draws), self.exact)}
        if self.world.setting.taught and self.variant.has_plan and self.variant.has_evidence:
            knows = measuring.answer(model, seen, plans=true_plans, draws=self.draws)
            made[name + GIVEN_PLAN] = measuring.scores(world, knows, self.given_plan)
        if self.variant is MODEL:
            for other, answered in (
                (EVIDENCE, measuring.evidence_alone(model, seen)),
                (NEAREST, measuring.nearest_entry(model, seen)),
            ):
                made[other] = measuring.scores(world, answered, self.exact)
        return made

    def swaps(self) -> dict[str, Followed]:
        """How far the variant follows what it is given."""
        followed = {}
        if self.variant.has_plan:
            followed["plan"] = swap_plans(self.world, self.model, self.seen, self.exact)
        if self.variant.has_evidence:
            followed["evidence"] = swap_evidence(self.world, self.model, self.seen, self.exact)
        return followed


def _by_field(fields: tuple[str, ...], hits: Float64Array) -> dict[str, list[float]]:
    return {name: hits[:, column].tolist() for column, name in enumerate(fields)}


def _listed(record: Scores | Followed) -> dict[str, list[float]]:
    return {name: np.round(values, 6).tolist() for name, values in asdict(record).items()}
