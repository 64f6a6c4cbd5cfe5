"""Initial values of a prompt.

A *spec* says what the prompt starts from; `build_prompt` carries it out once the frozen weights are there, because
most specs read the embedding table. `t5x_initializer` is the same as a plain `(rng, shape)` function for T5X itself,
which initializes modules before it has weights: there the table comes from a file.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from prompt_tuning.checkpoints.prompt_files import matrices, read
from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Array, EncodeText

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Independent draws from U[-scale, scale).

    Attributes:
      scale: Half the width of the range.

    Source: Lester et al. 2021, section 3.2. Differs: the authors' code draws from U[0, scale).
    """

    scale: float = 0.5


@dataclasses.dataclass(frozen=True)
class SampledVocab:
    """Embeddings of tokens drawn without replacement.

    Attributes:
      population_size: Only the first so many rows of the table are drawn from; with SentencePiece these are the most
        common tokens. Larger than the table means the whole table.
      embedding_file: `.npy` file with a table [V, H] to use instead of the model's.

    Source: Lester et al. 2021, section 3.2.
    """

    population_size: int = 5000
    embedding_file: str | None = None


@dataclasses.dataclass(frozen=True)
class ClassLabels:
    """One row per class label, the mean of its tokens' embeddings; the rows after them as in `SampledVocab`.

    Attributes:
      labels: The labels' texts. Of more labels than the prompt has rows only the first are used.
      population_size: See `SampledVocab`.
      embedding_file: See `SampledVocab`.

    Source: Lester et al. 2021, section 3.2.
    """

    labels: Sequence[str]
    population_size: int = 5000
    embedding_file: str | None = None

    def __post_init__(self) -> None:
        """Makes the labels hashable and refuses a single string, whose letters would pass for labels."""
        if isinstance(self.labels, str) or not all(isinstance(label, str) for label in self.labels):
            raise ConfigError(
                "CLASS_LABELS is not a list of texts",
                got=self.labels,
                expected='a list such as ["True", "False"]',
                fix="put the labels into a list",
            )
        object.__setattr__(self, "labels", tuple(self.labels))


@dataclasses.dataclass(frozen=True)
class FromText:
    """One row per token of a text, cut at the prompt's length; the rows after them as in `SampledVocab`.

    Attributes:
      text: The text.
      population_size: See `SampledVocab`.
      embedding_file: See `SampledVocab`.
    """

    text: str
    population_size: int = 5000
    embedding_file: str | None = None


@dataclasses.dataclass(frozen=True)
class FromFile:
    """A trained prompt.

    Attributes:
      path: Anything that `prompt_files.read.load_prompt` reads: a `.npy` or `.safetensors` file, a folder of
        `numpy_checkpoints/`, a PEFT adapter. None where the checkpoint that is evaluated holds the prompt itself.
    """

    path: str | None = None


PromptSpec = Uniform | SampledVocab | ClassLabels | FromText | FromFile
# (rng, shape) -> [P, H]; what Linen and T5X call an initializer.
InitFn = Callable[[jax.Array, Sequence[int]], jax.Array]
PromptInit = PromptSpec | InitFn


def build_prompt(
    spec: PromptInit,
    *,
    length: int,
    embedding_table: Float[Array, "V H"],
    encode_text: EncodeText | None,
    rng: jax.Array,
    embedding_scale: float = 1.0,
) -> Float[jax.Array, "P H"]:
    """Returns the initial value of a prompt.

    Traceable by `jax.jit` (files and texts are read while tracing), and the table may be sharded over processes.

    Args:
      spec: What to start from.
      length: P, rows of the prompt.
      embedding_table: [V, H] the model's token embeddings; any floating dtype.
      encode_text: Text to token ids without EOS; needed for `ClassLabels` and `FromText`.
      rng: Key for random draws.
      embedding_scale: What a row of the table is times where it enters the encoder, in front of which prompts stand.

    Returns:
      [P, H] float32.

    Raises:
      ConfigError: If the spec does not fit the prompt or the vocabulary.
      CheckpointError: If a file is missing, damaged or of another width.
    """
    vocab_size, width = embedding_table.shape
    if isinstance(spec, Uniform):
        return jax.random.uniform(rng, (length, width), jnp.float32, -spec.scale, spec.scale)
    if isinstance(spec, FromFile):
        if spec.path is None:
            raise ConfigError(
                "There is no prompt to start from",
                got="PROMPT_FILE = None",
                expected="a prompt file",
                fix="bind PROMPT_FILE to a file below MODEL_DIR/numpy_checkpoints",
            )
        prompt, _ = read.load_prompt(spec.path, width=width)
        if prompt.shape[0] != length:
            raise ConfigError(
                "The prompt in the file has another length",
                got=f"{prompt.shape[0]} rows in {spec.path}",
                expected=f"PROMPT_LENGTH = {length} rows",
                fix=f"set PROMPT_LENGTH = {prompt.shape[0]}",
            )
        return jnp.asarray(prompt)
    if not isinstance(spec, SampledVocab | ClassLabels | FromText):
        return jnp.asarray(spec(rng, (length, width)), jnp.float32)
    table = embedding_table
    if spec.embedding_file is not None:
        table = matrices.read_matrix(
            spec.embedding_file, what="embedding table", setting="EMBEDDING_FILE", width=width
        )
        vocab_size = table.shape[0]
    groups = _token_groups(spec, length, vocab_size, encode_text)
    first = [_rows(table, ids).mean(axis=0, keepdims=True) for ids in groups]
    # All P rows are drawn, so that the sampled ones do not depend on how many labels there are.
    drawn = _rows(table, _draw(rng, spec.population_size, length, vocab_size))
    rows = jnp.concatenate([*first, drawn[len(first) :]], axis=0)
    return rows if embedding_scale == 1.0 else rows * jnp.float32(embedding_scale)


