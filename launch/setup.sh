#!/usr/bin/env bash
# Installs prompt-tuning for TPUs into ./venv beside this script: setup.sh WHEEL
#
# TPU images bring Python 3.10 or whatever is newest: uv takes the image's Python where it is one of 3.11 to 3.13, and
# downloads one where it is not. Does nothing where the same wheel is installed already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wheel=${1:?usage: setup.sh WHEEL}
installed=venv/installed-wheel
if cmp --silent "$wheel" "$installed"; then
  echo "setup: $wheel is installed"
  exit 0
fi

export PATH="$HOME/.local/bin:$PATH"
if ! command -v uv >/dev/null; then
  curl --location --silent --show-error --fail https://astral.sh/uv/install.sh | sh
fi
uv venv --quiet --clear --python '>=3.11,<3.14' venv

constraints=()
if [[ -f constraints.txt ]]; then
  constraints=(-c constraints.txt)
fi
uv pip install --quiet --python venv/bin/python "${constraints[@]}" "./${wheel}[tpu]"
venv/bin/prompt-tuning --help >/dev/null
cp "$wheel" "$installed"
echo "setup: installed $wheel for $(venv/bin/python --version)"
