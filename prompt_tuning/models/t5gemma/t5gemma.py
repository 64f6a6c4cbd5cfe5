"""T5Gemma and T5Gemma 2 (text only): called as T5 is, from which they differ by their parts."""

import jax
from jaxtyping import Float, Int

from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma import stacks
from prompt_tuning.models.t5gemma.config import T5GemmaConfig
from prompt_tuning.models.t5gemma.embedding import Embedder
from prompt_tuning.types import Array


class T5Gemma(T5):
    """T5Gemma, with or without a prompt: `encode`, `decode` and the calls are T5's.

    Parameters have T5's names where there is such a part, stacked as T5's where `config.scan_layers` says so; keys and
    values have fewer heads, norms a second name (`post_…`). `token_embedder` is the encoder's table, `decoder_embedder`
    the decoder's, to which the head is tied; T5Gemma 2 has the first alone.

    A prompt stands in front of the scaled embeddings. It takes positions 0..P-1, tokens follow; turning by positions
    depends on their differences only.

    Source: transformers 5, `models/t5gemma` and `models/t5gemma2`; google-deepmind/gemma, `research/t5gemma`. Differs:
      dropout, off in every checkpoint, shares its mask along a sequence, as T5's here.
    """

    config: T5GemmaConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        """Declares the parts that own parameters."""
        cfg = self.config
        encoder, decoder = cfg.stack("encoder"), cfg.stack("decoder")
        self.token_embedder = Embedder(encoder, cfg.eoi_token)
        if not cfg.merges_attention:
            self.decoder_embedder = Embedder(decoder, cfg.eoi_token)
        self.encoder = stacks.Encoder(encoder, self.prompt, self.method)
        self.decoder = stacks.Decoder(decoder, self.method)

    def embed_targets(self, ids: Int[Array, "R T"]) -> Float[jax.Array, "R T H"]:
        """Returns the embedded inputs of the decoder."""
        return self._decoders_table()(ids)

    def logits(
        self, hidden: Float[jax.Array, "R T H"], *, narrow: bool
    ) -> Float[jax.Array, "R T V"]:
        """Returns the float32 logits that the tied head makes of the decoder's hidden states."""
        return self._decoders_table().attend(hidden, self.config.logits_softcap, narrow=narrow)

    def _decoders_table(self) -> Embedder:
        """The table that the decoder reads and writes."""
        return self.token_embedder if self.config.merges_attention else self.decoder_embedder
