"""T5: an encoder-decoder whose encoder takes a soft prompt in front of its embedded input."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from prompt_tuning.errors import ConfigError
from prompt_tuning.models import layers, masks, stacks
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.methods.method import Method
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.types import Array


class T5(nn.Module):
    """T5 1.0 or 1.1, with or without a prompt.

    Parameters have T5X's names, shapes and logical axes (collection `params_axes`), stacked as T5X's scanned models
    stack them where `config.scan_layers` says so. The prompt is `encoder/prompt/prompt/prompt` [P, H], float32,
    axes ("prompt", "prompt_embed").

    Padding is `config.ids.pad` in `encoder_input_tokens` and `decoder_target_tokens`. A prompt takes relative positions
    0..P-1, tokens follow; the decoder attends to all P + L positions.

    Attributes:
      config: The architecture.
      prompt: Length and initializer of the prompt parameter. None declares none; a prompt may still be passed.
      method: What else is tuned, with parameters of its own in the modules where it acts; None for nothing.

    Source: T5X `examples/t5` and `examples/scalable_t5`, `network.Transformer`; the authors'
      `prompt_tuning/train/layers.py`. Differs: dropout of the encoder's output is shared along the sequence like all
      others, as in the authors' Flaxformer models; T5X's own modules draw it for each position.
    """

    config: T5Config
    prompt: PromptConfig | None = None
    method: Method | None = None

    @property
    def scan_layers(self) -> bool:
        """Whether parameters and cache have a layers axis; T5X's decoding reads this name."""
        return self.config.scan_layers

    def setup(self) -> None:
        """Declares the three parts that own parameters."""
        self.token_embedder = layers.TokenEmbedder(self.config)
        self.encoder = stacks.Encoder(self.config, self.prompt, self.method)
        self.decoder = stacks.Decoder(self.config, self.method)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "B T"],
        decoder_target_tokens: Int[Array, "B T"],
        encoder_segment_ids: Int[Array, "B L"] | None = None,
        decoder_segment_ids: Int[Array, "B T"] | None = None,
        encoder_positions: Int[Array, "B L"] | None = None,
        decoder_positions: Int[Array, "B T"] | None = None,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        prompt: Float[Array, "*B P H"] | None = None,
        prompt_mask: Array | None = None,
        prompt_positions: Int[Array, "B L"] | None = None,
        task: Int[Array, " B"] | None = None,
        trimmed: tuple[int, int] = (0, 0),
    ) -> Float[jax.Array, "B T V"]:
        """Returns the logits of each target position under teacher forcing; see `encode` and `decode`.

        `trimmed` is what was cut off the inputs and the targets of all rows as padding: dropout is that of whole rows.
        """
        if encoder_segment_ids is not None:
            _check_packing(encoder_segment_ids, decoder_segment_ids, has_prompt=False)
        encoded = self.encode(
            encoder_input_tokens,
            encoder_segment_ids,
            encoder_positions,
            enable_dropout=enable_dropout,
            prompt=prompt,
            prompt_mask=prompt_mask,
            prompt_positions=prompt_positions,
            task=task,
            trimmed=trimmed[0],
        )
        return self.decode(
            encoded,
            encoder_input_tokens,
            decoder_input_tokens,
            decoder_target_tokens,
            encoder_segment_ids,
            decoder_segment_ids,
            encoder_positions,
            decoder_positions,
            enable_dropout=enable_dropout,
            decode=decode,
            prompt_mask=prompt_mask,
            trimmed=trimmed,
        )

    def encode(
        self,
        encoder_input_tokens: Int[Array, "B L"],
        encoder_segment_ids: Int[Array, "B L"] | None = None,
        encoder_positions: Int[Array, "B L"] | None = None,
        enable_dropout: bool = True,
        prompt: Float[Array, "*B P H"] | None = None,
        prompt_mask: Array | None = None,
        prompt_positions: Int[Array, "B L"] | None = None,
        task: Int[Array, " B"] | None = None,
        trimmed: int = 0,
    ) -> Float[jax.Array, "B S H"]:
        """Encodes prompt and tokens.

        Args:
          encoder_input_tokens: [B, L] ids, 0 is padding.
          encoder_segment_ids: [B, L] packed example of each token, 0 is padding. With a prompt, which each example has
            for itself, `prompt_positions` come along.
          encoder_positions: [B, L]; accepted because T5X passes it. Relative positions need no start of each packed
            example: differences within one are the same.
          enable_dropout: Whether to drop out; needs the rng `dropout`.
          prompt: [P, H], or [B, P, H] for a prompt per row; used instead of the parameter, which is not read.
          prompt_mask: [B, P], nonzero where a prompt position is real; None if all are. Shorter prompts of a batch
            stand to the right, next to their tokens, with masked positions to their left.
          prompt_positions: [B, L] row of the prompt that stands at each position, from 1; 0 elsewhere.
            `data/packing.py` keeps these places among packed examples, with the example's segment id and token id 0.
          task: [B] which of the method's tasks each row is of; None where it tells none apart.
          trimmed: Tokens that were cut off all rows as padding.

        Returns:
          [B, S, H] in the activation dtype, S = P + L; S = L with `prompt_positions`.

        Raises:
          ConfigError: If segment ids and a prompt come without places for it, or shapes do not fit.
        """
        del encoder_positions
        is_prefix = (prompt is not None or self.prompt is not None) and prompt_positions is None
        _check_packing(encoder_segment_ids, has_prompt=is_prefix)
        return self.encoder(
            self.token_embedder(encoder_input_tokens),
            encoder_input_tokens,
            segment_ids=encoder_segment_ids,
            prompt=prompt,
            prompt_mask=prompt_mask,
            prompt_positions=prompt_positions,
            task=task,
            deterministic=not enable_dropout,
            trimmed=trimmed,
        )

    def decode(
        self,
        encoded: Float[Array, "B S H"],
        encoder_input_tokens: Int[Array, "B L"],
        decoder_input_tokens: Int[Array, "R T"],
        decoder_target_tokens: Int[Array, "R T"],
        encoder_segment_ids: Int[Array, "B L"] | None = None,
        decoder_segment_ids: Int[Array, "R T"] | None = None,
        encoder_positions: Int[Array, "B L"] | None = None,
        decoder_positions: Int[Array, "R T"] | None = None,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
        prompt_mask: Array | None = None,
        trimmed: tuple[int, int] = (0, 0),
    ) -> Float[jax.Array, "R T V"]:
        """Returns the logits of each target position, given the encoded input.

        Args:
          encoded: [B, S, H] from `encode`; S - L is taken for the prompt's length.
          encoder_input_tokens: [B, L] ids that were encoded; they tell which positions are real.
          decoder_input_tokens: [B, T] the targets shifted right by one, behind the start id; with a cache [R, 1]. R is
            B, or K times as many where the collection `encoded` is passed: row `b * K + k` reads input b.
          decoder_target_tokens: [B, T] ids, padding among them; not read if `decode`.
          encoder_segment_ids: [B, L] packed example of each token. Neither with a prompt in front of the row nor with
            `decode`.
          decoder_segment_ids: [B, T] packed example of each target; without those of the encoder, which of several
            targets of one input, where each sees no other and the whole input.
          encoder_positions: See `encode`.
          decoder_positions: See `encode`.
          enable_dropout: Whether to drop out; needs the rng `dropout`.
          decode: Whether to use the key/value cache (collection `cache`, mutable). A call without one creates it,
            empty, as long as its input; every later call takes one token. Where the collection `encoded` is mutable,
            the keys and values of attention to the encoder are put there; where it is passed, they are taken from
            there, and of `encoded` only the shape is read.
          max_decode_length: Accepted because T5X passes it; the cache knows its length.
          prompt_mask: As passed to `encode`.
          trimmed: See `__call__`.

        Returns:
          [R, T, V] float32.

        Raises:
          ConfigError: If segment ids come with a prompt in front of the row or with `decode`, or shapes do not fit.
        """
        del encoder_positions, decoder_positions, max_decode_length
        length = masks.prompt_length(encoded, encoder_input_tokens)
        if encoder_segment_ids is not None or decode:
            segments = (encoder_segment_ids, decoder_segment_ids)
            _check_packing(*segments, has_prompt=length > 0, decode=decode)
        pad = self.config.ids.pad
        is_real = masks.is_real_position(
            encoder_input_tokens, length, prompt_mask, encoder_segment_ids, pad=pad
        )
        if decode:
            self_mask = None
            # One query stands for all of a row: what is decoded is never padding.
            is_target = jnp.ones((encoded.shape[0], 1), jnp.bool_)
        else:
            self_mask = masks.decoder_mask(decoder_target_tokens, decoder_segment_ids, pad=pad)
            is_target = jnp.asarray(decoder_target_tokens) != pad
        cross_mask = masks.pairwise_mask(
            is_target, is_real, decoder_segment_ids, encoder_segment_ids
        )
        out = self.decoder(
            self.embed_targets(decoder_input_tokens),
            encoded,
            self_mask,
            cross_mask,
            deterministic=not enable_dropout,
            decode=decode,
            packed=decoder_segment_ids is not None,
            trimmed=trimmed,
        )
        return self.logits(out, narrow=decode)

    def embed_targets(self, ids: Int[Array, "R T"]) -> Float[jax.Array, "R T H"]:
        """Returns the embedded inputs of the decoder."""
        return self.token_embedder(ids)

    def logits(
        self, hidden: Float[jax.Array, "R T _"], *, narrow: bool
    ) -> Float[jax.Array, "R T V"]:
        """Returns float32 logits, given what the decoder returns.

        Args:
          hidden: Hidden states if the head is the embedding table, else logits.
          narrow: See `products.product`.
        """
        if not self.config.logits_via_embedding:
            return hidden
        return self.token_embedder.attend(hidden, narrow=narrow)


def _check_packing(*segment_ids: Array | None, has_prompt: bool, decode: bool = False) -> None:
    """Checks that segment ids come for all sides or for none, without a prompt in front and under teacher forcing."""
    if all(ids is None for ids in segment_ids):
        return
    if has_prompt:
        raise ConfigError(
            "A prompt would stand before the first of several packed examples only",
            got="segment ids and a prompt, without prompt_positions",
            expected="places for the prompt in front of each example, as prompt_tuning.train keeps them",
            fix="set pack = False in the DatasetConfig",
        )
    if decode:
        raise ConfigError(
            "Packed examples cannot be decoded",
            got="segment ids with decode=True",
            expected="no segment ids",
            fix="set pack = False in the DatasetConfig",
        )
    for side, ids in zip(("encoder", "decoder"), segment_ids, strict=False):
        if ids is None:
            raise ConfigError(
                "Packed examples need segment ids on both sides",
                got=f"no {side}_segment_ids",
                expected="encoder_segment_ids and decoder_segment_ids",
                fix=f"pass {side}_segment_ids",
            )
