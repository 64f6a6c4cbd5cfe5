"""The gin files of released checkpoints: sizes, parameter counts, vocabularies, and what their config.json says."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface_config
from prompt_tuning.config import files as config_files
from prompt_tuning.config import model_files
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5
from prompt_tuning.types import SpecialIds
from tests import both_layouts
from tests.gin_runs import CONFIGS, DEMO_TRAIN, resolve
from tests.parity import t5gemma_counts

# Parameters of the released checkpoints.
TOTALS = {
    "t5_1_0_small": 60_506_624,
    "t5_1_0_base": 222_903_552,
    "t5_1_0_large": 737_668_096,
    "t5_1_0_3b": 2_851_598_336,
    "t5_1_0_11b": 11_307_321_344,
    # Lester et al. 2021, table 4 (totals minus the prompt).
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "umt5_small": 306_601_984,
    "umt5_base": 592_043_520,
    "umt5_xl": 3_768_356_864,
    "umt5_xxl": 12_972_531_712,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
    "ul2": 19_459_613_696,
    "madlad400_3b": 2_940_374_016,
    "madlad400_7b": 8_296_829_952,
    "madlad400_10b": 10_712_586_240,
}
# What the released config.json has; fields that equal the family's defaults may be missing there.
RELEASED = {
    "t5_1_0_small": {
        **{"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048},
        **{"num_layers": 6, "num_heads": 8, "relative_attention_num_buckets": 32},
    },
    "t5_1_0_11b": {
        **{"model_type": "t5", "vocab_size": 32128, "d_model": 1024, "d_kv": 128, "d_ff": 65536},
        **{"num_layers": 24, "num_heads": 128, "eos_token_id": 1, "decoder_start_token_id": 0},
    },
    "t5_1_1_xxl": {
        **{"model_type": "t5", "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240},
        **{"num_layers": 24, "num_decoder_layers": 24, "num_heads": 64},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
    "mt5_small": {
        **{"model_type": "mt5", "vocab_size": 250112, "d_model": 512, "d_kv": 64, "d_ff": 1024},
        **{"num_layers": 8, "num_decoder_layers": 8, "num_heads": 6},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
    "umt5_base": {
        **{"model_type": "umt5", "vocab_size": 256384, "d_model": 768, "d_kv": 64, "d_ff": 2048},
        **{"num_layers": 12, "num_heads": 12, "dense_act_fn": "gelu_new", "is_gated_act": True},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
    "byt5_base": {
        **{"model_type": "t5", "vocab_size": 384, "d_model": 1536, "d_kv": 64, "d_ff": 3968},
        **{"num_layers": 18, "num_decoder_layers": 6, "num_heads": 12},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
    # Aya-101's.
    "mt5_xxl": {
        **{"model_type": "t5", "vocab_size": 250112, "d_model": 4096, "d_kv": 64, "d_ff": 10240},
        **{"num_layers": 24, "num_decoder_layers": 24, "num_heads": 64, "dense_act_fn": "gelu_new"},
        **{"feed_forward_proj": "gated-gelu", "is_gated_act": True, "tie_word_embeddings": False},
    },
    # UL2's and Flan-UL2's, which say nothing of the head.
    "ul2": {
        **{"model_type": "t5", "vocab_size": 32128, "d_model": 4096, "d_kv": 256, "d_ff": 16384},
        **{"num_layers": 32, "num_decoder_layers": 32, "num_heads": 16, "dense_act_fn": "silu"},
        **{"feed_forward_proj": "gated-silu", "is_gated_act": True, "decoder_start_token_id": 0},
    },
    "madlad400_3b": {
        **{"model_type": "t5", "vocab_size": 256000, "d_model": 1024, "d_kv": 128, "d_ff": 8192},
        **{
            "num_layers": 32,
            "num_decoder_layers": 32,
            "num_heads": 16,
            "tie_word_embeddings": False,
        },
        **{"feed_forward_proj": "gated-gelu", "pad_token_id": 1, "eos_token_id": 2},
    },
    "madlad400_7b": {
        **{"model_type": "t5", "vocab_size": 256000, "d_model": 2048, "d_kv": 128, "d_ff": 8192},
        **{
            "num_layers": 48,
            "num_decoder_layers": 48,
            "num_heads": 16,
            "tie_word_embeddings": False,
        },
        **{"feed_forward_proj": "gated-gelu", "pad_token_id": 1, "eos_token_id": 2},
    },
    "madlad400_10b": {
        **{"model_type": "t5", "vocab_size": 256000, "d_model": 2048, "d_kv": 128, "d_ff": 16384},
        **{
            "num_layers": 32,
            "num_decoder_layers": 32,
            "num_heads": 32,
            "tie_word_embeddings": False,
        },
        **{"feed_forward_proj": "gated-gelu", "pad_token_id": 1, "eos_token_id": 2},
    },
}
# Of transformers' classes; all sizes are counted by tests/parity/t5gemma_counts.py.
T5GEMMA_TOTALS = {
    ("t5gemma", "s"): 312_517_632,
    ("t5gemma", "9b"): 20_333_401_088,
    ("t5gemma2", "4b"): 7_089_276_416,
}
T5GEMMA_SIZES = {
    "t5gemma": ["s", "b", "l", "ml", "xl", "2b", "9b"],
    "t5gemma2": ["270m", "1b", "4b"],
}
SETTINGS = {k: v for k, v in DEMO_TRAIN.items() if k != "CLASS_LABELS"}


def resolve_model(name, run="prompt_finetune"):
    files = [f"{CONFIGS}/models/{name}.gin", f"{CONFIGS}/runs/{run}.gin"]
    resolved = resolve(files, SETTINGS)
    assert resolved.warnings == ()
    return resolved.arguments()["model"]


class Stored(NamedTuple):
    """The shapes of a stored model."""

    params: Mapping[str, Any]
    path: str = "a checkpoint"

    def shapes(self):
        """Path -> (shape, dtype)."""
        return {path: (leaf.shape, leaf.dtype) for path, leaf in self.params.items()}


def shapes_of(config: T5Config) -> list[dict[str, Any]]:
    """Of the model's parameters, scanned and unscanned, made of the scanned ones, which trace one layer only."""
    ids = np.ones((1, 1), np.int32)
    model = T5(T5Config(**{**vars(config), "scan_layers": True}))
    init = lambda rng: model.init({"params": rng}, ids, ids, ids, enable_dropout=False)  # noqa: E731
    scanned = tree.flatten(jax.eval_shape(init, jax.random.key(0))["params"])
    to_unscanned = lambda params: both_layouts.to_unscanned(  # noqa: E731
        params, relative_bias_per_layer=config.relative_bias_per_layer
    )
    return [scanned, jax.eval_shape(to_unscanned, scanned)]


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_each_model_has_its_checkpoints_parameters_with_a_prompt_and_without(name):
    model, plain = resolve_model(f"{name}_prompt"), resolve_model(name, "model_finetune")
    layouts = shapes_of(model.config)
    assert sum(math.prod(leaf.shape) for leaf in layouts[1].values()) == TOTALS[name]
    found = [model_files.find_model_file(Stored(layout)) for layout in layouts]  # pyright: ignore[reportArgumentType]
    assert found == [f"{CONFIGS}/models/{name}_prompt.gin"] * 2
    assert model.prompt.length == 100 and plain.prompt is None
    # Model tuning keeps one relative position table a stack.
    assert plain.config == dataclasses.replace(model.config, scan_layers=False)
    assert plain.input_vocabulary == model.input_vocabulary


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_each_model_is_what_its_config_json_says(name):
    config = resolve_model(f"{name}_prompt").config
    settings = huggingface_config.t5_settings(RELEASED[name])
    assert len(settings) == (13 if name.startswith("madlad400") else 12)
    assert T5Config(**{**vars(config), **settings}) == config
    huggingface_config.check_settings(settings, config, path="/model")


