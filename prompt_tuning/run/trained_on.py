"""Whether the frozen weights are those that something tuned was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prompt_tuning import tree
from prompt_tuning.checkpoints import digest
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import int8
from prompt_tuning.params.names import PROMPT_REGEX


def check_recorded(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    params: Mapping[str, jax.Array],
    dtype: str,
    digests: dict[tuple[str, ...], str] | None = None,
) -> None:
    """Raises CheckpointError unless `params` are what each record, `(of what, record)`, was trained on.

    `digests` of one call can be passed to the next, for the same parameters.
    """
    digests = {} if digests is None else digests
    for what, recorded in records:
        if not recorded.get("frozen_digest"):
            continue
        regex = tuple(recorded.get("trainable_regex", PROMPT_REGEX))
        if regex not in digests:
            was_trained = tree.match_any(regex)
            frozen = {p: x for p, x in params.items() if not was_trained(int8.kernel_of(p))}
            digests[regex] = digest.params_digest(frozen)
        check_digest(recorded, digests[regex], dtype, what)


def check_digest(recorded: Mapping[str, Any], actual: str | None, dtype: str, what: str) -> None:
    """Checks the digest of the frozen weights.

    Args:
      recorded: What a run recorded.
      actual: The digest now.
      dtype: In what the weights are held now.
      what: What the run left, in words.

    Raises:
      CheckpointError: Unless the frozen weights are those that `what` was trained on.
    """
    expected, then = recorded.get("frozen_digest"), recorded.get("frozen_dtype", "float32")
    if expected == actual:
        return
    fix = "point INITIAL_CHECKPOINT_PATH or CHECKPOINT_PATH at the checkpoint the prompt was trained on"
    if (then == int8.INT8) != (dtype == int8.INT8):
        fix = (
            f"bind utils.RestoreCheckpointConfig.dtype = {then!r}, as then; or use the prompt on these weights all the"
            " same: set PROMPT_FILE to a copy of its .npy file without the .json file beside it"
        )
    raise CheckpointError(
        f"The frozen weights are not those that {what} was trained on",
        got=f"weights held as {dtype} with digest {actual}",
        expected=f"weights held as {then} with digest {expected}",
        fix=fix,
    )
