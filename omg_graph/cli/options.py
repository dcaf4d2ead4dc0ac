"""Options that several commands share, and the check of a data file that all of them read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from omg_graph.errors import DataError

if TYPE_CHECKING:
    from omg_graph.model.planners import PlannerOptions

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
    typer.Option(help="Where the language model has no valid plan: stop, or take the distilled planner's."),
]
PlannerModel = Annotated[
    str | None,
    typer.Option(
        help="The chat model, e.g. openai:gpt-4.1-mini, or qwen-omni's folder or hub name.",
        metavar="NAME",
        show_default=False,
    ),
]
PlannerLanguage = Annotated[Literal["en", "zh"], typer.Option(help="Language of the prompt.")]
PlannerMedia = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Give the language model recordings: auto those that it is known to take."),
]
MaxPlannerCalls = Annotated[
    int | None, typer.Option(min=1, help="The most calls to the chat model.", show_default=False)
]
PlannerCache = Annotated[
    bool, typer.Option(help="Keep the chat model's answers on disk, so that none is paid for twice.")
]
PlannerDevice = Annotated[str, typer.Option(help="Where qwen-omni runs: auto, cpu, cuda or cuda:NUMBER.")]
PlannerDtype = Annotated[
    Literal["auto", "bfloat16", "float16", "float32"],
    typer.Option(help="Of qwen-omni's weights: auto is bfloat16 on a GPU, float32 on the CPU."),
]
PlannerFourBit = Annotated[
    bool, typer.Option("--planner-4bit", help="Load qwen-omni's weights in four bits, by bitsandbytes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def planner_options(
    *,
    model: str | None,
    language: Literal["en", "zh"],
    media: Literal["auto", "on", "off"],
    max_calls: int | None,
    cache: bool,
    device: str,
    dtype: Literal["auto", "bfloat16", "float16", "float32"],
    four_bit: bool,
    on_invalid: Literal["error", "distilled"] = "error",
) -> PlannerOptions:
    """What the options say, for a planner's factory; answers are kept in the cache folder."""
    from omg_graph.model.planners import PlannerOptions
    from omg_graph.retriever.index import cache_folder

    return PlannerOptions(
        model=model,
        language=language,
        media=media,
        max_calls=max_calls,
        on_invalid=on_invalid,
        cache=cache_folder() / "plans" if cache else None,
        device=device,
        dtype=dtype,
        four_bit=four_bit,
    )


def names_in(text: str | None) -> list[str] | None:
    """Names with commas between; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]


def require_data(option: str, path: Path) -> None:
    """Refuse a data file that isn't there.

    Raises:
        DataError: if it isn't.
    """
    if not path.exists():
        raise DataError(f"{option} {path}: there is no such file: give a pickle or .npz of samples")
