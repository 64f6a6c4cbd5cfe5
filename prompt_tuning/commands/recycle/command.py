"""The command: a prompt and two models in, a prompt of the other model out."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.config.flags import command_parser
from prompt_tuning.errors import CheckpointError, ConfigError, check_count

if TYPE_CHECKING:
    from prompt_tuning.checkpoints.source import ParamSource

_DESCRIPTION = """\
Writes a prompt for a model that it was not tuned on: how the embeddings of some tokens lie in the one model and in the
other teaches a map, and that is applied to the prompt. The models may differ in width, not in vocabulary.
"""
_EPILOG = """\
SOURCE is what `prompt-tuning export` takes. TARGET is a file that does not exist yet, .npy or .safetensors. A recycled
prompt works less well than one that was tuned; it is also a start for tuning (docs/use/prompts.md).
"""
# A vocabulary's file beside a model's weights: T5's name for it, and Gemma's.
_PIECES = ("spiece.model", "tokenizer.model")


def main(argv: Sequence[str]) -> None:
    """Writes the prompt at SOURCE, mapped into another model, to TARGET.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If a prompt or a model cannot be read, or they do not belong together.
      ConfigError: If a flag is wrong.
    """
    flags = _parser().parse_args(list(argv))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from prompt_tuning.checkpoints.open import open_source
    from prompt_tuning.checkpoints.prompt_files import source, write
    from prompt_tuning.commands.export.added import format_of
    from prompt_tuning.commands.recycle.mapping import RECYCLERS

    check_count("--num_words", flags.num_words, "tokens")
    check_count("--word_offset", flags.word_offset, "tokens", at_least=0)
    target = epath.Path(flags.target)
    file_format = format_of(target)
    write.check_target(target, file_format=file_format, base_model=None)
    prompt, info = source.read_plain(flags.source, step=flags.step)
    path = flags.source_model or info.get("initial_checkpoint_path")
    if path is None:
        raise ConfigError(
            "Nothing is recorded of the model that the prompt was tuned on",
            got=f"no --source_model for {flags.source}",
            expected="the checkpoint of that model",
            fix="add --source_model",
        )
    models = {
        "--source_model": open_source(path),
        "--target_model": open_source(flags.target_model),
    }
    _check_vocabularies(*models.values())
    tables = [
        _embeddings(model, flag, flags.word_offset, flags.num_words)
        for flag, model in models.items()
    ]
    if prompt.shape[1] != tables[0].shape[1]:
        raise CheckpointError(
            f"The prompt was not tuned on {path}",
            got=f"a prompt of width {prompt.shape[1]}",
            expected=f"the model's width {tables[0].shape[1]}",
            fix="correct --source_model",
        )
    mapped = RECYCLERS[flags.recycler](prompt, *tables)
    recycled = {name: getattr(flags, name) for name in ("recycler", "num_words", "word_offset")}
    recycled |= {flag.removeprefix("--"): str(model.path) for flag, model in models.items()}
    kept = {name: info[name] for name in ("task", "step") if name in info}
    record = {**kept, "recycled": {**recycled, "from": info["exported_from"]}}
    write.write_prompt(target, mapped, record, file_format=file_format)
    length, width = mapped.shape
    print(f"{target}: a prompt of length {length} and width {width}, recycled by {flags.recycler}")


def _embeddings(
    model: "ParamSource", flag: str, offset: int, count: int
) -> Float[np.ndarray, "K H"]:
    """The embeddings of `count` tokens from the id `offset` on."""
    from prompt_tuning.checkpoints.source import embedding_scale
    from prompt_tuning.params.names import EMBEDDING

    rows, width = model.shapes()[EMBEDDING][0]
    if offset + count > rows:
        raise ConfigError(
            f"The vocabulary of {flag} has fewer tokens",
            got=f"--word_offset={offset} and --num_words={count}",
            expected=f"at most {rows} together, the rows of its embedding table",
            fix="lower --num_words or --word_offset",
        )
    table = model.read(EMBEDDING, (slice(offset, offset + count), slice(0, width)))
    # As they enter the encoder, in front of which prompts stand.
    return table.astype(np.float32) * np.float32(embedding_scale(model))


def _check_vocabularies(source: "ParamSource", target: "ParamSource") -> None:
    """Raises CheckpointError if two models have different vocabularies; warns if that cannot be told."""
    from prompt_tuning.params.names import EMBEDDING

    digests = [_vocabulary_of(model) for model in (source, target)]
    rows = [model.shapes()[EMBEDDING][0][0] for model in (source, target)]
    known = None not in digests
    if digests[0] != digests[1] if known else rows[0] != rows[1]:
        raise CheckpointError(
            "The two models have different vocabularies, so that no token tells where the other model has it",
            got=f"{target.path} with {digests[1] if known else f'{rows[1]} embeddings'}",
            expected=f"as {source.path}: {digests[0] if known else f'{rows[0]} embeddings'}",
            fix="name models of one vocabulary",
        )
    if not known:
        print(
            "warning: the checkpoints do not say which vocabulary is theirs: ids are taken to mean the same tokens",
            file=sys.stderr,
        )


def _vocabulary_of(model: "ParamSource") -> str | None:
    """The SHA-256 of a model's vocabulary: of the file beside it, or as a run recorded it; None if there is neither."""
    from prompt_tuning.data import content
    from prompt_tuning.run.identity import MADE_FROM

    for name in _PIECES:
        if (beside := epath.Path(model.path) / name).is_file():
            return content.of_bytes(beside.read_bytes())
    recorded: dict[str, Any] = getattr(model, "metadata", {}).get(MADE_FROM) or {}
    return (recorded.get("input vocabulary") or {}).get("content (SHA-256)")


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = command_parser("recycle", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("source", metavar="SOURCE", help="the prompt")
    add("target", metavar="TARGET", help="what is written")
    add(
        "--target_model", required=True, help="checkpoint of the model that the prompt is to be for"
    )
    add(
        "--source_model",
        help="checkpoint of the model that it was tuned on (default: as the run recorded it)",
    )
    add(
        "--recycler",
        choices=("v2v-nn", "v2v-lin", "lin-comb"),
        default="v2v-nn",
        help="v2v-nn (the default) trains a network; v2v-lin solves for a matrix; lin-comb is the same as v2v-lin",
    )
    add("--num_words", type=int, default=4000, help="tokens to learn from (default: 4000)")
    add("--word_offset", type=int, default=1000, help="id of the first of them (default: 1000)")
    add("--step", help="of a MODEL_DIR: a number, latest (the default) or best, by the dev metric")
    return parser
