"""Real adapters of PEFT for methods; skipped where the extra `[hf]` is not installed."""

import numpy as np
import pytest

peft = pytest.importorskip("peft", reason="PEFT comes with the extra [hf]")
torch = pytest.importorskip("torch", reason="PyTorch comes with the extra [hf]")

from prompt_tuning.checkpoints.method_files.read import read_set  # noqa: E402
from prompt_tuning.errors import CheckpointError  # noqa: E402
from prompt_tuning.models.methods.ia3 import IA3  # noqa: E402
from prompt_tuning.run.method_start import arrays_of  # noqa: E402
from tests.parity import huggingface  # noqa: E402
from tests.parity import peft_methods as parity  # noqa: E402

# PEFT asks for a property that transformers 5 has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True"),
    pytest.mark.usefixtures("one_thread"),
]


# What each of the others adds to these is one setting.
BY_DEFAULT = ("ia3/some layers", "lora/patterns")


@pytest.mark.parametrize(
    "name",
    [
        name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow)
        for name in parity.CASES
    ],
)
def test_the_same_numbers_predict_the_same(name, tmp_path):
    rows = list(parity.compare_case(name, tmp_path))
    assert len(rows) == 3
    assert not [row for row in rows if not row.ok]


def test_factors_of_other_maps_say_what_to_bind(tmp_path):
    case = parity.CASES["ia3/input of wi_1"]
    parity.their_model(case).save_pretrained(tmp_path / "adapter")
    model, frozen = parity.ours(
        parity.Case(case.model, IA3(outputs=("key",)), {}), tmp_path / "model"
    )
    found = read_set(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"bind methods.IA3.inputs = \['wi_1'\]"):
        arrays_of(model, found, "METHOD_FILE")
    # Factors that were left out would show.
    features = huggingface.batch(96)
    right, _ = parity.ours(case, tmp_path / "model")
    params = arrays_of(right, found, "METHOD_FILE")
    ones = {path: np.ones_like(x) for path, x in params.items()}
    difference = huggingface.logits_difference(
        parity.logits(right, {**frozen, **params}, features),
        parity.logits(right, {**frozen, **ones}, features),
        features,
    )
    assert difference > 100 * parity.LOGITS_TOLERANCE


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (peft.AdaLoraConfig(total_step=9, target_modules=["q"]), "peft_type ADALORA"),
        (peft.LoraConfig(use_dora=True, target_modules=["q"]), "more than LoRA: use_dora"),
        (peft.LoraConfig(modules_to_save=["shared"], target_modules=["q"]), "modules_to_save"),
        (peft.LoraConfig(init_lora_weights="pissa", target_modules=["q"]), "init_lora_weights"),
    ],
)
def test_what_is_not_here_is_refused_by_name(tmp_path, config, text):
    config.task_type = "SEQ_2_SEQ_LM"
    model = huggingface.build(huggingface.CASES["t5_1_0"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=text):
        read_set(tmp_path)
