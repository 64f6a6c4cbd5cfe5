"""T5Gemma's folders: what their config.json says, which tensors they have, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.formats import huggingface_config, huggingface_t5gemma
from prompt_tuning.checkpoints.formats.huggingface import HuggingFaceSource
from prompt_tuning.checkpoints.load import load_params
from prompt_tuning.checkpoints.source import embedding_scale
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma.config import T5GemmaConfig
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.params.names import DECODER_EMBEDDING
from tests import both_layouts
from tests.helpers import tiny_config
from tests.models.t5gemma.tiny import config_json, random_params, tiny_t5gemma, write_t5gemma

IMAGES = {
    "model.encoder.vision_tower.head.probe": np.zeros(2, np.float32),
    "model.encoder.multi_modal_projector.mm_soft_emb_norm.weight": np.zeros(2, np.float32),
}


@pytest.mark.parametrize("merges_attention", [False, True])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_every_tensor_arrives_in_both_layouts(tmp_path, merges_attention, scan_layers):
    config = tiny_t5gemma(merges_attention=merges_attention, scan_layers=scan_layers)
    unscanned = dataclasses.replace(config, scan_layers=False)
    source = HuggingFaceSource(
        write_t5gemma(tmp_path, unscanned, **(IMAGES if merges_attention else {}))
    )
    assert source.settings is not None
    assert T5GemmaConfig(**{**source.settings, "dtype": "float32"}) == dataclasses.replace(
        unscanned, special_ids=config.ids
    )
    huggingface_config.check_settings(source.settings, config, path=tmp_path)
    assert embedding_scale(source) == config.embedding_scale == 32**0.5
    shapes = EncoderDecoderModel(T5Gemma(config), None, None).param_shapes
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loaded = load_params(source, shapes, dict.fromkeys(shapes, where), model_shapes=shapes)
    if scan_layers:
        loaded = both_layouts.to_unscanned(loaded)
    expected = random_params(unscanned)
    assert set(loaded) == set(expected)
    for path, x in expected.items():
        np.testing.assert_array_equal(loaded[path], x, err_msg=path)


def test_older_files_say_the_same_of_rotations():
    config = config_json(tiny_t5gemma(merges_attention=True))
    stack = config["decoder"]
    newer = huggingface_t5gemma.settings(config)
    assert newer["decoder"]["rope_factor"] == 4
    del stack["rope_parameters"], stack["layer_types"]
    stack |= {"rope_theta": 1e6, "rope_local_base_freq": 10_000.0, "sliding_window_pattern": 2}
    stack["rope_scaling"] = {"type": "linear", "factor": 4.0}
    # The encoder's own stands for the model's.
    config["encoder"]["eoi_token_index"], config["eoi_token_index"] = (
        config["eoi_token_index"],
        None,
    )
    assert huggingface_t5gemma.settings(config) == newer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_activation", "silu"),
        ("attention_bias", True),
        ("layer_types", ["full_attention"]),
        ("rope_parameters", {"rope_theta": 1e4, "rope_type": "yarn"}),
        ("num_key_value_heads", "2"),
        ("bos_token_id", None),
    ],
)
def test_what_no_model_here_has_is_named(field, value):
    config = config_json(tiny_t5gemma())
    config["decoder"][field] = value
    with pytest.raises(CheckpointError, match=f"decoder.{field} in config.json"):
        huggingface_t5gemma.settings(config)


def test_a_head_that_was_trained_apart_is_refused(tmp_path):
    config = tiny_t5gemma()
    with pytest.raises(
        CheckpointError, match="tie_word_embeddings in config.json.*decoder's table"
    ):
        huggingface_t5gemma.settings({**config_json(config), "tie_word_embeddings": False})
    head = {huggingface_t5gemma.HEADS[0]: np.zeros((256, 32), np.float32)}
    source = HuggingFaceSource(write_t5gemma(tmp_path, config, **head))
    with pytest.raises(CheckpointError, match="trained apart"):
        source.read(DECODER_EMBEDDING)


def test_a_folder_without_weights_says_where_to_accept_the_licence(tmp_path):
    write_t5gemma(tmp_path, tiny_t5gemma())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="licence.*huggingface.co/google"):
        HuggingFaceSource(tmp_path)


def test_a_model_that_computes_something_else_is_refused(tmp_path):
    config = tiny_t5gemma()
    settings = huggingface_t5gemma.settings(config_json(config))
    encoder = dataclasses.replace(config.encoder, window=5, rope_factor=8.0, query_scalar=9)
    other = dataclasses.replace(config, encoder=encoder, logits_softcap=None)
    with pytest.raises(CheckpointError) as error:
        huggingface_config.check_settings(settings, other, path=tmp_path)
    # All at once: a released folder may differ from its size's gin file in several.
    for binding in ("window = 4", "rope_factor = 1.0", "query_scalar = 6"):
        assert f"encoder/network.T5GemmaStack.{binding}" in str(error.value)
    assert "network.T5GemmaConfig.logits_softcap = 6.0" in str(error.value)
    with pytest.raises(CheckpointError, match=r"another family.*models/t5gemma_"):
        huggingface_config.check_settings(settings, T5(tiny_config()).config, path=tmp_path)
