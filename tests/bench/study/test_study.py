from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omg_graph.bench.study import study as study_module
from omg_graph.bench.study import variants
from omg_graph.bench.study.figures import EVERYONE, KNOWN, UNSEEN
from omg_graph.bench.study.runs import EVIDENCE, EXACT, EXACT_MEAN, GIVEN_PLAN, LEARNED, NEAREST, RunResult
from omg_graph.bench.study.settings import SETTINGS, StudySetting
from omg_graph.bench.study.study import Study, StudyRequest, run_study
from omg_graph.bench.study.variants import MODEL, VARIANTS, train_variants
from omg_graph.bench.study.world import World, make_world
from omg_graph.cli import main
from omg_graph.errors import ConfigError, DataError
from omg_graph.simulator import AffectSimulator, Embed

TinyStudy = tuple[Study, Path, list[str]]


def kept(folder: Path, name: str) -> RunResult:
    return RunResult.model_validate_json((folder / "runs" / f"{name}-0.json").read_bytes())


def test_it_writes_figures_tables_and_pictures(tiny_study: TinyStudy) -> None:
    result, folder, _ = tiny_study
    document = json.loads((folder / "study.json").read_text("utf-8"))
    assert document == result.document
    assert document["synthetic"] is True
    assert set(document["settings"]) == {"modes", "rare-details"}
    text = (folder / "study.md").read_text("utf-8")
    assert "## modes" in text
    assert "## rare-details" in text
    assert {path.name for path in (folder / "plots").iterdir()} == {"modes.png", "rare-details.png"}
    assert any("nothing here says" in line for line in result.notes)
    assert set(document["settings"]["rare-details"]["by_pattern"]["audio"]) == {EVERYONE, KNOWN, UNSEEN}


def test_every_method_is_measured_on_every_clip(tiny_study: TinyStudy) -> None:
    _, folder, _ = tiny_study
    modes, rare = kept(folder, "modes"), kept(folder, "rare-details")
    trained = {variant.name for variant in VARIANTS}
    for run, wanted in ((modes, trained), (rare, trained - {"trained on true plans"})):
        assert set(run.training) == wanted
        for pattern in run.patterns.values():
            assert wanted | {EXACT, EXACT_MEAN, EVIDENCE, NEAREST} <= set(pattern.methods)
            for scores in pattern.methods.values():
                assert {len(column) for column in scores.values()} == {len(run.ids)}
                assert min(scores["squared_error"]) > 0
                assert all(0 <= chance <= 1 for chance in scores["degree_accuracy"])
    assert f"model{GIVEN_PLAN}" in modes.patterns["audio"].methods
    assert f"model{GIVEN_PLAN}" not in rare.patterns["audio"].methods
    assert LEARNED in rare.patterns["audio"].methods
    assert LEARNED not in modes.patterns["audio"].methods
    for pattern in rare.patterns.values():
        assert set(pattern.plans) == {EXACT, MODEL.name}
        for fields in pattern.plans.values():
            assert list(fields) == ["Entity", "Action", "Sentiment"]
            assert {len(column) for column in fields.values()} == {len(rare.ids)}


def test_no_prediction_beats_bayes_rule_and_no_copy_has_the_posteriors_error(tiny_study: TinyStudy) -> None:
    result, _, _ = tiny_study
    for item in result.settings:
        everyone = item.subsets[EVERYONE].methods
        for name, row in everyone.items():
            if not name.endswith(GIVEN_PLAN):
                assert row["degree_ratio"].value <= 1 + 1e-9
                assert row["sign_ratio"].value <= 1 + 1e-9
        assert everyone[NEAREST]["error_ratio"].value > 1.3
        assert everyone[EXACT_MEAN]["energy_ratio"].value > 1.1


def test_swaps_are_made_where_there_is_something_to_swap(tiny_study: TinyStudy) -> None:
    result, folder, _ = tiny_study
    followed = result.settings[0].followed
    assert set(followed["model"]) == {"plan", "evidence"}
    assert set(followed["without plan"]) == {"evidence"}
    assert set(followed["without evidence"]) == {"plan"}
    assert "plain conditional diffusion" not in followed
    # evidence is in the anchor: an output that didn't move with it would have been swapped in vain
    run = kept(folder, "rare-details")
    assert any(value != 0 for value in run.patterns["audio"].swaps["model"]["evidence"]["along"])


def test_a_run_of_other_settings_is_made_anew(
    tiny_study: TinyStudy, study_settings: dict[str, Any], small_settings: tuple[StudySetting, ...]
) -> None:
    _, folder, _ = tiny_study
    setting = small_settings[0]
    identity = kept(folder, "modes").identity
    assert study_module._identity(setting, 0, study_settings, 3) == identity
    assert study_module._identity(setting, 1, study_settings, 3) != identity
    assert study_module._identity(setting.smaller(setting.speakers, 4), 0, study_settings, 3) != identity
    assert study_module._identity(setting, 0, study_settings, 4) != identity
    other = study_settings | {"optimiser": {"epochs": 3}}
    assert study_module._identity(setting, 0, other, 3) != identity
    path = folder / "runs" / "modes-0.json"
    assert study_module._kept(path, identity) is not None
    assert study_module._kept(path, "another") is None
    assert study_module._kept(folder / "runs" / "none-0.json", identity) is None