def module_initializer(spec: PromptInit) -> InitFn:
    """Returns what creates the parameter when a module is initialized.

    A `Uniform` spec and a plain function are carried out. Any other spec needs weights that do not exist yet: the
    parameter is then filled as by `Uniform()`, to be replaced by `build_prompt` once they are loaded.
    """
    if callable(spec):
        return lambda rng, shape: jnp.asarray(spec(rng, shape), jnp.float32)
    scale = spec.scale if isinstance(spec, Uniform) else Uniform().scale
    return lambda rng, shape: jax.random.uniform(rng, tuple(shape), jnp.float32, -scale, scale)


def t5x_initializer(spec: PromptSpec, vocabulary: Any = None) -> InitFn:
    """Returns a spec as a `(rng, shape)` function that needs no model, for use inside T5X.

    Args:
      spec: What to start from; those that read the embedding table need its `embedding_file`.
      vocabulary: The model's SeqIO vocabulary; needed for `ClassLabels` and `FromText`.

    Raises:
      ConfigError: If the spec reads a table and names no file.
    """
    needs_table = isinstance(spec, SampledVocab | ClassLabels | FromText)
    if needs_table and spec.embedding_file is None:
        raise ConfigError(
            f"{type(spec).__name__} needs an embedding table",
            got="no embedding_file",
            expected="a .npy file with the model's token embeddings [V, H]",
            fix="bind EMBEDDING_FILE",
        )

    encode_text = None if vocabulary is None else lambda text: list(vocabulary.encode(text))

    def init(rng: jax.Array, shape: Sequence[int]) -> jax.Array:
        # Only the width is read: the rows come from the file, or no rows are needed.
        table = np.zeros((0, shape[-1]), np.float32)
        return build_prompt(
            spec, length=shape[0], embedding_table=table, encode_text=encode_text, rng=rng
        )

    return init


def _token_groups(
    spec: SampledVocab | ClassLabels | FromText,
    length: int,
    vocab_size: int,
    encode_text: EncodeText | None,
) -> list[list[int]]:
    """Returns the token ids whose mean embedding makes each of the first rows."""
    if isinstance(spec, SampledVocab):
        return []
    if encode_text is None:
        raise ConfigError(
            f"{type(spec).__name__} needs a vocabulary",
            got="no encode_text",
            expected="a function from text to token ids",
            fix="bind VOCABULARY, or use SampledVocab",
        )
    if isinstance(spec, FromText):
        unit, groups = "tokens", [[token] for token in encode_text(spec.text)]
    else:
        unit, groups = "labels", [list(encode_text(label)) for label in spec.labels]
    if isinstance(spec, ClassLabels) and [] in groups:
        raise ConfigError(
            "A class label has no tokens",
            got=spec.labels[groups.index([])],
            expected="a text of at least one token",
            fix="remove the empty label from CLASS_LABELS",
        )
    largest = max((token for ids in groups for token in ids), default=0)
    if largest >= vocab_size:
        raise ConfigError(
            "The vocabulary has more ids than the embedding table has rows",
            got=f"token id {largest}",
            expected=f"ids below {vocab_size}",
            fix="use the vocabulary that the model was trained with",
        )
    if len(groups) > length:
        # Not an error, as in the authors' code: Figure 3a has prompts of one row, which start from the first label.
        _logger.warning(
            "The prompt has %d rows for %d %s: only the first are used.",
            *(length, len(groups), unit),
        )
    return groups[:length]


def _rows(table: Array, ids: Any) -> jax.Array:
    """Returns rows of the table in float32."""
    return jnp.take(jnp.asarray(table), jnp.asarray(ids, jnp.int32), axis=0).astype(jnp.float32)


def _draw(rng: jax.Array, population_size: int, length: int, vocab_size: int) -> jax.Array:
    """Returns `length` different row numbers below `population_size`."""
    population = min(population_size, vocab_size)
    if population < length:
        raise ConfigError(
            "The prompt is longer than the population it is drawn from without replacement",
            got=f"population_size = {population_size} of {vocab_size} embeddings",
            expected=f"at least PROMPT_LENGTH = {length}",
            fix="raise population_size or shorten the prompt",
        )
    return jax.random.choice(rng, population, (length,), replace=False)
