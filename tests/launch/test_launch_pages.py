"""The launchers' commands on the pages about them, as bash hands them over, are understood by the launchers."""

import importlib
import re
import subprocess

import pytest

from tests.helpers import REPO
from tests.launch import stand_ins

NAMES = ("launch", "notebook", "tpu_vm", "queued_resources", "compute_engine", "gke")
PAGES = [REPO / f"docs/machines/{name}.md" for name in NAMES]


def _launches(page, tmp_path):
    """The words of every `python …` of a page; all its commands run in order, with only a stand-in on PATH."""
    text = page.read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    recorder = '#!/bin/bash\nprintf "%s\\0" "$@" $\'\\1\' >>"$RECORD"\n'
    stand_ins.install(tmp_path / "bin", python=recorder)
    (tmp_path / "record").touch()
    env = {"PATH": str(tmp_path / "bin"), "RECORD": str(tmp_path / "record")}
    subprocess.run(
        ["/bin/bash"], input=script, text=True, env=env, cwd=tmp_path, capture_output=True
    )
    return stand_ins.programs(tmp_path / "record")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_are_dry_runs_that_work(page, tmp_path, capsys):
    shown = re.findall(r"python -m prompt_tuning\.launch\.(\w+) \\\n", page.read_text("utf-8"))
    found = [w for w in _launches(page, tmp_path) if w[:1] == ["-m"] and "launch" in w[1]]
    assert [words[1].rpartition(".")[2] for words in found] == shown
    for words in found:
        module = importlib.import_module(words[1])
        # Pages show what a launcher would do before they have it done.
        assert "--dry_run" in words
        assert module.main(words[2:]) == 0
        script = capsys.readouterr().out
        assert "gs://my-project-prompts/xxl" in script
        assert "my-project" in script and "--project= " not in script
