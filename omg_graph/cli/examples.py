"""Commands as people type them, at the foot of each command's help."""

from __future__ import annotations

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


def examples(command: str) -> str:
    """The foot of a command's help: a paragraph for each of its examples."""
    return "\n\n".join(("Examples:" if EXAMPLES[command][1:] else "Example:", *EXAMPLES[command]))
