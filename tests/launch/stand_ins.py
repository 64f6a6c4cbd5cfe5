"""Stand-ins for the programs that launchers call; each does with its words what the real one does with them."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

# What a gin value may hold and a shell, ssh, Go, YAML or Kubernetes might change.
AWKWARD = (
    "train",
    "--gin_file=models/t5_1_1_xxl_prompt.gin",
    "--gin.MODEL_DIR='gs://my-bucket/a run'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
    """--gin.CLASS_LABELS=["it's", 'say "hi"', '$HOME $(HOME) $$ ${HOME} `id`', 'a\\\\b', '* ~ ! # ; & | < > %s']""",
    "--gin.SENTENCE='''two\nlines,  two  spaces '''",
    '--gin_bindings=NAME = "é"',
    "--tfds_data_dir=",
)

# Writes its words down and ends as the next line of a file says; `taken` is the loss of the whole machine.
PROMPT_TUNING = """#!/usr/bin/env bash
set -euo pipefail
if [[ ${1:-} == --help ]]; then exit 0; fi
printf '%s\\0' "$@" >>"$RECORD"
printf '\\1\\0' >>"$RECORD"
[[ -n ${ENDINGS:-} ]] || exit 0
next=$(head -n 1 "$ENDINGS")
sed -i 1d "$ENDINGS"
if [[ $next == taken ]]; then
  kill -9 $PPID
  echo "$DOWN" >"$STATE"
  exit 1
fi
exit "$next"
"""

UV = """#!/usr/bin/env bash
set -euo pipefail
printf '%s\\n' "$*" >>"$UV_RECORD"
if [[ $1 == venv ]]; then
  mkdir -p venv/bin
  cp "$PROMPT_TUNING_STAND_IN" venv/bin/prompt-tuning
  printf '#!/bin/sh\\necho Python 3.12.0\\n' >venv/bin/python
  chmod +x venv/bin/python
fi
"""

# Packs a wheel, and lets everything fit.
PYTHON = """#!/usr/bin/env bash
set -euo pipefail
case " $* " in
  *' pip wheel '*)
    for word in "$@"; do
      if [[ $word == --wheel-dir=* ]]; then
        mkdir -p "${word#*=}"
        echo wheel >"${word#*=}/prompt_tuning-0.1.0-py3-none-any.whl"
      fi
    done
    ;;
  *' plan '*) printf 'compiling\\n{"fits": %s, "peak_bytes_per_core": 1}\\n' "${FITS:-true}" ;;
esac
"""


def install(folder: pathlib.Path, **scripts: str) -> None:
    """Writes executables into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)


def install_gcloud(folder: pathlib.Path) -> None:
    """Writes a `gcloud` whose TPUs are folders of this machine."""
    install(
        folder,
        gcloud=f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(__file__)} "$@"\n',
    )


def programs(record: pathlib.Path) -> list[list[str]]:
    """The words of each run that the stand-in for prompt-tuning wrote down."""
    runs: list[list[str]] = [[]]
    for word in record.read_text(encoding="utf-8").split("\0")[:-1]:
        if word == "\1":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs[:-1]


def expand_like_kubernetes(word: str, variables: dict[str, str]) -> str:
    """What a container gets for a word of its `command` or `args`: $$ is $, $(NAME) a variable that exists."""
    made, at = "", 0
    while at < len(word):
        if word[at] != "$" or at + 1 == len(word):
            made, at = made + word[at], at + 1
        elif word[at + 1] == "$":
            made, at = made + "$", at + 2
        elif word[at + 1] == "(" and ")" in word[at:]:
            end = word.index(")", at)
            name = word[at + 2 : end]
            made, at = made + variables.get(name, f"$({name})"), end + 1
        else:
            made, at = made + word[at : at + 2], at + 2
    return made


def _gcloud(words: Sequence[str]) -> int:
    """Does what gcloud does, to folders below $CLOUD."""
    cloud = pathlib.Path(os.environ["CLOUD"])
    with (cloud / "calls.jsonl").open("a") as file:
        file.write(json.dumps(words) + "\n")
    state, machine = cloud / "state", cloud / "machine"
    line = " ".join(words)
    if line.startswith("projects describe"):
        print("ACTIVE")
    elif line.startswith("storage cp -"):
        assert sys.stdin.read() == "ok"
    elif " create " in line:
        if state.exists():
            print("ALREADY_EXISTS", file=sys.stderr)
            return 1
        if _refused(cloud):
            print("no capacity", file=sys.stderr)
            return 1
        machine.mkdir()
        state.write_text(os.environ["UP"])
    elif " describe xxl" in line:
        if not state.exists():
            print("NOT_FOUND: xxl was not found", file=sys.stderr)
            return 1
        print(state.read_text())
    elif " delete " in line:
        if not state.exists():
            print("NOT_FOUND", file=sys.stderr)
            return 1
        shutil.rmtree(machine)
        state.unlink()
    elif " scp " in line:
        files = [word for word in words if word.startswith("/")]
        for file in files:
            shutil.copy(file, machine / "prompt_tuning_launch")
    elif " ssh " in line:
        if state.read_text().strip() != os.environ["UP"]:
            return 255
        command = next(w for w in words if w.startswith("--command=")).partition("=")[2]
        # gcloud splits the command at spaces; ssh joins its words by spaces, and the other side's shell reads the line.
        remote = " ".join(command.split(" "))
        env = {**os.environ, "HOME": str(machine), "STATE": str(state)}
        return subprocess.run(["bash", "-c", remote], cwd=machine, env=env, check=False).returncode
    return 0


def _refused(cloud: pathlib.Path) -> bool:
    """Whether the file `refused` lists this creation."""
    if not (cloud / "refused").exists():
        return False
    count = int((cloud / "creations").read_text())
    (cloud / "creations").write_text(str(count + 1))
    return str(count) in (cloud / "refused").read_text().split()


if __name__ == "__main__":
    sys.exit(_gcloud(sys.argv[1:]))
