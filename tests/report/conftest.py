"""Results with hostile texts, and a real browser where this machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from omg_graph.record.results import SavedRun


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; closed with the module, since its event loop keeps others from theirs."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        # a container's root user has no sandbox to give
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


HOSTILE = (
    "<script>window.hurt = 1</script><img src=x onerror='window.hurt=1'>\"'&amp; {{ 7*7 }} "
    "\u202egnirts\u0007 👩\u200d🔬 שלום"
)
"""A text that would like to be more than one."""


@pytest.fixture(scope="session")
def hostile_run(clips_run: SavedRun) -> SavedRun:
    """The clips, with whatever text there is replaced by one that would like to be more."""
    changed = []
    for number, trajectory in enumerate(clips_run.trajectories[:3]):
        assert trajectory.plan is not None
        assert trajectory.prediction is not None
        candidates = tuple(
            each.model_copy(update={"text": f"{place} {HOSTILE}"})
            for place, each in enumerate(trajectory.plan.candidates)
        )
        entries = tuple(
            each.model_copy(update={"id": HOSTILE, "text": HOSTILE, "source": HOSTILE})
            for each in trajectory.evidence["audio"]
        )
        label = trajectory.prediction.label
        shares = {
            HOSTILE if name == label else name: p for name, p in trajectory.prediction.probabilities.items()
        }
        changed.append(
            trajectory.model_copy(
                update={
                    "id": f"{number}{HOSTILE}",
                    "raw_text": HOSTILE * 50,
                    "notes": (HOSTILE,),
                    "plan": trajectory.plan.model_copy(
                        update={"text": HOSTILE, "planner": HOSTILE, "candidates": candidates}
                    ),
                    "evidence": {"audio": entries},
                    "prediction": trajectory.prediction.model_copy(
                        update={"label": HOSTILE, "probabilities": shares}
                    ),
                }
            )
        )
    assert clips_run.facts is not None
    names = tuple(f"{number}{HOSTILE}" for number in range(5))
    facts = clips_run.facts.model_copy(
        update={"model": HOSTILE, "feature_names": {"audio": names}, "feature_units": {"audio": names}}
    )
    return replace(clips_run, trajectories=tuple(changed), facts=facts)
