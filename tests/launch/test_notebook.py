"""The notebook: its cells on a tiny model, and how it keeps a run between sessions."""

import json
import pathlib
import sys
import tarfile
import types

import pytest

from prompt_tuning.launch import notebook
from prompt_tuning.run import preemption
from tests.helpers import REPO

NOTEBOOK = REPO / "notebooks" / "tune_a_prompt.ipynb"

# Saves every tenth of a second, and once more when it is told to stop.
_TRAIN = f"""
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
done = max([int(p.name.split("_")[1]) for p in folder.glob("checkpoint_*")], default=0)
def save():
    (folder / f"checkpoint_{{done}}").mkdir(exist_ok=True)
    (folder / f"checkpoint_{{done}}" / "prompt").write_text(str(done))
def stop(*_):
    save()
    sys.exit({preemption.EXIT_CODE})
signal.signal(signal.SIGTERM, stop)
for done in range(done + 1, int(sys.argv[2]) + 1):
    print("step", done, flush=True)
    time.sleep(0.1)
save()
"""


def _command(folder, steps):
    return [sys.executable, "-c", _TRAIN, str(folder), str(steps)]


def test_a_session_that_ends_is_gone_on_from(tmp_path, capsys):
    keeper = notebook.Folder(tmp_path / "kept")
    first, second = tmp_path / "first", tmp_path / "second"
    assert not notebook.restore(keeper, first)
    code = notebook.run(_command(first, 10_000), first, keeper, hours=4 / 3600)
    assert code == preemption.EXIT_CODE
    assert notebook.restore(keeper, second)
    shown = capsys.readouterr().out
    assert "run the notebook again" in shown and "goes on from checkpoint_" in shown
    done = int(next(second.glob("checkpoint_*")).name.split("_")[1])
    assert done > 0
    assert notebook.run(_command(second, done + 2), second, keeper, hours=1.0) == 0
    shown = capsys.readouterr().out
    assert f"step {done + 1}\nstep {done + 2}\n" in shown and f"step {done}\n" not in shown
    assert notebook.restore(keeper, second) and "is here already" in capsys.readouterr().out
    third = tmp_path / "third"
    assert notebook.restore(keeper, third)
    assert (third / f"checkpoint_{done + 2}" / "prompt").read_text() == str(done + 2)


def test_a_run_is_kept_on_the_way_without_what_is_half_written(tmp_path):
    class Remembering(notebook.Keeper):
        names: list[list[str]] = []

        def get(self):
            return None

        def put(self, packed):
            with tarfile.open(packed) as archive:
                self.names.append(sorted(archive.getnames()))

    folder = tmp_path / "run"
    (folder / "checkpoint_1").mkdir(parents=True)
    (folder / "checkpoint_1" / "prompt").write_text("1")
    (folder / "checkpoint_2.orbax-checkpoint-tmp-7").mkdir()
    (folder / "checkpoint_2.orbax-checkpoint-tmp-7" / "prompt").write_text("2")
    keeper = Remembering()
    command = [sys.executable, "-c", "import time; time.sleep(0.6)"]
    assert notebook.run(command, folder, keeper, hours=1.0, keep_every_minutes=0.2 / 60) == 0
    assert len(keeper.names) >= 2
    assert all(names == ["checkpoint_1/prompt"] for names in keeper.names)


def test_kaggle_keeps_a_run_in_a_data_set(tmp_path, monkeypatch):
    """Against a stand-in for kagglehub, whose answer for a data set that is not there is an error."""
    stored = tmp_path / "stored"

    class KaggleApiHTTPError(Exception):
        def __init__(self, code):
            self.response = types.SimpleNamespace(status_code=code)

    answers = [403, 500]

    def download(handle):
        assert handle == "me/prompt"
        if not stored.exists():
            raise KaggleApiHTTPError(answers.pop(0))
        return str(stored)

    def upload(handle, folder, version_notes):
        stored.mkdir(exist_ok=True)
        for path in pathlib.Path(folder).iterdir():
            (stored / path.name).write_bytes(path.read_bytes())

    hub = types.ModuleType("kagglehub")
    hub.dataset_download, hub.dataset_upload = download, upload  # type: ignore[attr-defined]
    exceptions = types.ModuleType("kagglehub.exceptions")
    exceptions.KaggleApiHTTPError = KaggleApiHTTPError  # type: ignore[attr-defined]
    hub.exceptions = exceptions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    monkeypatch.setitem(sys.modules, "kagglehub.exceptions", exceptions)
    keeper = notebook.KaggleDataset("me/prompt")
    assert keeper.get() is None
    # Any other answer must not look like a first session.
    with pytest.raises(KaggleApiHTTPError):
        keeper.get()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.gin").write_text("A = 1\n")
    notebook.keep(keeper, tmp_path / "run")
    assert notebook.restore(keeper, tmp_path / "again")
    assert (tmp_path / "again" / "config.gin").read_text() == "A = 1\n"


@pytest.mark.parametrize(
    ("variable", "place"), [("KAGGLE_KERNEL_RUN_TYPE", "kaggle"), ("COLAB_RELEASE_TAG", "colab")]
)
def test_place(variable, place, monkeypatch):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    assert notebook.place() == "elsewhere"
    monkeypatch.setenv(variable, "1")
    assert notebook.place() == place


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.entry
def test_the_cells_train_a_tiny_model_in_two_sessions(tmp_path, monkeypatch):
    """Every cell runs, twice; the second session finds what the first has kept and goes on from there."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is in the extra [test]")
    nbformat = pytest.importorskip("nbformat", reason="nbformat comes with nbclient")
    monkeypatch.setenv("PROMPT_TUNING_SCALE", "tiny")
    monkeypatch.setenv("PROMPT_TUNING_KEEP", str(tmp_path / "kept"))
    shown = []
    for session, steps in enumerate((2, 4)):
        folder = tmp_path / f"session{session}"
        folder.mkdir()
        monkeypatch.setenv("PROMPT_TUNING_STEPS", str(steps))
        monkeypatch.setenv("PROMPT_TUNING_RUN", str(folder / "run"))
        read = nbformat.read(NOTEBOOK, as_version=4)
        client = nbclient.NotebookClient(
            read,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
        texts = [out.get("text", "") for cell in read.cells for out in cell.get("outputs", [])]
        shown.append("".join(texts))
    assert "Nothing was kept" in shown[0] and "'step': 2" in shown[0], shown[0]
    assert "goes on from checkpoint_2" in shown[1] and "'step': 4" in shown[1], shown[1]
    assert (tmp_path / "session1/run/checkpoint_4").is_dir()
