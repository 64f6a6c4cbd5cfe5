"""A training step with random weights and batches, compiled and ready to be timed."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import int8
from prompt_tuning.params.names import PROMPT_REGEX
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run import steps
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_train_step
from prompt_tuning.types import Batch


@dataclasses.dataclass(frozen=True)
class Workload:
    """What one step works on.

    Attributes:
      batch_size: Examples.
      inputs: Tokens of an input (L).
      targets: Tokens of a target (T).
      prompt_length: Rows of the prompt (P).
      num_microbatches: Slices of the batch.
      remat_policy: See `T5Config`.
      frozen_dtype: In what the frozen weights are held.
    """

    batch_size: int = 32
    inputs: int = 512
    targets: int = 8
    prompt_length: int = 100
    num_microbatches: int = 1
    remat_policy: str = "none"
    frozen_dtype: str = "bfloat16"


class Step:
    """A compiled step that tunes a prompt, and its state.

    Args:
      config: The model; its `remat_policy` is the workload's.
      work: What the step works on.
    """

    def __init__(self, config: T5Config, work: Workload):
        config = dataclasses.replace(config, remat_policy=work.remat_policy)
        model = EncoderDecoderModel(T5(config, PromptConfig(work.prompt_length)), None, None)
        tx = Adafactor(multiply_by_parameter_scale=False).make(lambda step: 0.3)
        trainable, frozen = tree.split(jax.jit(model.init)(jax.random.key(0)), PROMPT_REGEX)
        self.frozen = tree.unflatten(int8.hold(tree.flatten(frozen), work.frozen_dtype))
        key = jax.random.key_data(jax.random.key(1))
        self._state = TrainState(jnp.int32(0), trainable, tx.init(trainable), key)
        self._batch = _random_batch(config, work)
        step = make_train_step(
            model.apply,
            tx,
            learning_rate_fn=lambda step: 0.3,
            loss_config=model.loss_config,
            num_microbatches=work.num_microbatches,
        )
        # The state is donated, as a run's is: its memory is used again.
        self._jitted = jax.jit(step, donate_argnums=0)
        self._compiled: dict[Any, Any] = {}
        began = time.perf_counter()
        self.compiled = self.compile(self._batch)
        self.compile_seconds = time.perf_counter() - began
        analysis = self.compiled.memory_analysis()
        assert analysis is not None, "CPUs and GPUs have one"
        self.temp_bytes: int = analysis.temp_size_in_bytes

    def compile(self, batch: Batch) -> Any:
        """Returns the step compiled for the shapes of a batch, once for all."""
        shapes = _shapes(batch)
        if shapes not in self._compiled:
            self._compiled[shapes] = steps.compiled(self._jitted, self._state, self.frozen, batch)
        return self._compiled[shapes]

    def take(self, batch: Batch) -> None:
        """Takes a step with a batch whose shapes were compiled for; does not wait for it."""
        compiled = self._compiled[_shapes(batch)]
        self._state, self._metrics = compiled(self._state, self.frozen, batch)

    def wait(self) -> None:
        """Waits until all steps are done."""
        jax.block_until_ready((self._state, self._metrics))

    def time(self, num_steps: int = 1) -> float:
        """Takes steps with one random batch; returns the seconds of one of them, on average."""
        began = time.perf_counter()
        for _ in range(num_steps):
            self.take(self._batch)
        self.wait()
        return (time.perf_counter() - began) / num_steps


def _shapes(batch: Batch) -> tuple[Any, ...]:
    """What a batch has to have in common with another to be computed by the same program."""
    return tuple((name, *x.shape) for name, x in sorted(batch.items()))


def _random_batch(config: T5Config, work: Workload) -> dict[str, jax.Array]:
    """Full rows of random ids."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> jax.Array:
        return jnp.asarray(rng.integers(3, config.vocab_size, (work.batch_size, length)), jnp.int32)

    return {
        "encoder_input_tokens": ids(work.inputs),
        "decoder_input_tokens": ids(work.targets),
        "decoder_target_tokens": ids(work.targets),
        "decoder_loss_weights": jnp.ones((work.batch_size, work.targets), jnp.int32),
    }
