"""(IA)3 and LoRA in Hugging Face's PEFT against the same here, in both directions, on T5s with the same weights."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import peft

from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.run.method_start import arrays_of
from prompt_tuning.tree import flatten, unflatten
from tests.parity import huggingface
from tests.parity.rows import Row

LOGITS_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """Adapters of one architecture.

    Attributes:
      model: One of `huggingface.CASES`.
      method: What they are here.
      config: Settings of PEFT's configuration of that method.
    """

    model: str
    method: IA3 | LoRA
    config: dict[str, Any]


CASES = {
    # PEFT's defaults: [k, v, wo] with wo as feed-forward, whose input is scaled; for mT5 T-Few's form, [k, v, wi_1].
    "ia3/t5 default": Case("t5_1_1", IA3(), {}),
    "ia3/t5 1.0 default": Case("t5_1_0", IA3(), {}),
    "ia3/mt5 default": Case("mt5", IA3(), {}),
    "ia3/input of wi_1": Case(
        "t5_1_1",
        IA3(outputs=("key",), inputs=("wi_1",)),
        {"target_modules": ["k", "wi_1"], "feedforward_modules": ["wi_1"]},
    ),
    "ia3/some layers": Case(
        "t5_1_1",
        IA3(outputs=("query", "value"), inputs=("out",)),
        {
            "target_modules": r".*decoder.*(EncDecAttention\.q|SelfAttention\.[vo])",
            "feedforward_modules": r".*\.o",
            "fan_in_fan_out": True,
        },
    ),
    "lora/default": Case("t5_1_0", LoRA(), {}),
    "lora/some layers": Case(
        "t5_1_1",
        LoRA(
            rank=3,
            alpha=5,
            dropout=0.1,
            targets=(
                "decoder/encoder_decoder_attention/query",
                "decoder/self_attention/(value|out)",
            ),
        ),
        {
            "target_modules": r".*decoder.*(EncDecAttention\.q|SelfAttention\.[vo])",
            "r": 3,
            "lora_alpha": 5,
            "lora_dropout": 0.3,
        },
    ),
    # What PEFT gives one layer alone is the same function with columns of zeros.
    "lora/patterns": Case(
        "mt5",
        LoRA(
            targets=(".*/query", ".*/wi_1"),
            rank=4,
            alpha=6,
            rank_stabilised=True,
            rank_pattern=((".*/wi_1", 2),),
            alpha_pattern=(("encoder/mlp/wi_1", 3),),
        ),
        {
            "target_modules": ["q", "wi_1"],
            "r": 4,
            "lora_alpha": 6,
            "use_rslora": True,
            "rank_pattern": {"encoder.block.1.layer.0.SelfAttention.q": 3, "wi_1": 2},
            "alpha_pattern": {r"encoder\.block\.\d+\.layer\.1\.DenseReluDense\.wi_1": 3},
        },
    ),
}


def their_model(case: Case) -> Any:
    """Returns PEFT's model with an adapter of random numbers."""
    kind = peft.IA3Config if isinstance(case.method, IA3) else peft.LoraConfig
    config = kind(task_type="SEQ_2_SEQ_LM", **case.config)
    adapted: Any = peft.get_peft_model(huggingface.build(huggingface.CASES[case.model]), config)
    rng = np.random.default_rng(3)
    for name, value in adapted.named_parameters():
        if "ia3_l" in name:
            value.data = value.data.new_tensor(rng.uniform(0.5, 1.5, tuple(value.shape)))
        elif "lora_" in name:
            value.data = value.data.new_tensor(rng.normal(0, 0.3, tuple(value.shape)))
    return adapted.eval()


def ours(case: Case, folder: pathlib.Path) -> tuple[EncoderDecoderModel, dict[str, Any]]:
    """Returns our model with the method, and the frozen parameters, through their model saved in `folder`."""
    if not folder.exists():
        huggingface.save(huggingface.build(huggingface.CASES[case.model]), folder)
    model, params = huggingface.load(folder, scan_layers=False)
    module = model.module.clone(method=case.method)
    return dataclasses.replace(model, module=module), flatten(params)


def logits(model: EncoderDecoderModel, flat: dict[str, Any], features: dict) -> np.ndarray:
    """Returns the logits [B, T, V] of our model."""
    return np.asarray(jax.jit(model.apply)(unflatten(flat), features))


def compare_case(name: str, folder: pathlib.Path) -> Iterator[Row]:
    """Yields the rows of one case: an adapter of PEFT's read here, and written here and read there."""
    case = CASES[name]
    model, frozen = ours(case, folder / "model")
    features = huggingface.batch(huggingface.CASES[case.model].fields["vocab_size"])
    adapted = their_model(case)
    adapted.save_pretrained(folder / "theirs")
    found = read_set(folder / "theirs")
    params = arrays_of(model, found, "METHOD_FILE")
    read = logits(model, {**frozen, **params}, features)
    theirs = huggingface.their_logits(adapted, features)
    difference = huggingface.logits_difference(read, theirs, features)
    yield Row(f"peft/{name}/read here", difference, LOGITS_TOLERANCE)

    whole = MethodSet(params, {METHOD: case.method.describe()})
    write_set(folder / "ours", whole, file_format="peft")
    plain = huggingface.build(huggingface.CASES[case.model])
    written = peft.PeftModel.from_pretrained(plain, str(folder / "ours")).eval()
    difference = huggingface.logits_difference(
        read, huggingface.their_logits(written, features), features
    )
    yield Row(f"peft/{name}/written here", difference, LOGITS_TOLERANCE)
    again = arrays_of(model, read_set(folder / "ours"), "METHOD_FILE")
    wrong = sum(int((again[path] != x).sum()) for path, x in params.items())
    yield Row(f"peft/{name}/bits after a round trip", wrong, 0, "count")


def comparisons() -> Iterator[Row]:
    """Yields every comparison with PEFT."""
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield from compare_case(name, pathlib.Path(folder))
