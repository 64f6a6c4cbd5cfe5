"""Prompts in Hugging Face's PEFT against the same prompts here, in both directions, on T5 models with the same weights.

PEFT has its models from the transformers library; `huggingface.py` compares those without a prompt.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import peft
import torch

from prompt_tuning.checkpoints.prompt_files import read as prompt_formats
from prompt_tuning.checkpoints.prompt_files import write as prompt_writer
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.tree import flatten, unflatten
from tests.parity import huggingface
from tests.parity.rows import Row

PROMPT_LENGTH = 6
LOGITS_TOLERANCE = 1e-4
CASES = ("t5_1_0", "t5_1_1", "mt5")
# Stacks that an adapter holds a prompt for: PEFT's default for T5 is 2, although it only uses the encoder's.
STACKS = {1: "trained there", 2: "trained there for two stacks"}


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our model of one case with a prompt that is passed in, and features for both sides."""

    model: Any
    params: Any
    features: dict[str, np.ndarray]

    @functools.cached_property
    def _compiled(self) -> Any:
        """(params, features) -> logits [B, T, V] and greedily decoded tokens [B, NUM_DECODED]."""

        def run(params, features):
            tokens, _ = self.model.predict(params, features, huggingface.NUM_DECODED)
            return self.model.apply(params, features), tokens

        return jax.jit(run)

    def run(self, prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits [B, T, V] and the tokens [B, NUM_DECODED] with a prompt."""
        params = unflatten({**flatten(self.params), PROMPT_PATH: prompt})
        logits, tokens = self._compiled(params, self.features)
        return np.asarray(logits), np.asarray(tokens)


def load_ours(name: str, folder: pathlib.Path) -> Ours:
    """Returns our model of one of `huggingface.CASES`, through their model saved in `folder`."""
    case = huggingface.CASES[name]
    huggingface.save(huggingface.build(case), folder)
    model, params = huggingface.load(folder, scan_layers=False)
    module = model.module.clone(prompt=PromptConfig(length=PROMPT_LENGTH))
    model = dataclasses.replace(model, module=module)
    return Ours(model, params, huggingface.batch(case.fields["vocab_size"]))


def draw_prompt(width: int) -> np.ndarray:
    """Returns a random prompt [PROMPT_LENGTH, H] as large as embedded tokens are."""
    rng = np.random.default_rng(2)
    return rng.standard_normal((PROMPT_LENGTH, width)).astype(np.float32)


def train_adapter(
    model: Any, features: dict[str, np.ndarray], folder: pathlib.Path, *, stacks: int
) -> Any:
    """Trains an adapter in PEFT for two steps and saves it in `folder`; returns PEFT's model."""
    config = peft.PromptTuningConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM,
        num_virtual_tokens=PROMPT_LENGTH,
        num_transformer_submodules=stacks,
    )
    torch.manual_seed(stacks)
    adapted: Any = peft.get_peft_model(model, config)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    inputs = torch.from_numpy(features["encoder_input_tokens"]).long()
    targets = torch.from_numpy(features["decoder_target_tokens"]).long()
    labels = targets.masked_fill(targets == 0, -100)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels).loss.backward()
        optimizer.step()
    adapted.save_pretrained(folder)
    return adapted.eval()


def compare(name: str, ours: Ours, adapted: Any, prompt: np.ndarray) -> Iterator[Row]:
    """Yields the rows of PEFT's model with an adapter against ours with a prompt."""
    logits, tokens = ours.run(prompt)
    difference = huggingface.logits_difference(
        logits, huggingface.their_logits(adapted, ours.features), ours.features
    )
    yield Row(f"peft/logits/{name}", difference, LOGITS_TOLERANCE)
    wrong = int((tokens != huggingface.their_tokens(adapted, ours.features)).sum())
    yield Row(f"peft/greedy tokens/{name}", wrong, 0, "count")


def compare_case(name: str, folder: pathlib.Path) -> Iterator[Row]:
    """Yields the rows of one model: a prompt exported to PEFT, read back, and adapters that PEFT trained."""
    ours = load_ours(name, folder / "model")
    case = huggingface.CASES[name]
    prompt = draw_prompt(ours.model.config.emb_dim)
    exported = folder / "exported"
    prompt_writer.write_prompt(exported, prompt, {}, file_format="peft")
    adapted = peft.PeftModel.from_pretrained(huggingface.build(case), str(exported))
    yield from compare(f"{name}/exported", ours, adapted.eval(), prompt)
    read, _ = prompt_formats.load_prompt(exported)
    wrong = int((read.view(np.uint32) != prompt.view(np.uint32)).sum())
    yield Row(f"peft/bits after a round trip/{name}", wrong, 0, "count")
    for stacks, label in STACKS.items():
        trained = folder / f"trained_{stacks}"
        model = huggingface.build(case)
        adapted = train_adapter(model, ours.features, trained, stacks=stacks)
        prompt, _ = prompt_formats.load_prompt(trained)
        yield from compare(f"{name}/{label}", ours, adapted, prompt)


def comparisons() -> Iterator[Row]:
    """Yields every comparison with PEFT."""
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield from compare_case(name, pathlib.Path(folder))
