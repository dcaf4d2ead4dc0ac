from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from omg_graph import plugins
from omg_graph.cli import app
from omg_graph.errors import ConfigError


def test_our_own_components_are_registered_like_any_other() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    for group, own in plugins.OWN.items():
        assert project["entry-points"][group] == own
        for name in own:
            assert plugins.component(group, name).__name__ == own[name].partition(":")[2]


def test_another_package_adds_a_component_and_takes_no_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "omg_graph.codecs"
    others = [EntryPoint("spectrum", "json:dumps", group), EntryPoint("vector", "json:dumps", group)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: others)
    assert plugins.component(group, "spectrum").__name__ == "dumps"
    assert plugins.component(group, "vector").__name__ == "VectorCodec"
    others.append(EntryPoint("broken", "no_such_package:Codec", group))
    with pytest.raises(ConfigError, match="no_such_package:Codec can't be imported"):
        plugins.component(group, "broken")


def test_the_parts_of_bench_are_registered() -> None:
    assert set(plugins.registered(plugins.COMMANDS)) >= {"ablate", "planner-report", "study", "tune"}
    assert set(plugins.registered(plugins.FLOORS)) >= {"networks", "all"}
    assert all(callable(plugins.component(plugins.REPORTS, name)) for name in ("planner", "paper"))


def test_a_command_that_cant_be_imported_says_why() -> None:
    command = app._broken("odd", "no_such_package:odd", ImportError("no module of that name"))
    assert "no module of that name" in str(command.__doc__)
    with pytest.raises(ConfigError, match="omg odd: can't be imported"):
        command()
