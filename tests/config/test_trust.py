"""What the config.gin of a run may name, by every way in which a program reads one."""

import pathlib
import sys

import pytest

from prompt_tuning import cli
from prompt_tuning.config import files, names, queries
from prompt_tuning.config.plan import make_plan, to_text
from prompt_tuning.errors import ConfigError
from tests.gin_runs import resolve_demo

DYNAMIC = "from __gin__ import dynamic_registration\n"
OWN = """\
import pathlib
pathlib.Path(__file__).with_suffix(".ran").touch()
def rate():
    return 0.5
"""


def run_with(folder: pathlib.Path, text: str) -> pathlib.Path:
    """The folder of a run whose config has more lines: imports stand before the others."""
    folder.mkdir(exist_ok=True)
    (folder / "config.gin").write_text(text + resolve_demo("train").text)
    return folder


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module `sent` beside the run, which leaves a file when it is imported."""
    (tmp_path / "sent.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "sent.ran"
    sys.modules.pop("sent", None)


@pytest.mark.parametrize(
    "text",
    [
        "import os\n",
        DYNAMIC + "import subprocess\n",
        DYNAMIC + "import seqio\nA = @seqio.evaluation.os.getcwd()\n",
        DYNAMIC + "import seqio.utils\nA = @seqio.utils.os.getcwd()\n",
        DYNAMIC + "from seqio import utils\nA = @utils.os.getcwd()\n",
        DYNAMIC + "import seqio\nA = @seqio.add_global_cache_dirs()\n",
        DYNAMIC + "import prompt_tuning.partitioning\nA = @prompt_tuning.partitioning.platform()\n",
        "A = @gin.singleton()\n",
    ],
)
def test_a_run_that_names_code_is_refused(tmp_path, text):
    run_with(tmp_path / "run", text)
    with pytest.raises(ConfigError, match=r"config.gin:\d.*--allow_imports="):
        queries.query_run(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="--allow_imports="):
        queries.query_macros([str(tmp_path / "run/config.gin")], ["A"])


def test_what_a_run_includes_is_the_runs(tmp_path, own_module):
    (tmp_path / "more.gin").write_text("import sent\n")
    run = run_with(tmp_path / "run", f"include '{tmp_path}/more.gin'\n")
    with pytest.raises(ConfigError, match=r"more.gin:1.*--allow_imports=sent"):
        queries.query_run(str(run))
    assert not own_module.exists()


def test_a_module_that_is_named_is_imported_and_called(tmp_path, own_module):
    run = run_with(tmp_path / "run", DYNAMIC + "import sent\nA = @sent.rate()\n")
    assert queries.query_run(str(run), ["sent"]).model_dir == "/runs/sst2"
    found = queries.query_macros([str(run / "config.gin")], ["A"], ["sent"])
    assert found == {"A": 0.5} and own_module.exists()


def test_vocabularies_of_seqio_are_no_code(tmp_path):
    text = DYNAMIC + "import seqio\nA = @seqio.PassThroughVocabulary()\n"
    text += "seqio.PassThroughVocabulary.size = 7\n"
    run = run_with(tmp_path / "run", text)
    found = queries.query_macros([str(run / "config.gin")], ["A"])
    assert found["A"].vocab_size == 7


def test_the_module_that_registers_the_tasks_of_a_run_is_not_imported(tmp_path, own_module, capsys):
    run = tmp_path / "run"
    run.mkdir()
    text = resolve_demo("train", MIXTURE_OR_TASK_MODULE="'sent'").text
    (run / "config.gin").write_text(text)
    queries.query_run(str(run))
    for command in (["tasks", "show"], ["train", "--dry_run"]):
        assert cli.main([*command, f"--gin_file={run}/config.gin"]) == 2
        assert "--allow_imports=sent" in capsys.readouterr().err
    assert not own_module.exists()


def test_no_comment_of_the_saved_config_becomes_gin():
    parsed = files.read(["prompt_tuning/configs/runs/prompt_infer.gin"])
    names.register()
    plan = make_plan(parsed, "infer", None)
    text = to_text(plan, lambda key: False, ["It was given --tfds_data_dir=x\nimport os\r# y"])
    assert text.startswith("# It was given --tfds_data_dir=x import os # y\n\n")


@pytest.mark.parametrize(
    "module",
    ["%SENT\nSENT = 'sent'", "@paths.join()\npaths.join.folder = '.'\npaths.join.name = 'sent'"],
)
def test_no_detour_leads_to_the_module_of_the_tasks(tmp_path, own_module, module):
    text = resolve_demo("train", MIXTURE_OR_TASK_MODULE="'other'").text
    assert "MIXTURE_OR_TASK_MODULE = 'other'" in text
    text = text.replace("MIXTURE_OR_TASK_MODULE = 'other'", f"MIXTURE_OR_TASK_MODULE = {module}")
    (tmp_path / "config.gin").write_text(text)
    with pytest.raises(ConfigError, match="--allow_imports="):
        queries.query_macros([str(tmp_path / "config.gin")], ["MIXTURE_OR_TASK_MODULE"])
    assert not own_module.exists()


def test_files_of_ones_own_import_what_they_like(tmp_path, own_module):
    (tmp_path / "mine.gin").write_text("import sent\nA = 0.5\n")
    assert queries.query_macros([str(tmp_path / "mine.gin")], ["A"]) == {"A": 0.5}
    assert own_module.exists()
