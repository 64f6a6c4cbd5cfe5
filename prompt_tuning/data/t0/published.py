"""What others measured on T0's evaluation, as `published.toml` has it."""

import tomllib
from typing import Any

from etils import epath

# `model`, `statistic`, `source` and `scores` (data set -> accuracy in percent) of each.
MODELS: list[dict[str, Any]] = tomllib.loads(
    (epath.resource_path("prompt_tuning") / "data/t0/published.toml").read_text(encoding="utf-8")
)["models"]