def test_every_shipped_model_is_counted():
    names = {p.stem for p in config_files.PACKAGE_CONFIGS.joinpath("models").glob("*.gin")}
    families = {"t5_1_0", "t5_1_1", "mt5", "umt5", "byt5", "madlad400"}
    gemmas = {f"{f}_{size}" for f, sizes in T5GEMMA_SIZES.items() for size in sizes}
    expected = TOTALS.keys() | families | gemmas | T5GEMMA_SIZES.keys()
    assert names == {f"{name}_prompt" for name in expected}


@pytest.mark.parametrize(("family", "size"), T5GEMMA_TOTALS)
def test_each_t5gemma_has_its_checkpoints_parameters(family, size):
    config = t5gemma_counts.config_of(family, size)
    assert t5gemma_counts.count(config)["total"] == T5GEMMA_TOTALS[family, size]
    # Whether it is spread goes by size.
    assert config.scan_layers is (size != "s") and config.ids.start == 2


def test_vocabularies_are_those_of_the_checkpoints():
    vocabulary = resolve_model("byt5_small_prompt").input_vocabulary
    assert type(vocabulary).__name__ == "ByteVocabulary"
    assert vocabulary.vocab_size == 259 and vocabulary.decode(vocabulary.encode("ü")) == "ü"
    vocabulary = resolve_model("mt5_small_prompt").input_vocabulary
    assert vocabulary.sentencepiece_model_file.endswith("mc4.250000.100extra/sentencepiece.model")
    vocabulary = resolve_model("umt5_small_prompt").input_vocabulary
    assert vocabulary.extra_ids == 300
    assert vocabulary.sentencepiece_model_file.endswith("umt5.256000/sentencepiece.model")


def test_a_t5_may_have_other_special_ids():
    """As MADLAD-400's config.json asks for."""
    ids = {"pad": "1", "eos": "2"}
    bindings = {
        "network.T5Config.special_ids": "@network.SpecialIds()",
        **{f"network.SpecialIds.{name}": value for name, value in ids.items()},
    }
    files = [f"{CONFIGS}/models/t5_1_1_small_prompt.gin", f"{CONFIGS}/runs/prompt_finetune.gin"]
    config = resolve(files, {**SETTINGS, **bindings}).arguments()["model"].config
    assert config.ids == SpecialIds(pad=1, eos=2)
    settings = huggingface_config.t5_settings(
        {**RELEASED["t5_1_1_xxl"], "pad_token_id": 1, "eos_token_id": 2}
    )
    assert settings["special_ids"] == dataclasses.asdict(config.ids)
    with pytest.raises(CheckpointError, match=r"network.SpecialIds.pad = 1"):
        plain = dataclasses.replace(config, special_ids=None)
        huggingface_config.check_settings(settings, plain, path="/model")
