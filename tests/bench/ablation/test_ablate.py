from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from omg_graph.bench.ablation import ablate as ablate_module
from omg_graph.bench.ablation import runs
from omg_graph.bench.ablation.ablate import PLOTS, RESULTS, TABLES, ablate
from omg_graph.bench.ablation.gradients import read_gradients
from omg_graph.bench.ablation.page import page
from omg_graph.bench.ablation.results import Kept, collect, conflicts, owners
from omg_graph.bench.ablation.runs import AblationRequest, gradient_files
from omg_graph.bench.ablation.variants import DEFAULT, SWAPS, VARIANTS, choose
from omg_graph.cli import main
from omg_graph.errors import ConfigError


def silent(_what: str, _done: int, _of: int) -> None:
    return None


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every model and evaluation with its time and size."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for part in ("models", "evaluations", "stages")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def test_what_is_finished_is_not_done_again_and_more_can_be_asked_for(finished: AblationRequest) -> None:
    before = state_of(finished.output)
    ablate(finished, silent)
    assert state_of(finished.output) == before
    more = ablate(replace(finished, only=("mean-pooling", "top-k-10")), silent)
    after = state_of(finished.output)
    assert {name: after[name] for name in before} == before
    assert more.measured["top-k-10"].seeds == (0,)
    # psi and the label regression, which neither variant touches, were made once
    made = after.keys() - before.keys()
    assert not any(f"/{stage}-" in name for stage in ("encoder", "label-regression") for name in made)


def test_results(finished: AblationRequest) -> None:
    document = json.loads((finished.output / RESULTS).read_text())
    default, pooled = (
        next(entry for entry in document["variants"] if entry["name"] == name)
        for name in (DEFAULT, "mean-pooling")
    )
    assert default["seeds"] == pooled["seeds"] == [0]
    assert default["protocols"]["random"]["differences"] == []
    figures = {
        entry["name"]: {
            (row["metric"], row["condition"]): row["value"] for row in entry["protocols"]["fixed"]["figures"]
        }
        for entry in (default, pooled)
    }
    gaps = {
        (row["metric"], row["condition"]): row["difference"]
        for row in pooled["protocols"]["fixed"]["differences"]
    }
    for key, gap in gaps.items():
        assert gap == pytest.approx(figures["mean-pooling"][key] - figures[DEFAULT][key], abs=1e-9)
    assert {condition for _, condition in gaps} >= {"average", "text", "text+audio"}
    assert {floor["name"] for floor in document["floors"]} >= {"anchor", "10 nearest neighbours"}
    assert int(document["machine"]["cores"]) >= 1
    assert document["identity"]["config"]["optimiser"]["epochs"] == 1


def test_groups_of_patterns_are_averaged_by_themselves(finished: AblationRequest) -> None:
    groups = {"alone": (("text",), ("audio",)), "of others": (("text",), ("smell",))}
    results = collect(replace(finished, groups=groups), *choose(("mean-pooling",)))
    figures = results.measured["mean-pooling"].figures["fixed"]
    single = [figures.values["acc2", name].value for name in ("text", "audio")]
    assert figures.values["acc2", "alone"].value == pytest.approx(sum(single) / 2)
    gaps = {row.condition: row for row in figures.differences if row.metric == "acc2"}
    alone = [gaps[name].difference.value for name in ("text", "audio")]
    assert gaps["alone"].difference.value == pytest.approx(sum(alone) / 2)
    places = {place for _, place in figures.values}
    assert "of others" not in places  # no pattern has a modality that isn't there
    drawn = results.measured["mean-pooling"].figures["random"].values
    assert "alone" not in {place for _, place in drawn}


