"""Stored parameters, whoever wrote them: the small interface behind which each kind of checkpoint stands."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath


class ParamSource(Protocol):
    """Stored parameters.

    Attributes:
      kind: "t5x", "run" (this program's own), "huggingface", "gemma" (DeepMind's Flax code) or "weights" (what
        `prompt-tuning convert` writes).
      path: Where they are stored.
      step: The step they are from, if known.
      frozen_digest: Digest of the frozen parameters a prompt in here was trained on, if recorded.
      trainable_paths: The parameters that the run trained, in the layout of its model; empty if no run of this program
        wrote them.
      settings: What the checkpoint says about its model beyond shapes, by the names of `T5Config`; None if nothing.
    """

    kind: str
    path: epath.Path
    step: int | None
    frozen_digest: str | None
    trainable_paths: frozenset[str]
    settings: Mapping[str, Any] | None

    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter, in either layout."""
        ...

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored: reading a part of one costs a whole one."""
        ...

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter of `shapes()`, or the part of it at `index` (one slice a dimension), on the host.

        Several threads may call it at once.
        """
        ...


def width_recorded(model: Mapping[str, Any]) -> int | None:
    """Returns the width of the encoder of a model as runs record it, or None; T5Gemma's stacks have their own."""
    return {**model, **(model.get("encoder") or {})}.get("emb_dim")


def recorded_model(source: ParamSource) -> Mapping[str, Any]:
    """Returns what is known of a stored model beyond shapes, by the names of its configuration; empty if nothing."""
    return source.settings or getattr(source, "metadata", {}).get("model") or {}


def embedding_scale(source: ParamSource) -> float:
    """Returns what embedded tokens are in a stored model, as a multiple of its table's rows.

    Args:
      source: With the settings of a model whose stacks have settings of their own (T5Gemma), or of another.
    """
    settings = recorded_model(source)
    return settings["encoder"]["emb_dim"] ** 0.5 if "encoder" in settings else 1.0
