"""Models of the transformers library compute here what they compute there."""

import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning import cli, tree
from prompt_tuning.models import config as model_config

pytest.importorskip("torch", reason="needs the extra [hf]")
pytest.importorskip("transformers", reason="needs the extra [hf]")

import transformers  # noqa: E402

from tests.parity import huggingface  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

# The families; everything else is compared in the slow tests.
DECODED = ("t5_1_0", "t5_1_1", "mt5", "umt5", "byt5", "ul2")


CASES = [(name, scan_layers) for name in huggingface.CASES for scan_layers in (False, True)]
SLOW = [(name, scan_layers) for name, scan_layers in CASES if scan_layers or name not in DECODED]


@pytest.mark.parametrize(
    ("name", "scan_layers"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES],
)
def test_logits_and_greedy_tokens_are_theirs(name, scan_layers, tmp_path):
    logits, tokens = huggingface.compare(name, tmp_path, scan_layers=scan_layers)
    assert "logits" in logits.name and logits.ok, logits
    assert "greedy" in tokens.name and tokens.ok, tokens


@pytest.mark.parametrize(("name", "form"), [("umt5", "shards"), ("t5_1_0", "bin")])
def test_every_way_of_saving_gives_the_same_parameters(name, form, tmp_path):
    model = huggingface.build(huggingface.CASES[name])
    params = {}
    for kind in ("safetensors", form):
        folder = tmp_path / kind
        folder.mkdir()
        huggingface.save(model, folder, form=kind)
        params[kind] = tree.flatten(huggingface.load(folder, scan_layers=False)[1])
    stored = {tensor.data_ptr(): tensor.numel() for tensor in model.parameters()}
    assert sum(x.size for x in params[form].values()) == sum(stored.values())
    assert list(params[form]) == list(params["safetensors"])
    for path, expected in params["safetensors"].items():
        np.testing.assert_array_equal(params[form][path], expected)


@pytest.mark.parametrize("name", ["t5_1_0", "t5_1_1", "mt5", "ul2"])
def test_transformers_computes_the_same_with_what_export_writes(name, tmp_path):
    case = huggingface.CASES[name]
    theirs = huggingface.build(case)
    huggingface.save(theirs, tmp_path)
    assert cli.main(["export", "--model", str(tmp_path), str(tmp_path / "out")]) == 0
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert type(again) is type(theirs)
    features = huggingface.batch(case.fields["vocab_size"])
    logits = huggingface.their_logits(theirs, features)
    difference = huggingface.logits_difference(
        logits, huggingface.their_logits(again, features), features
    )
    assert difference <= huggingface.LOGITS_TOLERANCE and np.abs(logits).max() > 1
    ids = again.generation_config
    assert (ids.pad_token_id, ids.eos_token_id, ids.decoder_start_token_id) == (0, 1, 0)


class Mistake:
    """A model with its parameters, in which one thing is made wrong."""

    def __init__(self, name: str, folder: pathlib.Path):
        case = huggingface.CASES[name]
        self.theirs = huggingface.build(case)
        huggingface.save(self.theirs, folder)
        self.features = huggingface.batch(case.fields["vocab_size"])
        self.model, params = huggingface.load(folder, scan_layers=False)
        self.params = {path: np.asarray(x) for path, x in tree.flatten(params).items()}

    def difference(self) -> float:
        """The largest difference of the logits from theirs."""
        # Compiled anew for each model: what a mistake changes may not be an argument.
        ours = jax.jit(lambda params: self.model.apply(params, self.features))(
            tree.unflatten(self.params)
        )
        theirs = huggingface.their_logits(self.theirs, self.features)
        return huggingface.logits_difference(np.asarray(ours), theirs, self.features)


def exact_gelu(mistake, monkeypatch):
    exact = {**model_config.ACTIVATIONS, "gelu": lambda x: nn.gelu(x, approximate=False)}
    monkeypatch.setattr("prompt_tuning.models.layers.ACTIVATIONS", exact)


def forget_rescaling(mistake, monkeypatch):
    monkeypatch.setattr("prompt_tuning.models.layers.math.sqrt", lambda _: 1.0)


def transpose_bias(mistake, monkeypatch):
    path = "decoder/relpos_bias/rel_embedding"
    table = mistake.params[path]
    mistake.params[path] = table.reshape(table.shape[::-1]).T


def swap_projections(mistake, monkeypatch):
    one, other = (f"encoder/layers_0/mlp/wi_{i}/kernel" for i in range(2))
    mistake.params[one], mistake.params[other] = mistake.params[other], mistake.params[one]


def share_bias(mistake, monkeypatch):
    first = "encoder/layers_0/relpos_bias/rel_embedding"
    mistake.params["encoder/layers_2/relpos_bias/rel_embedding"] = mistake.params[first]


def mix_heads(mistake, monkeypatch):
    path = "encoder/layers_1/attention/value/kernel"
    kernel = mistake.params[path]
    apart = kernel.reshape(kernel.shape[0], 8, 4)
    mistake.params[path] = apart.swapaxes(1, 2).reshape(kernel.shape)


def larger_epsilon(mistake, monkeypatch):
    monkeypatch.setattr("prompt_tuning.models.layers.NORM_EPSILON", 1e-3)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("t5_1_1", exact_gelu),
        ("t5_1_0", forget_rescaling),
        ("t5_1_0", transpose_bias),
        ("ul2", swap_projections),
        ("umt5", share_bias),
        ("t5_1_1", mix_heads),
        ("t5_1_1", larger_epsilon),
    ],
)
def test_the_comparison_sees_a_mistake(name, make, tmp_path, monkeypatch):
    mistake = Mistake(name, tmp_path)
    make(mistake, monkeypatch)
    assert mistake.difference() > 5 * huggingface.LOGITS_TOLERANCE
