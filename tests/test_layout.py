"""What lies where."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = [
    "omg_graph",
    "graphs",
    "prompts",
    "knowledge_base",
    "tests",
    "examples",
    "langgraph.json",
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
]
HOMES = re.compile(r"(?<![\w.~/$}])/(?:home|root|Users|work|tmp)/[A-Za-z0-9_]")


def tracked_files():
    """Files of the checkout as git would commit them, untracked ones that it doesn't ignore included."""
    if shutil.which("git") is None:
        pytest.skip("git isn't there: there is no list of committed files")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of committed files")
    names = (name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in map(ROOT.joinpath, names) if path.is_file()]


@pytest.mark.parametrize("name", REQUIRED)
def test_the_root_holds(name):
    assert (ROOT / name).exists()


def test_every_package_is_listed_for_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "omg_graph").rglob("__init__.py")
    } | {"omg_graph.prompts"}
    assert sorted(found) == sorted(settings["packages"])


def test_constraints_pin_every_version_once_and_torch_first():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["offline"], *extras["dev"]]
    assert {re.split(r"[<>=!~\[ ;]", item)[0].lower() for item in wanted} <= set(names)


@pytest.mark.skipif(shutil.which("make") is None, reason="make isn't there")
def test_make_help_has_a_line_for_each_target():
    makefile = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    # Run by `make test`, an inner make would else say which folder it enters.
    quiet = ["make", "--no-print-directory"]
    shown, bare = (
        subprocess.run([*quiet, *target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for target in (["help"], [])
    )
    assert shown == bare
    assert [line.split()[1] for line in shown.splitlines()] == targets.split()
    assert all(len(line) <= 110 for line in shown.splitlines())


def test_no_file_names_a_folder_of_one_machine():
    naming = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if path != Path(__file__).resolve()
        for match in HOMES.finditer(path.read_bytes().decode("utf-8", "replace"))
    ]
    assert naming == []


def test_nothing_unpickles_beyond_plain_data():
    """Weights and data are read by safe readers alone, and no remote code is trusted."""
    unsafe = re.compile(
        r"\b(?:c?[Pp]ickle\.loads?|torch\.load|joblib\.load)\(|trust_remote_code=True|allow_pickle=True"
    )
    sources = [
        path
        for path in tracked_files()
        if path.suffix == ".py" and "tests" not in path.relative_to(ROOT).parts
    ]
    assert len(sources) > 20
    assert [path.name for path in sources if unsafe.search(path.read_text())] == []