def test_a_run_of_another_format_is_made_anew_and_said_so(
    tiny_study: TinyStudy, hashed: Callable[[int], Embed], tmp_path: Path
) -> None:
    _, folder, _ = tiny_study
    path, identity = tmp_path / "modes-0.json", kept(folder, "modes").identity
    old = json.loads((folder / "runs" / "modes-0.json").read_bytes())
    for pattern in old["patterns"].values():
        del pattern["plans"]
    path.write_text(json.dumps(old))
    assert study_module._kept(path, identity) is None
    (tmp_path / "runs").mkdir()
    path.rename(tmp_path / "runs" / path.name)

    def made_anew(setting: StudySetting, *_: Any) -> RunResult:
        assert setting.name == "modes"
        return kept(folder, "modes")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study_module, "run_setting", made_anew)
        patched.setattr(study_module, "SentenceEncoder", lambda *_: SimpleNamespace(embed=hashed(384)))
        result = run_study(StudyRequest(tmp_path, (SETTINGS["modes"],), 1), lambda *_: None)
    assert any(note.startswith("modes, seed 0: what was kept there") for note in result.notes)
    assert kept(tmp_path, "modes") == kept(folder, "modes")


@pytest.mark.slow
def test_what_variants_share_is_made_once_and_changes_nothing(
    study_settings: dict[str, Any],
    worlds: dict[str, World],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = next(variant for variant in VARIANTS if variant.name == "without evidence")
    weights = []
    for folder, chosen in ((tmp_path / "beside", [MODEL, without]), (tmp_path / "alone", [without])):
        folder.mkdir()
        monkeypatch.setattr(variants, "variants_of", lambda _setting, chosen=chosen: chosen)
        *_, (variant, model) = train_variants(
            worlds["compositions"], folder, study_settings, 0, lambda *_: None
        )
        assert variant is without
        weights.append(model.executor.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    made = Counter(
        path.name.rpartition("-")[0] for path in (tmp_path / "beside" / "stages").glob("*.safetensors")
    )
    assert made.pop("query") == 2  # which evidence there is decides the query
    assert {"codecs", "encoder", "student", "plans", "prior-kernel", "direct"} <= set(made)
    assert set(made.values()) == {1}


def test_the_embedded_default_is_measured_as_it_is_on_speakers_it_never_met(
    hashed: Callable[[int], Embed], tmp_path: Path
) -> None:
    setting = SETTINGS["embedded"]
    few = setting.smaller({"test": 2}, 2)
    world = make_world(few, AffectSimulator(few.simulator, hashed(384)), 0)
    assert world.train is None
    assert list(world.test.groups) == ["synthetic-10000"] * 2 + ["synthetic-10001"] * 2
    ((variant, model),) = train_variants(world, tmp_path, {}, 0, lambda *_: None)
    assert variant is MODEL
    assert model.config.synthetic
    assert not set(world.test.groups) & set(model.knowledge_base.groups)


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one seed"):
        run_study(StudyRequest(tmp_path, (SETTINGS["modes"],), 0), lambda *_: None)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="choose another --output"):
        run_study(StudyRequest(tmp_path / "taken", (SETTINGS["modes"],), 1), lambda *_: None)


def test_the_command_goes_on_from_what_is_kept_and_shows_it(
    tiny_study: TinyStudy,
    study_settings: dict[str, Any],
    small_settings: tuple[StudySetting, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, folder, events = tiny_study
    assert any(line.startswith("modes, seed 0: executor") for line in events)

    def trained_again(*_: Any) -> RunResult:
        raise AssertionError("a kept run was made anew")

    monkeypatch.setattr(study_module, "run_setting", trained_again)
    monkeypatch.setattr(study_module, "TRAINING", study_settings)
    for setting in small_settings:
        monkeypatch.setitem(SETTINGS, setting.name, setting)
    named = ["--only", "modes", "--only", "rare-details"]
    assert main(["study", "--output", str(folder), *named, "--seeds", "1", "--draws", "3"]) == 0
    assert json.loads((folder / "study.json").read_text("utf-8")) == result.document
    out = capsys.readouterr().out
    assert "modes, all clips" in out
    assert "rare-details, unseen contents" in out
    assert "share of a swap that the model follows: plan" in out
    assert "goal 1.10" in out
    assert "its plans are right: Entity" in out
    assert "squared error ÷ exact without evidence: " in out
    assert main(["study", "--output", str(folder), "--only", "everything"]) == 2
    assert "--only takes modes" in capsys.readouterr().err
