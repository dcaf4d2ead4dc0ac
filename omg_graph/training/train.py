"""A training from its request to the model folder; the training graph's nodes go through it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omg_graph.errors import ConfigError
from omg_graph.files import whole_folder, write_atomically
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.config import Manifest
from omg_graph.model.folder import MANIFEST, read_manifest, save_model
from omg_graph.model.model import choose_device
from omg_graph.predictor.task import predictor_class
from omg_graph.priors.prior import prior_class
from omg_graph.retriever.retriever import retriever_class
from omg_graph.training.cache import StageCache
from omg_graph.training.config import TrainingConfig, load_config
from omg_graph.training.request import (
    Progress,
    TrainingRequest,
    check_output,
    identity_of,
    read_file,
    read_hidden_states,
    training_data,
)
from omg_graph.training.stages import TrainingRun
from omg_graph.training.teaching import TRAINING_PLANS, plan_lines
from omg_graph.training.validation import feature_error


@dataclass
class Training:
    """A request under way, from its data to the model folder.

    Each stage is a method that makes it, if the cache hasn't got it, and returns what it made in numbers.
    """

    request: TrainingRequest
    on_progress: Progress = lambda *_: None
    components: Components = DEFAULT_COMPONENTS
    """The parts of the method, or others in their place."""

    def report_to(self, on_progress: Progress) -> None:
        """Send what is under way somewhere else from now on."""
        self.on_progress = on_progress

    def _report(self, what: str, done: int, of: int, loss: float | None) -> None:
        self.on_progress(what, done, of, loss)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided or left out so far."""
        if self.finished is not None:
            return (*self.finished.notes, "the model was finished already: there was nothing left to do")
        return self.run.notes

    @cached_property
    def output(self) -> Path:
        """The model folder to make."""
        return Path(self.request.output)

    @cached_property
    def finished(self) -> Manifest | None:
        """The manifest of the model, where the very same training made it before and is to be resumed."""
        _ = self.run
        return self._finished

    @cached_property
    def run(self) -> TrainingRun:
        """The data, settings and stages.

        Raises:
            OmgError: if the data can't be used, or the output is taken.
        """
        request = self.request
        check_output(self.output, request.overwrite or request.resume)
        config, device = load_config(request.config, request.overrides), choose_device(request.device)
        require_components(config)
        file = read_file(request)
        states = read_hidden_states(request, config, device)
        self.identity = identity_of(request, config, file, states, self.components)
        shared = None if request.shared_stages is None else Path(request.shared_stages)
        cache = StageCache.beside(self.output, shared)
        self._finished = self._found(cache)
        if self._finished is None:
            check_output(self.output, request.overwrite)
        data = training_data(request, config, file, states)
        if self._finished is None:
            self._open(cache)
        return TrainingRun(data, config, request.seed, cache, device, self._report, self.components)

    def _found(self, cache: StageCache) -> Manifest | None:
        """The model that the same training made before; what that training left behind goes."""
        if not self.request.resume or not (self.output / MANIFEST).is_file():
            return None
        manifest = read_manifest(self.output)
        if manifest.training.get("run") != self.identity:
            return None
        if cache.request() == self.identity:
            cache.remove()
        return manifest

    def _open(self, cache: StageCache) -> None:
        if cache.is_foreign():
            raise ConfigError(
                f"{cache.folder} is where this training would keep what it has done, and something else is "
                "there: choose another --output, or move it away yourself"
            )
        if not self.request.resume and cache.folder.is_dir():
            cache.remove()
        started = cache.request()
        if started is None:
            cache.begin(self.identity)
            return
        different = [name for name, value in self.identity.items() if started.get(name) != value]
        if different:
            raise ConfigError(
                f"--resume goes on with the same data, seed and settings; {', '.join(different)} differ from "
                f"what {cache.folder} was started with: leave out --resume to start anew"
            )

    def prepare(self) -> dict[str, Any]:
        """Read the data, choose the schema, and open the cache."""
        run = self.run
        counts = {name: run.facts[name] for name in ("train_rows", "validation_rows", "groups")}
        return {**counts, "pairs": len(run.train_pool), "schema": run.data.schema.name}

    def codecs(self) -> dict[str, Any]:
        """Standard units and autoencoders."""
        made, valid = self.run.codecs, self.run.data.valid
        errors = {}
        for name, latents in self.run.valid_latents.value.items():
            guess = made.value.standard(name, latents, valid.lengths.get(name))
            errors[name] = feature_error(made.value, name, guess, valid, valid.observed[name])
        return {**made.facts, "sha256": made.digest, "held_out_error": errors, "rows": len(valid)}

    def label_regression(self) -> dict[str, Any]:
        """The label's regression, and its estimate of every pair."""
        regression = self.run.label_regression
        if regression is None:
            return {"words": None}
        _ = self.run.label_estimates
        return {"words": regression.value.words.width, "sha256": regression.digest}

    def encoder(self) -> dict[str, Any]:
        """Psi."""
        return _record(self.run.encoder)

    def student(self) -> dict[str, Any]:
        """The student planner."""
        return _record(self.run.student)

    def plans(self) -> dict[str, Any]:
        """u_X and the plan of every pair, cross-fitted."""
        made = self.run.pair_plans
        facts = {name: value for name, value in made.facts.items() if name == "file"}
        return {
            **facts,
            "sha256": made.digest,
            "folds": int(self.run.folds.max()) + 1,
            "distinct_plans": len(self.run.plan_table.value[0]),
        }

    def priors(self) -> dict[str, Any]:
        """The priors of missing latents."""
        return {name: made.digest for name, made in self.run.priors.items()}

    def evidence(self) -> dict[str, Any]:
        """The knowledge base and the learned query."""
        return {**_record(self.run.query), "entries": len(self.run.entries.value)}

    def executor(self) -> dict[str, Any]:
        """The executor, under the whole objective."""
        facts = _record(self.run.executor)
        del facts["history"]
        return facts

    def prediction(self) -> dict[str, Any]:
        """Trust, where draws start, the task head and its calibration."""
        facts = _record(self.run.prediction)
        return {**{name: self.run.trust.facts[name] for name in ("trust", "starts")}, **facts}

    def validate(self) -> dict[str, Any]:
        """The model on validation rows, every pattern, beside simple floors."""
        rows = self.run.metrics["rows"]
        return {"patterns": len(rows), "nmse": {"+".join(row["observed"]): row["nmse"] for row in rows}}

    def save(self, seconds: dict[str, float]) -> Manifest:
        """Write the folder whole, then drop the cache."""
        run = self.run
        manifest = run.model.manifest
        training = manifest.training | {"run": self.identity, "seconds": seconds}
        update = {"metrics": run.metrics, "training": training, "notes": run.notes}
        finished = replace(run.model, manifest=manifest.model_copy(update=update))
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(self.output, replace=self.request.overwrite) as folder:
            if run.data.taught is not None:
                write_atomically(folder / TRAINING_PLANS, plan_lines(run.data.taught.plans))
            saved = save_model(finished, folder)
        run.cache.remove()
        return saved

    def complete(self) -> Manifest:
        """Go through all stages, and save."""
        seconds = {}
        for name, stage in STAGES.items():
            started = time.perf_counter()
            if self.finished is not None:
                return self.finished
            stage(self)
            seconds[name] = round(time.perf_counter() - started, 2)
        return self.save(seconds)


STAGES: dict[str, Callable[[Training], dict[str, Any]]] = {
    "prepare": Training.prepare,
    "codecs": Training.codecs,
    "label_regression": Training.label_regression,
    "encoder": Training.encoder,
    "student": Training.student,
    "plans": Training.plans,
    "priors": Training.priors,
    "evidence": Training.evidence,
    "executor": Training.executor,
    "prediction": Training.prediction,
    "validate": Training.validate,
}
"""In order; ``save`` comes last."""


def require_components(config: TrainingConfig) -> None:
    """Find every component that a configuration names, before anything is trained.

    Raises:
        ConfigError: if a package doesn't register one.
    """
    for name in config.executor.priors:
        prior_class(name)
    predictor_class(config.task.predictor)
    retriever_class(config.retriever.kind)


def _record(made: Any) -> dict[str, Any]:
    """A stage by reference and in numbers."""
    return {**made.facts, "sha256": made.digest}
