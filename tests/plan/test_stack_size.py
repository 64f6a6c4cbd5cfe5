import resource
import subprocess
import sys

from tests.helpers import REPO

SCRIPT = """
import resource
from prompt_tuning.plan import stack_size
print("started", flush=True)
stack_size.allow_deep_stacks()
soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
print("ready", soft == hard)
"""


def _limit_stacks():
    resource.setrlimit(
        resource.RLIMIT_STACK, (8 * 2**20, resource.getrlimit(resource.RLIMIT_STACK)[1])
    )


def test_a_program_starts_again_with_the_largest_stacks_and_only_once(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), "--flag=a b"],
        env={"PYTHONPATH": str(REPO)},
        preexec_fn=_limit_stacks,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "started", "ready True"]
