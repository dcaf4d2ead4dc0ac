"""Planners by name: entry points of the group ``omg_graph.planners``, this package's own among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import ConfigError, SchemaError
from omg_graph.model.model import Model
from omg_graph.planner.interface import FallbackPlanner, Planner, StoredPlanner
from omg_graph.planner.prompting import Language, MediaSetting
from omg_graph.plugins import component

PLANNERS = "omg_graph.planners"
STORED = "omg_graph.stored_planners"
"""Classes whose ``load(folder)`` reads back what a stored planner's ``save`` wrote, by the planner's name."""


class PlannerOptions(BaseModel):
    """What the command line says to a planner's factory; each takes what concerns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    """Which language model, e.g. ``openai:gpt-4.1-mini``, or the folder of one."""
    language: Language = "en"
    """Of the prompt."""
    media: MediaSetting = "auto"
    """Whether a chat model is sent recordings: auto sends those that it is known to take."""
    max_calls: int | None = Field(default=None, ge=1)
    """The most calls to a provider."""
    on_invalid: Literal["error", "distilled"] = "error"
    """What becomes of a sample without a valid plan."""
    cache: Path | None = None
    """A folder for answers that were paid for; None keeps none."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds for one call."""
    concurrency: int = Field(default=8, ge=1)
    """Calls under way at once."""
    device: str = "auto"
    """Where a language model on this machine runs: auto, cpu, cuda or cuda:NUMBER."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of its weights."""
    four_bit: bool = False
    """Whether its weights are loaded in four bits."""
    named_by: str = "--planner"
    """The option that names the planner, for messages."""


PlannerFactory = Callable[[Model, PlannerOptions], Planner]


def make_planner(name: str, model: Model, options: PlannerOptions | None = None) -> Planner:
    """A registered planner for a model; by ``on_invalid`` the model's own plans where it has no valid plan.

    Raises:
        ConfigError: if there is none of this name, its package can't be imported, or an option doesn't fit.
        SchemaError: if it plans by another schema than the model's.
    """
    options = options or PlannerOptions()
    factory: PlannerFactory = component(PLANNERS, name)
    planner = factory(model, options)
    if planner.schema.fingerprint != model.schema.fingerprint:
        raise SchemaError(
            f"planner {name!r} plans by schema {planner.schema.name!r}, the model by {model.schema.name!r}: "
            "give it model.schema"
        )
    if options.on_invalid == "error" or planner is model.planner:
        return planner
    return FallbackPlanner(planner, model.planner)


def load_planner(name: str, folder: Path) -> StoredPlanner:
    """The planner that is stored in a folder of a model.

    Raises:
        ConfigError: if no installed package has a stored planner of this name, or it can't be imported.
        ModelError: if the folder is damaged.
    """
    planner: StoredPlanner = component(STORED, name).load(folder)
    return planner


def distilled_planner(model: Model, options: PlannerOptions) -> Planner:
    """The model's own planner.

    Raises:
        ConfigError: if a language model is named, which it has no use for.
    """
    if options.model is not None:
        raise ConfigError(
            f"the distilled planner takes no --planner-model, got {options.model!r}: name "
            f"{options.named_by} chat too"
        )
    return model.planner


def chat_planner(model: Model, options: PlannerOptions) -> Planner:
    """A LangChain chat model by its name for ``init_chat_model``.

    Raises:
        ConfigError: if none is named, its packages aren't installed, or it can't be set up.
    """
    from omg_graph.planner.chat import ChatPlanner

    spec = options.model
    if not spec:
        raise ConfigError(
            f"{options.named_by} chat needs a model: name it, as in --planner-model openai:gpt-4.1-mini"
        )
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        raise ConfigError(f"--planner-model {spec} needs LangChain: pip install 'omg-graph[chat]'") from None
    trouble: str | None = None
    try:
        # the planner repeats calls by itself, and counts them
        chat = init_chat_model(spec, max_retries=0, timeout=options.timeout)
    except ImportError:
        provider = spec.partition(":")[0]
        trouble = (
            f"needs its provider's package: pip install langchain-{provider}, or 'omg-graph[chat]' for openai"
        )
    except Exception as error:
        # the text may hold what stands in the environment
        trouble = (
            f"can't be set up ({type(error).__name__}): write PROVIDER:MODEL, and set the provider's key, "
            "such as OPENAI_API_KEY"
        )
    if trouble is not None:
        raise ConfigError(f"--planner-model {spec} {trouble}")
    return ChatPlanner(
        chat,
        model.schema,
        language=options.language,
        media=options.media,
        max_calls=options.max_calls,
        timeout=options.timeout,
        concurrency=options.concurrency,
        cache=options.cache,
        name=f"chat {spec}",
    )


def qwen_omni_planner(model: Model, options: PlannerOptions) -> Planner:
    """A Qwen2.5-Omni thinker by its folder or its name on the Hugging Face hub.

    Raises:
        ConfigError: if none is named, or a package that is needed isn't installed.
        DeviceError: if the device isn't there.
        ModelError: if the checkpoint isn't there, is damaged, or of another kind.
    """
    from omg_graph.omni.thinker import load_thinker
    from omg_graph.planner.omni import OmniPlanner

    if not options.model:
        raise ConfigError(
            f"{options.named_by} qwen-omni needs a checkpoint: name its folder, or Qwen/Qwen2.5-Omni-3B, "
            "with --planner-model"
        )
    thinker = load_thinker(
        options.model, device=options.device, dtype=options.dtype, four_bit=options.four_bit
    )
    # a folder's place on this machine is nobody's business who reads the trajectory
    known_as = thinker.folder.name if Path(options.model).expanduser().is_dir() else options.model
    return OmniPlanner(
        thinker,
        model.schema,
        language=options.language,
        media=options.media,
        name=f"qwen-omni {known_as}",
    )
