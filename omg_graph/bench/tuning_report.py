"""What a tuning leaves behind: a table for people, and settings for ``omg train --config``."""

from __future__ import annotations

from typing import Any

from omg_graph.training.config import TrainingConfig

TUNING = "tuning.json"
TABLE = "table.md"
BEST = "best.yaml"


def changes_of(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as changes to the defaults, which ``load_config`` reads back."""
    return _different(config.model_dump(mode="json"), TrainingConfig().model_dump(mode="json"))


def _different(ours: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in ours.items():
        if isinstance(value, dict):
            inner = _different(value, defaults[name])
            if inner:
                found[name] = inner
        elif value != defaults[name]:
            found[name] = value
    return found


def table(document: dict[str, Any]) -> str:
    """A Markdown page of a tuning."""
    data, seeds = document["data"], document["seeds"]
    lines = [
        f"# Weights tuned on {data['file']}",
        "",
        f"- starting from the configuration {document['config']}; {document['epochs']} epochs at most; "
        f"{'seed' if len(seeds) == 1 else 'mean of seeds'} {', '.join(map(str, seeds))}",
        "- each is chosen with the ones before it as chosen and the ones after it as configured",
        "- on validation rows, averaged over missing patterns; small differences may be luck",
        *(f"- {note}" for note in document["notes"]),
        "",
    ]
    for step in document["steps"]:
        better = "lower" if step["lower_is_better"] else "higher"
        lines += [
            f"## {step['weight']} (`{step['setting']}`): {step['chosen']:g}",
            "",
            f"| value | {step['criterion']} ({better} is better) | |",
            "| ---: | ---: | --- |",
        ]
        for row in step["values"]:
            marks = [
                text
                for text, value in (("chosen", step["chosen"]), ("configured", step["configured"]))
                if row["value"] == value
            ]
            score = "–" if row["score"] is None else f"{row['score']:.4f}"
            lines.append(f"| {row['value']:g} | {score} | {', '.join(marks)} |")
        lines.append("")
    return "\n".join(lines)
