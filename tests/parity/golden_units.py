"""Small parts of the model by themselves against the reference: positions, prompts in front of tokens, initializers."""

import json
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.models import masks
from prompt_tuning.models.attention import relative_position_buckets
from prompt_tuning.prompts.initializers import ClassLabels, FromText, build_prompt
from prompt_tuning.prompts.prompt import prepend_prompt
from tests.parity.golden_folder import Golden
from tests.parity.rows import NotChecked, Row, differing, largest

MEAN = 1e-6
_BUCKETS = re.compile(r"buckets_(\d+)_(\d+)_(bidirectional|causal)")


def relative_positions(golden: Golden) -> Iterator[Row | NotChecked]:
    """Buckets of relative distance."""
    theirs = golden.arrays("relpos.npz")
    for name, expected in theirs.items():
        if name == "relative_position":
            continue
        match = _BUCKETS.fullmatch(name)
        if match is None:
            yield NotChecked(f"relpos.npz: {name}", "unknown table")
            continue
        # Full sequences have constant positions, decoding has traced ones.
        for to_array in (np.asarray, jnp.asarray):
            ours = relative_position_buckets(
                to_array(theirs["relative_position"]),
                bidirectional=match[3] == "bidirectional",
                num_buckets=int(match[1]),
                max_distance=int(match[2]),
            )
            note = f"{expected.size} distances"
            row = f"relative_positions/{name}" + ("/traced" if to_array is jnp.asarray else "")
            yield Row(row, differing(ours, expected), 0, "count", note)


def combination(golden: Golden) -> Iterator[Row | NotChecked]:
    """A prompt in front of embedded tokens, and the encoder's mask."""
    theirs = golden.arrays("combine.npz")
    combined = prepend_prompt(theirs["embedded"], theirs["prompt"])
    length = masks.prompt_length(combined, theirs["tokens"])
    is_real = masks.is_real_position(theirs["tokens"], length, None)
    ours = {
        "prefix": combined,
        "fake_prompt": np.asarray(is_real),
        "encoder_mask": np.asarray(masks.pairwise_mask(is_real, is_real)),
    }
    for name, expected in theirs.items():
        if name in ours:
            expected = expected if name == "prefix" else expected > 0
            yield Row(f"combine/{name}", differing(ours[name], expected), 0, "count")
        elif name not in ("tokens", "embedded", "prompt"):
            yield NotChecked(
                f"combine.npz: {name}", "prompts stand in front of the encoder's input"
            )


def initializers(golden: Golden) -> Iterator[Row | NotChecked]:
    """Prompts made of class labels and of a text.

    The embedding table is too large for a folder; where `embedding_ids` and `embedding_rows` are beside the results,
    they are the rows of it that matter.
    """
    theirs, settings = golden.arrays("prompt_init.npz"), golden.json("prompt_init.json")
    if "embedding_rows" not in theirs:
        yield NotChecked("prompt_init.npz", "its embedding table is not in this folder")
        return
    rows = theirs["embedding_rows"]
    table = np.zeros((int(theirs["embedding_ids"].max()) + 1, rows.shape[1]), np.float32)
    table[theirs["embedding_ids"]] = rows
    labels = [json.loads(str(ids)) for ids in theirs["token_ids_list"]]
    ids = {str(i): label for i, label in enumerate(labels)}
    ids["text"] = theirs["token_ids_string"].tolist()
    for name, spec, covered in (
        ("from_embedded_list", ClassLabels(tuple(ids)[:-1]), len(labels)),
        ("from_embedded_string", FromText("text"), len(ids["text"])),
    ):
        ours = build_prompt(
            spec,
            length=settings["length"],
            embedding_table=table,
            encode_text=ids.__getitem__,
            rng=jax.random.key(0),
        )
        # Rows that no text reaches are zeros there; here they are drawn, as the paper does.
        count = min(covered, settings["length"])
        value = largest(np.asarray(ours)[:count], theirs[name][:count])
        yield Row(f"prompt_init/{name}", value, MEAN, note=f"{count} rows")
