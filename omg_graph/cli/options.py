"""What commands share: options, example lines, and how a model is opened."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.output import spinner
from omg_graph.errors import DataError, ModelError

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.model.planners import PlannerOptions

ModelFolder = Annotated[
    Path | None,
    typer.Option("--model", help="A folder that omg train wrote; the embedded default if left out."),
]
KbFolder = Annotated[
    Path | None,
    typer.Option("--kb", help="A knowledge base of the same model; the model's own if left out."),
]
Report = Annotated[bool, typer.Option(help="Write the trace as a page too, report.html.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Modalities = Annotated[str | None, typer.Option(help="Use only these, e.g. text,audio.", show_default=False)]
Label = Annotated[str | None, typer.Option(help="Which label is the target.", show_default=False)]
FillNonfinite = Annotated[
    Literal["zero", "mean"] | None,
    typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False),
]
PlanSchema = Annotated[
    Path | None, typer.Option(help="A plan schema of your own (YAML).", show_default=False)
]
TextEncoder = Annotated[
    Path | None,
    typer.Option(
        "--text-encoder",
        "--encoder-model",
        help="Folder of the text encoder's weights, or of the Qwen2.5-Omni thinker.",
        show_default=False,
    ),
]
PlannerName = Annotated[
    str, typer.Option(help="distilled, chat, qwen-omni, or one that another package registers.")
]
OnInvalidPlan = Annotated[
    Literal["error", "distilled"],
    typer.Option(help="If the language model gives no valid plan: stop, or use the distilled planner."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

EXAMPLES = {
    "run": (
        "omg run --input sample.pkl",
        "omg run --input data.pkl --split test --missing audio --draws 19 --model my_model",
    ),
    "train": (
        "omg train --data data.pkl --output my_model",
        "omg train --data data.pkl --output my_models --folds 5 --seeds 3",
    ),
    "distill": (
        "omg distill --teacher lexical --data data.pkl --model my_model --output taught",
        "omg distill --teacher chat --planner-model openai:gpt-4.1-mini --data data.pkl --output taught",
    ),
    "planner-report": (
        "omg planner-report --data data.pkl --model my_model --limit 50 --output planner_report",
    ),
    "evaluate": (
        "omg evaluate --data data.pkl --model my_model --output results",
        "omg evaluate --data data.pkl --model my_model --output rates --protocol random --missing-rate 0.7",
    ),
    "compare": ("omg compare results", "omg compare results others --metrics acc2,nmse"),
    "ablate": (
        "omg ablate --list",
        "omg ablate --data data.pkl --output ablations --only no-planner,no-retriever",
    ),
    "simulate": ("omg simulate --output clips.pkl --speakers 40",),
    "doctor": ("omg doctor --model my_model",),
    "data check": ("omg data check data.pkl",),
    "kb build": ("omg kb build --data data.pkl --split valid --model my_model --output my_kb",),
    "kb query": ('omg kb query --text "angry voice, lets down the story" --top-k 5',),
    "trace fork": (
        'omg trace fork omg_output --set Sentiment="strongly negative" --output otherwise',
        "omg trace fork omg_output --drop-evidence ENTRY --output without",
    ),
    "trace compare": ("omg trace compare omg_output otherwise --html difference.html",),
}


def examples(command: str) -> str | None:
    """The foot of a command's help: a paragraph for each of its examples."""
    if command not in EXAMPLES:
        return None
    return "\n\n".join(("Examples:" if EXAMPLES[command][1:] else "Example:", *EXAMPLES[command]))


def model_folder(given: Path | None) -> Path:
    """The folder given, else the embedded default's.

    Raises:
        ModelError: if none is given and this installation has no default.
    """
    from omg_graph.model.model import default_model_folder

    if given is not None:
        return given
    folder = default_model_folder()
    if not folder.is_dir():
        raise ModelError(
            "this installation lacks the embedded default model: install omg-graph again, or name a folder "
            "that omg train wrote with --model"
        )
    return folder


def open_model(given: Path | None, text_encoder: Path | None, knowledge_base: Path | None = None) -> Model:
    """Load a model, checking every byte of it, with another knowledge base if one is given.

    Raises:
        ModelError: if it isn't a whole model.
        EncoderError: if its text encoder isn't to be found.
        KnowledgeBaseError: if the knowledge base is another model's, or none.
    """
    with spinner("loading the model"):
        from omg_graph.model.folder import load_model
        from omg_graph.retriever.entries import KnowledgeBase

        model = load_model(model_folder(given), text_encoder)
        return (
            model if knowledge_base is None else model.with_knowledge_base(KnowledgeBase.load(knowledge_base))
        )


@dataclass(frozen=True)
class PlannerFlags:
    """The options of a planner, the same for each command under ``with_planner_flags``."""

    planner_model: Annotated[
        str | None,
        typer.Option(
            help="The chat model, e.g. openai:gpt-4.1-mini, or qwen-omni's folder or hub name.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None
    planner_language: Annotated[Literal["en", "zh"], typer.Option(help="Language of the prompt.")] = "en"
    planner_media: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            help="Give recordings to the language model; auto: only kinds that it is known to accept."
        ),
    ] = "auto"
    max_planner_calls: Annotated[
        int | None, typer.Option(min=1, help="The most calls to the chat model.", show_default=False)
    ] = None
    planner_cache: Annotated[
        bool, typer.Option(help="Keep the chat model's answers on disk, so that you pay for none twice.")
    ] = True
    planner_device: Annotated[
        str, typer.Option(help="Where qwen-omni runs: auto, cpu, cuda or cuda:NUMBER.")
    ] = "auto"
    planner_dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Of qwen-omni's weights: auto is bfloat16 on a GPU, float32 on the CPU."),
    ] = "auto"
    planner_4bit: Annotated[
        bool, typer.Option("--planner-4bit", help="Load qwen-omni's weights in four bits, by bitsandbytes.")
    ] = False

    def options(self, on_invalid: Literal["error", "distilled"] = "error") -> PlannerOptions:
        """The options for a planner's factory; answers are kept in the cache folder."""
        from omg_graph.model.planners import PlannerOptions
        from omg_graph.retriever.index import cache_folder

        return PlannerOptions(
            model=self.planner_model,
            language=self.planner_language,
            media=self.planner_media,
            max_calls=self.max_planner_calls,
            on_invalid=on_invalid,
            cache=cache_folder() / "plans" if self.planner_cache else None,
            device=self.planner_device,
            dtype=self.planner_dtype,
            four_bit=self.planner_4bit,
        )


def with_planner_flags(command: Callable[..., None]) -> Callable[..., None]:
    """A command that gets ``PlannerFlags`` as its argument ``flags``, and has one option for each of them."""
    names = [field.name for field in fields(PlannerFlags)]

    @functools.wraps(command)
    def call(**values: Any) -> None:
        command(flags=PlannerFlags(**{name: values.pop(name) for name in names}), **values)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        own = inspect.signature(PlannerFlags, eval_str=True).parameters.values()
        parameters += own if parameter.name == "flags" else [parameter]
    # typer asks for the signature; by keyword alone, so that options without a default may come later
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return call


def names_in(text: str | None) -> list[str] | None:
    """Names with commas between; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def require_data(option: str, path: Path) -> None:
    """Refuse a data file that isn't there.

    Raises:
        DataError: if it isn't.
    """
    if not path.exists():
        raise DataError(f"{option} {path}: there is no such file: give a pickle or .npz of samples")
