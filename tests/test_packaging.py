"""The wheel and the source archive hold what they should, and the installed command starts from anywhere."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.helpers import REPO

pytestmark = pytest.mark.slow

# What one may find in a working copy and not in a fresh clone.
_LEFTOVERS = (
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    "demo_output",
)


def _run(*command: object, **kwargs) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        **kwargs,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> pathlib.Path:
    """Folder with the source archive and the wheel built from it, out of a clean copy of the repository."""
    root = tmp_path_factory.mktemp("packaging")
    source = root / "source"
    shutil.copytree(REPO, source, symlinks=True, ignore=shutil.ignore_patterns(*_LEFTOVERS))
    # No isolation: the build uses the setuptools of the test extra and needs no network.
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", root / "dist", source)
    return root / "dist"


@pytest.fixture(scope="module")
def contents(dist) -> dict[str, set[str]]:
    """Names inside each of the two artefacts, relative to the top of the source tree."""
    wheel = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        members = [m for m in archive.getmembers() if not m.isdir()]
    assert all(member.isfile() for member in members), "links do not survive every unpacker"
    return {"wheel": wheel, "sdist": {member.name.split("/", 1)[1] for member in members}}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_everything_that_is_installed_is_there(contents, kind):
    expected = set()
    for folder in ("tasks", "configs", "launch"):
        expected |= {
            f"prompt_tuning/{path.relative_to(REPO).as_posix()}" for path in _files(REPO / folder)
        }
    assert len([name for name in expected if name.endswith(".gin")]) > 0
    assert "prompt_tuning/tasks/super_glue.py" in expected
    assert "prompt_tuning/launch/setup.sh" in expected
    assert "prompt_tuning/data/synthetic/assets/senses.json" in contents[kind]
    expected |= {path.relative_to(REPO).as_posix() for path in _files(REPO / "prompt_tuning")}
    ladder = [
        path
        for path in (REPO / "prompt_tuning" / "ladder").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len([path for path in ladder if path.name == "weights.json"]) == 16
    expected |= {path.relative_to(REPO).as_posix() for path in ladder}
    assert not expected - contents[kind]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [
        p
        for pattern in ("*.py", "*.gin", "*.sh", "*.json")
        for p in folder.rglob(pattern)
        if p.is_file()
    ]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_nothing_else_is_there(contents, kind):
    assert len(contents[kind]) > 0
    stray = [
        name
        for name in contents[kind]
        if name.startswith(("tests/", "tasks/", "configs/", "launch/", "docs/"))
    ]
    assert not stray
    assert not [name for name in contents[kind] if "__pycache__" in name]


def test_the_wheel_names_its_licence_and_requirements(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    assert {pathlib.PurePosixPath(n).name for n in names} >= {"LICENSE", "NOTICE"}
    requirements = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert len(requirements) > 0
    assert all("<" in line for line in requirements), "every requirement has an upper bound"
    extras = {
        line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra:")
    }
    assert extras == {
        *("tpu", "cuda", "test", "serve", "sweep", "cache", "sky", "t0", "hub", "hf"),
        *("lm-eval", "wandb", "mlflow"),
    }


def test_the_installed_command_starts_from_a_foreign_folder(dist, tmp_path):
    target = tmp_path / "site"
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--target", target, next(dist.glob("*.whl"))),
    )
    # The installed copy comes first, so neither the repository nor an editable install can answer.
    env = {**os.environ, "PYTHONPATH": str(target)}
    found = _run(
        sys.executable,
        "-c",
        "import prompt_tuning; print(prompt_tuning.__file__)",
        cwd=tmp_path,
        env=env,
    )
    assert pathlib.Path(found.stdout.strip()).is_relative_to(target)
    shown = _run(target / "bin" / "prompt-tuning", "--help", cwd=tmp_path, env=env)
    assert "train" in shown.stdout and "infer" in shown.stdout
