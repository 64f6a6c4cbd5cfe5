"""Real adapters of PEFT; skipped where the extra `[hf]` is not installed."""

import dataclasses
import re

import numpy as np
import pytest

peft = pytest.importorskip("peft", reason="PEFT comes with the extra [hf]")
torch = pytest.importorskip("torch", reason="PyTorch comes with the extra [hf]")

from prompt_tuning.checkpoints.prompt_files import read  # noqa: E402
from prompt_tuning.checkpoints.prompt_files import write as prompt_writer  # noqa: E402
from prompt_tuning.errors import CheckpointError  # noqa: E402
from tests.helpers import REPO, train_sentencepiece  # noqa: E402
from tests.parity import huggingface  # noqa: E402
from tests.parity import peft as parity  # noqa: E402

# PEFT asks for a property that transformers 5 has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("name", parity.CASES)
def test_the_same_prompt_predicts_the_same(name, tmp_path):
    rows = list(parity.compare_case(name, tmp_path))
    assert len(rows) == 7
    assert not [row for row in rows if not row.ok]


def test_the_comparison_sees_a_prompt_that_is_left_out_or_out_of_order():
    model = huggingface.build(huggingface.CASES["t5_1_1"])
    features = huggingface.batch(model.config.vocab_size)
    prompt = parity.draw_prompt(model.config.d_model)
    without = huggingface.their_logits(model, features)

    def adapted(rows):
        config = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=parity.PROMPT_LENGTH,
            num_transformer_submodules=1,
        )
        wrapped = peft.get_peft_model(huggingface.build(huggingface.CASES["t5_1_1"]), config)
        weight = wrapped.prompt_encoder["default"].embedding.weight
        weight.data = weight.data.new_tensor(rows)
        return huggingface.their_logits(wrapped.eval(), features)

    right = adapted(prompt)
    for other in (without, adapted(prompt[::-1].copy())):
        difference = huggingface.logits_difference(right, other, features)
        assert difference > 100 * parity.LOGITS_TOLERANCE


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q"]),
        peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_of_other_kinds_are_refused_by_name(config, tmp_path):
    model = huggingface.build(huggingface.CASES["t5_1_1"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"peft_type {config.peft_type.value}'"):
        read.load_prompt(tmp_path)


def test_an_adapter_in_pytorchs_own_format_loads(tmp_path):
    model = huggingface.build(huggingface.CASES["t5_1_1"])
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / "adapter_model.bin").is_file()
    prompt, info = read.load_prompt(tmp_path)
    expected = wrapped.get_prompt(batch_size=1)[0, :3].detach().numpy()
    np.testing.assert_array_equal(prompt, expected)
    assert info is None


def test_a_pickle_that_holds_more_than_tensors_is_not_opened(tmp_path):
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, token_dim=4)
    config.save_pretrained(tmp_path)
    torch.save({"prompt_embeddings": print}, tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin as a file of tensors"):
        read.load_prompt(tmp_path)


def test_what_peft_saves_of_an_export_is_the_prompt_alone(tmp_path):
    model = huggingface.build(huggingface.CASES["t5_1_1"])
    prompt = parity.draw_prompt(model.config.d_model)
    prompt_writer.write_prompt(tmp_path / "a", prompt, {"step": 3}, file_format="peft")
    wrapped = peft.PeftModel.from_pretrained(model, str(tmp_path / "a"))
    wrapped.save_pretrained(tmp_path / "b")
    again, info = read.load_prompt(tmp_path / "b")
    np.testing.assert_array_equal(again, prompt)
    assert info is None


def test_the_lines_of_the_documents_predict_with_an_export(tmp_path, capsys):
    text = (REPO / "docs/use/prompts.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    case = huggingface.CASES["t5_1_1"]
    # T5's tokenizer adds 100 ids to the 256 of the vocabulary.
    case = dataclasses.replace(case, fields={**case.fields, "vocab_size": 356})
    model = huggingface.build(case)
    huggingface.save(model, tmp_path / "model")
    train_sentencepiece(tmp_path / "model" / "spiece.model")
    prompt = parity.draw_prompt(model.config.d_model)
    prompt_writer.write_prompt(tmp_path / "adapter", prompt, {}, file_format="peft")
    name = "google/t5-base-lm-adapt"
    assert name in block
    block = block.replace(name, str(tmp_path / "model")).replace("/path/to", str(tmp_path))
    names: dict = {}
    exec(compile(block, "docs/use/prompts.md", "exec"), names)
    assert names["ids"].shape[0] == 1 and names["ids"].shape[1] > 1
    assert capsys.readouterr().out.startswith("[")
