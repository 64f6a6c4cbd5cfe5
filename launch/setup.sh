#!/usr/bin/env bash
# Installs this checkout into .venv, for the accelerator that the machine has: setup.sh [EXTRA,...]
#
# Machines bring Python 3.10 or whatever is newest: uv takes theirs where it is one of 3.11 to 3.13, and downloads one
# where it is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=tpu
if command -v nvidia-smi >/dev/null; then
  extras=cuda
fi
export PATH="$HOME/.local/bin:$PATH"
if ! command -v uv >/dev/null; then
  curl --location --silent --show-error --fail https://astral.sh/uv/install.sh | sh
fi
uv venv --quiet --clear --python '>=3.11,<3.14' .venv
uv pip install --quiet --python .venv/bin/python -c constraints.txt ".[$extras${1:+,$1}]"
.venv/bin/prompt-tuning --help >/dev/null