def test_floors_stand_beside_the_method_alone_and_fewer_where_masks_are_drawn(
    request_for: Callable[..., AblationRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(runs, "evaluate", lambda made, _told: asked.append((made.protocol, made.floors)))
    request = request_for(tmp_path / "out", floors="all", drawn_floors="networks")
    runs._measure(request, tmp_path, DEFAULT, 0, silent, floors=True)
    runs._measure(request, tmp_path, "mean-pooling", 0, silent)
    runs._measure(replace(request, drawn_floors=None), tmp_path, DEFAULT, 1, silent, floors=True)
    assert asked == [
        *(("random", "networks"), ("fixed", "all")),
        *(("random", "none"), ("fixed", "none")),
        *(("random", "all"), ("fixed", "all")),
    ]


def test_pages_say_what_they_rest_on(finished: AblationRequest) -> None:
    text = (finished.output / TABLES).read_text()
    assert "1 of 1 seeds" in text
    assert "| `mean-pooling` |" in text
    assert "| `mean-pooling@inference` |" in text
    assert "ACC2 -2.9" in text  # the drop in the paper's text about Figure 4
    assert "paper: CMU-MOSEI" not in text
    assert "cos(L_plan, noise)" in text
    assert (finished.output / PLOTS / "gradients.png").is_file()


def test_the_command(finished: AblationRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"name": "default", **finished.overrides}), "utf-8")
    asked = ["ablate", "--data", str(finished.data), "--output", str(finished.output)]
    asked += ["--config", str(settings), "--epochs", "1", "--split", "valid", "--mask-seeds", "1"]
    before = state_of(finished.output)
    assert main([*asked, "--only", "mean-pooling,mean-pooling@inference"]) == 0
    shown = capsys.readouterr().out
    assert "mean-pooling@inference" in shown
    assert str(finished.output / TABLES) in shown.replace("\n", "")
    assert main([*asked, "--only", "mean-pooling", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {variant["name"] for variant in document["variants"]} >= {DEFAULT, "mean-pooling"}
    assert 0 <= document["reranked_share"] <= 1
    assert state_of(finished.output) == before


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate"]) == 2
    assert "expected --data FILE and --output DIR" in capsys.readouterr().err
    assert main(["ablate", "--data", str(tmp_path / "no.pkl"), "--output", str(tmp_path / "out")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "data.pkl").write_bytes(b"nothing yet")
    asked = ["ablate", "--data", str(tmp_path / "data.pkl"), "--output", str(tmp_path / "out")]
    assert main([*asked, "--only", "no-planer"]) == 2
    assert "got 'no-planer'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_list_of_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--list", "--json"]) == 0
    told = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert told == {variant.name for variant in VARIANTS} | {swap.name for swap in SWAPS}


def test_gradients_are_measured_while_the_method_trains(finished: AblationRequest) -> None:
    records = read_gradients(gradient_files(finished, DEFAULT, 0)[0])
    assert [record["epoch"] for record in records] == [1]
    found = conflicts(collect(finished, *choose(("mean-pooling",))).gradients[DEFAULT], "task")
    assert found is not None
    assert -1 <= found[0].value <= 1
    assert math.isnan(found[0].low)  # one training has no spread
    assert not gradient_files(finished, "mean-pooling", 0)[0].exists()


def test_what_is_finished_is_on_the_page_though_the_next_variant_fails(
    finished: AblationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    for name in (RESULTS, TABLES):
        (finished.output / name).unlink()
    begun = replace(finished, only=("mean-pooling", "no-plan-loss"))
    monkeypatch.setattr(
        ablate_module, "run_variant", lambda *asked: asked[1].name != "no-plan-loss" or fail()
    )
    with pytest.raises(KeyboardInterrupt):
        ablate(begun, silent)
    text = (finished.output / TABLES).read_text()
    assert "| `mean-pooling` | 1 of 1 |" in text
    assert "| `no-plan-loss` | 0 of 1 |" in text
    assert json.loads((finished.output / RESULTS).read_text())["variants"][0]["seeds"] == [0]


def test_figures_that_are_kept_are_those_that_are_read(finished: AblationRequest) -> None:
    asked, kept = choose(("mean-pooling", "mean-pooling@inference")), Kept()
    fresh = collect(finished, *asked).as_json()
    assert collect(finished, *choose((DEFAULT,)), kept).as_json() != fresh
    assert collect(finished, *asked, kept).as_json() == fresh
    known = dict(kept.figures)
    assert collect(finished, *asked, kept).as_json() == fresh
    assert all(kept.figures[key] is figures for key, figures in known.items())


def test_the_paper_stands_beside_only_what_is_said_to_be_its_data(finished: AblationRequest) -> None:
    results = collect(finished, *choose(("mean-pooling",)))
    for told, heads in (
        ({"beside_paper": None}, set()),
        ({"beside_paper": "mosei"}, {"paper: CMU-MOSEI"}),
        ({"beside_paper": None, "config": "mosi"}, {"paper: CMU-MOSI"}),
        ({"beside_paper": None, "config": "sims"}, set()),
    ):
        text = page(replace(results, request=replace(finished, **told)))
        assert {cell.strip() for cell in text.split("|") if "paper: " in cell} == heads
    text = page(replace(results, family="classes"))
    assert "paper: " not in text
    assert "no paper beside" in text


def test_partial_results_say_so(finished: AblationRequest) -> None:
    wider = replace(finished, seeds=3)
    text = page(collect(wider, *choose(("mean-pooling", "no-planner"))))
    assert "1 of 3 seeds" in text
    assert "| `no-planner` | 0 of 3 |" in text


def test_variants_of_the_same_settings_are_run_once(finished: AblationRequest) -> None:
    same = replace(finished, overrides={**finished.overrides, "retriever": {"top_k": 10}})
    assert owners(same)["top-k-10"] == DEFAULT
    assert owners(same)["task-weight-0"] == "no-task-loss"
    assert owners(finished)["top-k-10"] == "top-k-10"  # its own default is four entries


def test_other_settings_or_other_files_in_the_folder_are_refused(
    finished: AblationRequest, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="missing_rate differ"):
        ablate(replace(finished, missing_rate=0.5), silent)
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match="a new folder"):
        ablate(replace(finished, output=tmp_path), silent)
