"""What is measured: every row of the table is one piece of work, which both sides do in turn."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
      kind: "step" takes training steps over full rows, "train" over texts of real lengths; "decode" decodes full rows,
        "infer" texts; "rank" scores texts with each of two labels; "start" is a command up to its first step.
      size: Of the model: a shipped size, or "tiny".
      batch_size: Rows of a batch.
      inputs: Tokens of an input; of texts the most that is kept.
      targets: Tokens of a target; where answers are decoded, tokens decoded for each.
      data_set: Whose lengths texts have, see `texts`.
      num_examples: Texts in a pass.
      parts: Rounds that a pass over texts is cut into, so that the sides alternate within it.
      beams: Beams; 1 decodes greedily.
      prompt_length: Rows of the prompt.
      dtype: Of weights and activations.
      scan_layers: Whether our layers are scanned.
      length_window: Our batches whose texts are sorted by length together.
      packs: Whether ours packs texts with their prompts.
    """

    kind: str
    size: str = "small"
    batch_size: int = 8
    inputs: int = 256
    targets: int = 8
    data_set: str = ""
    num_examples: int = 0
    parts: int = 1
    beams: int = 1
    prompt_length: int = 100
    dtype: str = "float32"
    scan_layers: bool = False
    length_window: int = 1
    packs: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One or more lines of the table.

    Attributes:
      title: What the work is, in words.
      work: The work.
      passes: How often it is done by each side; the median counts.
      variants: Our ways to do it: what is said behind the title -> what differs in `work`. Each is a process of its own
        and a line of the table, beside the one of PEFT.
      has_memory: Whether a line says how much memory the processes held meanwhile.
      is_extra: Whether it is measured only where it is asked for.
    """

    title: str
    work: Work
    passes: int = 3
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})
    has_memory: bool = False
    is_extra: bool = False


_RTE = Work("train", batch_size=16, inputs=320, data_set="rte", num_examples=128, parts=4)
_BOOLQ = dataclasses.replace(_RTE, inputs=512, data_set="boolq")
_STREAMS = {
    "": {},
    ", grouped by length": {"length_window": 8},
    ", packed": {"packs": True},
}


def _evaluated(trained: Work, kind: str, num_examples: int) -> Work:
    return dataclasses.replace(trained, kind=kind, num_examples=num_examples, parts=1)


ROWS = {
    "step": Row("step, batch 8 x 256", Work("step"), has_memory=True),
    "step_512": Row("step, batch 4 x 512", Work("step", batch_size=4, inputs=512), is_extra=True),
    "step_base": Row(
        "step of Base, batch 4 x 256", Work("step", size="base", batch_size=4), is_extra=True
    ),
    "step_bfloat16": Row(
        "step in bfloat16, batch 8 x 256", Work("step", dtype="bfloat16"), is_extra=True
    ),
    "train_rte": Row("training, RTE's lengths", _RTE, passes=1, variants=_STREAMS),
    "train_boolq": Row(
        "training, BoolQ's lengths", _BOOLQ, passes=1, variants=_STREAMS, is_extra=True
    ),
    "infer_rte": Row("inference, RTE's lengths", _evaluated(_RTE, "infer", 64), passes=1),
    "infer_boolq": Row(
        "inference, BoolQ's lengths", _evaluated(_BOOLQ, "infer", 64), passes=1, is_extra=True
    ),
    "rank": Row(
        "rank classification of two labels, RTE's lengths", _evaluated(_RTE, "rank", 64), passes=1
    ),
    "greedy": Row("64 tokens greedily, batch 8 x 256", Work("decode", targets=64), passes=2),
    "greedy_scanned": Row(
        "64 tokens greedily, batch 8 x 256, scanned layers",
        Work("decode", targets=64, scan_layers=True),
        passes=2,
        is_extra=True,
    ),
    "beam": Row("64 tokens, 4 beams, batch 8 x 256", Work("decode", targets=64, beams=4), passes=1),
    "start": Row(
        "command to the first step, the ladder's mini",
        Work("start", batch_size=32, inputs=80, targets=4, prompt_length=20),
        passes=2,
    ),
}
