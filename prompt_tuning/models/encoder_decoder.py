"""The model of a run: a T5 module, its vocabularies, its loss terms and how it decodes."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen.partitioning as nn_partitioning
import jax
import jax.numpy as jnp

from prompt_tuning import partitioning, tree
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.decoding.loop import DecodeFn
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.config import Architecture
from prompt_tuning.models.methods.method import Method
from prompt_tuning.models.special_ids import in_ids_of
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import layouts
from prompt_tuning.prompts import table
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.choice_losses import ChoiceLosses
from prompt_tuning.training.losses import LossConfig, token_cross_entropy
from prompt_tuning.types import TASK, Batch, PyTree


class Encoded(NamedTuple):
    """Inputs of B rows that are encoded, and what decoding them takes.

    Attributes:
      params: The parameters, those that differ between the rows with an axis for these.
      tokens: [B, L] ids that were encoded.
      hidden: [B, S, H].
      prompt_mask: [B, P]; None where all positions of the prompt are real.
    """

    params: PyTree
    tokens: jax.Array
    hidden: jax.Array
    prompt_mask: jax.Array | None


@dataclasses.dataclass(frozen=True)
class EncoderDecoderModel:
    """A T5 module with what is needed to train, score and decode with it.

    Attributes:
      module: The Linen module; it owns no parameters, they are passed to every method.
      input_vocabulary: SeqIO vocabulary of the inputs.
      output_vocabulary: SeqIO vocabulary of the targets.
      z_loss: See `LossConfig`.
      label_smoothing: See `LossConfig`.
      loss_normalizing_factor: See `LossConfig`.
      choice_losses: Losses of the answer choices of each example; runs are then trained on rows of all choices
        (`data/choices.py`). None trains on targets alone.
      decode_fn: How to decode; a class, as T5X's gin files name it, is called.
      num_decodes: Sequences decoded for each example (beams, draws), of which the best is returned; None for what
        `decode_fn` says.

    Source: the part of T5X's `models.EncoderDecoderModel` that a run needs. Differs: the optimizer is not part of it.
    """

    module: T5
    input_vocabulary: Any
    output_vocabulary: Any
    z_loss: float = 1e-4
    label_smoothing: float = 0.0
    loss_normalizing_factor: float | str | None = None
    choice_losses: ChoiceLosses | None = None
    decode_fn: DecodeFn | type[DecodeFn] = Greedy()
    num_decodes: int | None = None

    def __post_init__(self) -> None:
        """Checks the method, the loss terms and how to decode where they are configured, not at the first step."""
        if not isinstance(self.method, Method | None):
            raise ConfigError(
                "METHOD is no method",
                got=self.method,
                expected="one, such as @methods.IA3(), or None",
                fix="bind METHOD; several at once are METHODS, behind --gin_file=methods/several.gin",
            )
        self.loss_config  # noqa: B018
        self.decoder  # noqa: B018

    @property
    def config(self) -> Architecture:
        """The architecture."""
        return self.module.config

    @property
    def prompt(self) -> PromptConfig | None:
        """Length and initializer of the prompt; None for a model without one."""
        return self.module.prompt

    @property
    def method(self) -> Method | None:
        """What is tuned beside the prompt; None for nothing."""
        return self.module.method

    @property
    def num_prompt_positions(self) -> int:
        """Rows that stand in front of the tokens of each example."""
        own = self.prompt.length if self.prompt else 0
        return self.method.prompt_length(own) if self.method else own

    @property
    def loss_config(self) -> LossConfig:
        """The loss terms."""
        return LossConfig(
            self.z_loss, self.label_smoothing, self.loss_normalizing_factor, self.choice_losses
        )

    @functools.cached_property
    def decoder(self) -> DecodeFn:
        """`decode_fn` with `num_decodes` set.

        Raises:
          ConfigError: If `decode_fn` decodes one sequence only and more are asked for.
        """
        decode_fn = self.decode_fn() if isinstance(self.decode_fn, type) else self.decode_fn
        if self.num_decodes in (None, decode_fn.num_decodes):
            return decode_fn
        settings = getattr(decode_fn, "__dataclass_fields__", {})
        if "num_decodes" not in settings:
            raise ConfigError(
                f"{type(decode_fn).__name__} decodes one sequence for each example",
                got=f"num_decodes = {self.num_decodes}",
                expected="1, or a decode_fn that decodes several",
                fix="bind models.EncoderDecoderModel.decode_fn = @decoding.beam_search(), or leave num_decodes out",
            )
        return dataclasses.replace(decode_fn, num_decodes=self.num_decodes)  # pyright: ignore

    def check_vocabulary_size(self) -> None:
        """Raises ConfigError if a vocabulary has more ids than the embedding table has rows."""
        for vocabulary in (self.input_vocabulary, self.output_vocabulary):
            if vocabulary.vocab_size > self.config.vocab_size:
                raise ConfigError(
                    "The vocabulary does not fit the embedding table",
                    got=vocabulary.vocab_size,
                    expected=f"at most NUM_EMBEDDINGS = {self.config.vocab_size} ids",
                    fix=f"bind NUM_EMBEDDINGS to at least {vocabulary.vocab_size} "
                    "or use the checkpoint's own vocabulary",
                )

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Returns random parameters (a nested dict); traceable, so that the caller decides where they live."""
        return _init_variables(self.module, rng)["params"]

    @property
    def param_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every parameter by its path; allocates nothing."""
        return _abstract(self.module)[0]  # pyright: ignore[reportArgumentType]

    @property
    def param_axes(self) -> dict[str, tuple]:
        """Logical axis names of every parameter by its path."""
        return _abstract(self.module)[1]  # pyright: ignore[reportArgumentType]

    def apply(
        self,
        params: PyTree,
        batch: Batch,
        dropout_rng: jax.Array | None = None,
        *,
        widths: tuple[int, int] | None = None,
    ) -> jax.Array:
        """Returns the logits [B, T, V] float32 under teacher forcing; dropout only with `dropout_rng`.

        Rows of a batch with `table.INDEX` take what was tuned from `params[table.TABLE]`; in `score` and `predict` too.

        Args:
          params: All parameters.
          batch: Model features.
          dropout_rng: Key of dropout; None for no dropout.
          widths: (L, T) of the batch before padding was cut off its rows, whose dropout it then has; None for its own.
        """
        rngs = {} if dropout_rng is None else {"dropout": dropout_rng}
        batch = in_ids_of(self.config.ids, batch)
        params, prompts = _of_rows(params, batch)
        if "encoder_prompt_positions" in batch:
            prompts["prompt_positions"] = batch["encoder_prompt_positions"]
        tokens, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
        inputs_width, targets_width = widths or (tokens.shape[1], targets.shape[1])
        logits = self.module.apply(
            {"params": params},
            tokens,
            batch["decoder_input_tokens"],
            targets,
            encoder_segment_ids=batch.get("encoder_segment_ids"),
            decoder_segment_ids=batch.get("decoder_segment_ids"),
            enable_dropout=dropout_rng is not None,
            trimmed=(inputs_width - tokens.shape[1], targets_width - targets.shape[1]),
            rngs=rngs,
            **prompts,
        )
        assert isinstance(logits, jax.Array), "no collection is mutable"
        return logits

    def penalty(self, params: PyTree) -> jax.Array | None:
        """Returns what the method adds to the loss of a training step, whatever its batch is; None for nothing."""
        # Looked up where a text is encoded: models without such a method may have no vocabulary.
        return self.method and self.method.penalty(
            params,
            lambda text: self.input_vocabulary.encode(text),
            self.config.embedding_scale,
        )

    def score(self, params: PyTree, batch: Batch) -> jax.Array:
        """Returns the log-likelihood [B] float32 (nats, summed over target tokens) of each example's targets.

        Source: T5X `EncoderDecoderModel.score_batch`; neither z-loss nor label smoothing enters.
        """
        one_part = {n: x[:, None] if n.startswith("decoder_") else x for n, x in batch.items()}
        return jnp.sum(self.score_targets(params, one_part), axis=(1, 2))

    def score_targets(self, params: PyTree, batch: Batch, *, compares: bool = False) -> Any:
        """Returns the log-likelihood of every target token, of any number of targets of each input.

        An input is encoded once. Its targets are decoded part by part, so that no more logits than [B, T, V] are there
        at once; within a part they stand behind each other.

        Args:
          params: All parameters.
          batch: Model features, those of the decoder [B, G, T] with G parts; with several targets in a part, the
            numbers of these as `decoder_segment_ids`.
          compares: Whether each target token is compared with the likeliest in its place.

        Returns:
          [B, G, T] float32, nats; 0 where `decoder_loss_weights` is. With `compares` also [B, G, T] bool: whether
          another token is likelier.
        """
        batch = in_ids_of(self.config.ids, batch)
        encoded = self.encode(params, batch)

        def score_part(part):
            targets = part["decoder_target_tokens"]
            logits = self.module.apply(
                {"params": encoded.params},
                encoded.hidden,
                encoded.tokens,
                part["decoder_input_tokens"],
                targets,
                decoder_segment_ids=part.get("decoder_segment_ids"),
                enable_dropout=False,
                prompt_mask=encoded.prompt_mask,
                method=self.module.decode,
            )
            assert isinstance(logits, jax.Array), "no collection is mutable"
            loss, _ = token_cross_entropy(logits, targets)
            scores = -loss * part["decoder_loss_weights"].astype(jnp.float32)
            return (scores, jnp.argmax(logits, axis=-1) != targets) if compares else scores

        parts = {
            name: jnp.moveaxis(jnp.asarray(x), 1, 0)
            for name, x in batch.items()
            if name.startswith("decoder_")
        }
        if parts["decoder_target_tokens"].shape[0] == 1:
            # Without a loop there is less to compile.
            found = score_part(jax.tree.map(lambda x: x[0], parts))
            return jax.tree.map(lambda x: x[:, None], found)
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), jax.lax.map(score_part, parts))

    def predict(
        self, params: PyTree, batch: Batch, max_decode_length: int | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Decodes each example.

        Args:
          params: All parameters, the prompt included.
          batch: Model features; only `encoder_input_tokens` [B, L] is read, `table.INDEX` and `types.TASK` [B] where
            they are there, and the width T of `decoder_input_tokens` where `max_decode_length` is None.
          max_decode_length: Tokens to decode at most.

        Returns:
          Token ids [B, T] int32 of the best sequence, padding after EOS, and its `{"scores": [B] float32}` as
          `decode_fn` defines them.
        """
        length = max_decode_length or batch["decoder_input_tokens"].shape[-1]
        encoded = self.encode(params, in_ids_of(self.config.ids, batch))
        model, encoded = self._for_decoding(encoded, length)
        start = model.start_decoding(encoded, length)

        def tokens_to_logits(ids, cache):
            return model.next_logits(encoded, {**start, "cache": cache}, ids, length)

        ids = self.config.ids
        decoded, scores = self.decoder(
            tokens_to_logits,
            start["cache"],
            batch_size=encoded.tokens.shape[0],
            max_decode_length=length,
            eos_id=ids.eos,
            cache_batch_axis=int(model.module.scan_layers),
            start_id=ids.start,
            pad_id=ids.pad,
        )
        return decoded[:, -1], {"scores": scores[:, -1]}

    def encode(self, params: PyTree, batch: Batch) -> "Encoded":
        """Encodes the inputs of a batch, which are in the model's ids (`in_ids_of`)."""
        tokens = jnp.asarray(batch["encoder_input_tokens"])
        params, prompts = _of_rows(params, batch)
        hidden = self.module.apply(
            {"params": params}, tokens, enable_dropout=False, method=self.module.encode, **prompts
        )
        assert isinstance(hidden, jax.Array), "no collection is mutable"
        return Encoded(params, tokens, hidden, prompts.get("prompt_mask"))

    def start_decoding(self, encoded: "Encoded", length: int) -> dict[str, PyTree]:
        """Returns what decoding begins from: the empty `cache` of so many tokens, and what each reads of the input."""
        # Logits of this call are not used, and so not computed.
        ids = jnp.ones((encoded.tokens.shape[0], length), jnp.int32)
        return self._decode(encoded, {}, ids, length, ["cache", "encoded"])[1]

    def next_logits(
        self, encoded: "Encoded", variables: dict[str, PyTree], ids: jax.Array, length: int
    ) -> tuple[jax.Array, PyTree]:
        """Decodes one position.

        Args:
          encoded: The inputs; of `hidden` the shape is read.
          variables: What `start_decoding` returned, with the cache of now.
          ids: [R, 1] the decoder's next inputs.
          length: As of `start_decoding`.

        Returns:
          Logits [R, V] and the cache.
        """
        logits, changed = self._decode(encoded, variables, ids, length, ["cache"])
        return logits[:, 0, :], changed["cache"]

    def _decode(self, encoded, variables, ids, length, mutable) -> tuple[jax.Array, Any]:
        """One call of the decoder with a cache; the logits, and the collections that changed."""
        result: Any = self.module.apply(
            {"params": encoded.params, **variables},
            encoded.hidden,
            encoded.tokens,
            ids,
            ids,
            enable_dropout=False,
            decode=True,
            max_decode_length=length,
            prompt_mask=encoded.prompt_mask,
            mutable=mutable,
            method=self.module.decode,
        )
        return result

    def decodes_apart(self, length: int) -> bool:
        """Returns whether stacked layers are to be taken apart for decoding so many tokens."""
        # A CPU copies each layer out of the stack for each token, as much as it then reads. Taken apart, they are
        # copied once. Accelerators read a slice where it lies, and have no memory for a second copy.
        is_better_apart = partitioning.platform() == "cpu" or self.config.decodes_apart(length)
        return self.config.scan_layers and is_better_apart

    def apart(self) -> "EncoderDecoderModel":
        """Returns the model of unscanned layers, for parameters that `layouts.take_apart` returned."""
        return dataclasses.replace(self, module=self.module.clone(config=self.config.apart()))

    def _for_decoding(
        self, encoded: "Encoded", length: int
    ) -> tuple["EncoderDecoderModel", "Encoded"]:
        """Returns the model that decodes, and the inputs with its parameters."""
        if not self.decodes_apart(length):
            return self, encoded
        decoder = layouts.take_apart(tree.flatten({"decoder": encoded.params["decoder"]}))
        params = {**encoded.params, **tree.unflatten(decoder)}
        return self.apart(), encoded._replace(params=params)


def _of_rows(params: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
    """The parameters for the rows of a batch, and what `encode` takes for them: prompts, and what task each is of."""
    params, inputs = table.of_rows(params, batch)
    return params, {**inputs, "task": batch[TASK]} if TASK in batch else inputs


def _init_variables(module: T5, rng: jax.Array) -> dict[str, Any]:
    """Random parameters and their logical axes."""
    ids = jnp.ones((1, 1), jnp.int32)
    return dict(module.init({"params": rng}, ids, ids, ids, enable_dropout=False))


# By module: the cells of a sweep are models of their own with the same parameters, and tracing a model takes seconds.
@functools.lru_cache(maxsize=32)
def _abstract(module: T5) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, tuple]]:
    """Shapes and logical axes of the parameters by path."""
    variables = jax.eval_shape(functools.partial(_init_variables, module), jax.random.key(0))
    shapes = tree.flatten(variables["params"])
    names = tree.flatten(nn_partitioning.get_axis_names(variables["params_axes"]))
    return shapes, {path: tuple(names[path]) for path in shapes}
