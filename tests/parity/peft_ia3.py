"""(IA)3 in Hugging Face's PEFT against the same factors here, in both directions, on T5s with the same weights."""

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
      config: Settings of PEFT's `IA3Config`.
    """

    model: str
    method: IA3
    config: dict[str, Any]


CASES = {
    # PEFT's defaults: [k, v, wo] with wo as feed-forward, whose input is scaled; for mT5 T-Few's form, [k, v, wi_1].
    "t5 default": Case("t5_1_1", IA3(), {}),
    "t5 1.0 default": Case("t5_1_0", IA3(), {}),
    "mt5 default": Case("mt5", IA3(), {}),
    "input of wi_1": Case(
        "t5_1_1",
        IA3(outputs=("key",), inputs=("wi_1",)),
        {"target_modules": ["k", "wi_1"], "feedforward_modules": ["wi_1"]},
    ),
    "some layers": Case(
        "t5_1_1",
        IA3(outputs=("query", "value"), inputs=("out",)),
        {
            "target_modules": r".*decoder.*(EncDecAttention\.q|SelfAttention\.[vo])",
            "feedforward_modules": r".*\.o",
            "fan_in_fan_out": True,
        },
    ),
}


def their_model(case: Case) -> Any:
    """Returns PEFT's model with an adapter of random factors."""
    config = peft.IA3Config(task_type="SEQ_2_SEQ_LM", **case.config)
    adapted: Any = peft.get_peft_model(huggingface.build(huggingface.CASES[case.model]), config)
    rng = np.random.default_rng(3)
    for name, value in adapted.named_parameters():
        if "ia3_l" in name:
            drawn = rng.uniform(0.5, 1.5, tuple(value.shape))
            value.data = value.data.new_tensor(drawn)
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
    yield Row(f"peft/ia3/{name}/read here", difference, LOGITS_TOLERANCE)

    whole = MethodSet(params, {METHOD: case.method.describe()})
    write_set(folder / "ours", whole, file_format="peft")
    plain = huggingface.build(huggingface.CASES[case.model])
    written = peft.PeftModel.from_pretrained(plain, str(folder / "ours")).eval()
    difference = huggingface.logits_difference(
        read, huggingface.their_logits(written, features), features
    )
    yield Row(f"peft/ia3/{name}/written here", difference, LOGITS_TOLERANCE)
    again = arrays_of(model, read_set(folder / "ours"), "METHOD_FILE")
    wrong = sum(int((again[path] != x).sum()) for path, x in params.items())
    yield Row(f"peft/ia3/{name}/bits after a round trip", wrong, 0, "count")


def comparisons() -> Iterator[Row]:
    """Yields every comparison with PEFT."""
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield from compare_case(name, pathlib.Path(folder))
