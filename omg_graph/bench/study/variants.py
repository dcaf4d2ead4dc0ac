"""What is trained in a world: the model, and the model without its plan, its evidence or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omg_graph.bench.ablation.components import no_plan, no_weights
from omg_graph.bench.ablation.variants import NEITHER, NO_QUERY, ZEROS
from omg_graph.bench.study.settings import StudySetting
from omg_graph.bench.study.world import World
from omg_graph.data.writing import save_corpus
from omg_graph.knowledge.entries import EntrySource, build_knowledge_base
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model, components_fingerprint, default_model_folder
from omg_graph.training.config import load_config
from omg_graph.training.request import Progress, TrainingRequest
from omg_graph.training.stages import TrainingRun
from omg_graph.training.train import Training

NO_PLAN_LOSS: dict[str, Any] = {"objective": {"plan": 0.0}}
# without evidence L_evi would only draw every reconstruction to one and the same vector
NO_EVIDENCE_LOSS: dict[str, Any] = {"retriever": NO_QUERY, "objective": {"evidence": 0.0}}


@dataclass(frozen=True)
class Variant:
    """One training: settings on top of the study's own, and where its plans come from."""

    name: str
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    components: Components = DEFAULT_COMPONENTS
    taught: bool = False
    """Whether the executor trains on the teacher's plans instead of the student's out-of-fold ones."""

    @property
    def has_plan(self) -> bool:
        """Whether a plan can steer it."""
        return self.components.condition is not no_plan

    @property
    def has_evidence(self) -> bool:
        """Whether evidence can."""
        return self.components.attention is not no_weights


MODEL = Variant("model", "plan and evidence, as omg train makes it")
VARIANTS: tuple[Variant, ...] = (
    MODEL,
    Variant("without plan", "nothing in the place of c_S", NO_PLAN_LOSS, Components(condition=no_plan)),
    Variant("without evidence", "no entry counts", NO_EVIDENCE_LOSS, Components(attention=no_weights)),
    Variant(
        "plain conditional diffusion",
        "neither plan nor evidence; the same network, anchor and budget",
        NEITHER,
        ZEROS,
    ),
    Variant("trained on true plans", "trained on the plans of the truth, tested on its own", taught=True),
)


def variants_of(setting: StudySetting) -> list[Variant]:
    """Those that are trained in a setting, the model first."""
    return [variant for variant in VARIANTS if setting.taught or not variant.taught]


def train_variants(
    world: World,
    folder: Path,
    training: Mapping[str, Any],
    seed: int,
    progress: Progress,
    text_encoder: str | None = None,
) -> Iterator[tuple[Variant, Model]]:
    """Trains every variant on the same clips; what doesn't differ between them is made once.

    Where the world has no training clips, the model is the embedded default.

    Args:
        world: the clips.
        folder: for the data file and stages under way; the caller removes it.
        training: changes to the defaults of the training configuration.
        seed: of the training.
        progress: progress callback for every stage.
        text_encoder: folder of the text encoder's weights.

    Yields:
        Each variant with its model, the knowledge base of unseen contents added where the world has one.
    """
    if world.train is None or world.valid is None:
        yield MODEL, load_model(default_model_folder(), text_encoder)
        return
    data = folder / "clips.npz"
    save_corpus(data, {"train": world.train, "valid": world.valid})
    request = TrainingRequest(
        data=str(data),
        output=str(folder / "model"),
        overrides=dict(training),
        seed=seed,
        device="cpu",
        text_encoder=text_encoder,
        synthetic=True,
        source=f"{world.setting.name} study",
        shared_stages=str(folder / "stages"),
    )
    run = Training(request, progress).run
    for variant in variants_of(world.setting):
        yield variant, _finish(run, variant, world, folder, training)


def _finish(
    run: TrainingRun, variant: Variant, world: World, folder: Path, training: Mapping[str, Any]
) -> Model:
    """The model under the variant's settings."""
    config = load_config(None, _merged(training, variant.settings))
    other = run.variant(
        config, folder / variant.name.replace(" ", "-"), variant.components, teacher_plans=variant.taught
    )
    model = other.model
    components = components_fingerprint(other.codecs.value, other.encoder.value, config.encoder.text_encoder)
    model = replace(model, manifest=model.manifest.model_copy(update={"components": components}))
    if world.later is None or not variant.has_evidence:
        return model
    later = build_knowledge_base(model, [EntrySource(world.later, "added after training")], name="later")
    return model.with_knowledge_base(model.knowledge_base.extended(later))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**base.get(name, {}), **changes.get(name, {})}
        if isinstance(base.get(name, changes.get(name)), Mapping)
        else changes.get(name, base.get(name))
        for name in {**base, **changes}
    }
