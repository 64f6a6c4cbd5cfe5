"""Names, parts, copies of the embedding, and what of config.json has no shape."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.formats import huggingface_config
from prompt_tuning.checkpoints.formats.huggingface import HuggingFaceSource
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.config import T5Config
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.huggingface_writer import CONFIG, make_tensors, write_model
from tests.models.conftest import param_shapes

RESCALED = {"tie_word_embeddings": True}


def load(source, config):
    shapes = param_shapes(config)
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    return initial.load_params(source, shapes, shardings, model_shapes=shapes)


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("num_shards", [0, 3])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_every_parameter_is_loaded_from_its_tensor(tmp_path, num_shards, dtype, scan_layers):
    tensors = make_tensors(dtype)
    source = open_source(write_model(tmp_path, tensors, num_shards=num_shards))
    assert (source.kind, source.step, source.trainable_paths) == ("huggingface", None, frozenset())
    assert len(source.shapes()) == len(tensors) == 38
    assert source.settings is not None
    params = load(source, T5Config(**source.settings, scan_layers=scan_layers))
    values = {path: np.asarray(x) for path, x in params.items()}
    as_float = lambda name: tensors[name].astype(np.float32)  # noqa: E731
    np.testing.assert_array_equal(values["token_embedder/embedding"], as_float("shared.weight"))
    np.testing.assert_array_equal(
        values["decoder/logits_dense/kernel"], as_float("lm_head.weight").T
    )
    output = as_float("encoder.block.1.layer.0.SelfAttention.o.weight").T
    bias = as_float("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight").T
    norm = as_float("decoder.block.0.layer.1.layer_norm.weight")
    if scan_layers:
        got = values["encoder/encoder/attention/out/kernel"][:, 1].reshape(8, 6)
        table = values["encoder/encoder/relpos_bias/rel_embedding"][:, 1]
        scale = values["decoder/decoder/pre_cross_attention_layer_norm/scale"][:, 0]
    else:
        got = values["encoder/layers_1/attention/out/kernel"]
        table = values["encoder/relpos_bias/rel_embedding"]
        scale = values["decoder/layers_0/pre_cross_attention_layer_norm/scale"]
    np.testing.assert_array_equal(got, output)
    np.testing.assert_array_equal(table, bias)
    np.testing.assert_array_equal(scale, norm)
    total = sum(x.size for x in values.values()) - (4 * 32 if scan_layers else 0)
    assert total == sum(x.size for x in tensors.values())


@pytest.mark.parametrize(
    "path",
    [
        "encoder/layers_0/mlp/wi_0/kernel",
        "encoder/relpos_bias/rel_embedding",
        "token_embedder/embedding",
        "decoder/decoder_norm/scale",
    ],
)
def test_a_part_is_what_the_whole_has_there_and_costs_its_rows(tmp_path, path, monkeypatch):
    source = HuggingFaceSource(write_model(tmp_path, make_tensors()))
    whole = source.read(path)
    assert whole.shape == source.shapes()[path][0]
    rows_read = []
    read = source._tensors.read
    monkeypatch.setattr(
        source._tensors, "read", lambda name, rows: rows_read.append(rows) or read(name, rows)
    )
    index = tuple(slice(1, 3) for _ in whole.shape)
    np.testing.assert_array_equal(source.read(path, index), whole[index])
    assert rows_read == [slice(1, 3)]
    chunk = source.chunks(path)
    assert np.prod(chunk) == (1 if whole.ndim == 1 else whole.size // rows_of(path, whole))


def rows_of(path, whole):
    """Rows of the stored tensor."""
    return whole.shape[0] if path.startswith("token_embedder") else whole.shape[1]


COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@pytest.mark.parametrize("kept", [("shared.weight",), COPIES[:1], ("shared.weight", *COPIES)])
def test_the_embedding_is_found_under_each_of_its_names_and_read_once(tmp_path, kept):
    tensors = make_tensors()
    table = tensors.pop("shared.weight")
    source = HuggingFaceSource(write_model(tmp_path, {**tensors, **dict.fromkeys(kept, table)}))
    np.testing.assert_array_equal(source.read("token_embedder/embedding"), table)
    assert len(source.shapes()) == 38


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("change", ["value", "shape", "dtype"])
def test_a_copy_of_the_embedding_that_differs_is_refused(tmp_path, name, change):
    tensors = make_tensors()
    copy = tensors["shared.weight"].copy()
    if change == "value":
        copy[7, 3] = np.nextafter(copy[7, 3], 9)
    copy = copy[:9] if change == "shape" else copy
    tensors[name] = copy.astype(np.float16) if change == "dtype" else copy
    source = HuggingFaceSource(write_model(tmp_path, tensors))
    with pytest.raises(CheckpointError, match=f"{name} in .* should be shared.weight"):
        source.read("token_embedder/embedding")
    if change == "value":
        source.read("token_embedder/embedding", (slice(0, 7), slice(None)))


def test_a_rescaled_head_is_the_embedding(tmp_path):
    tensors = make_tensors()
    head = tensors.pop("lm_head.weight")
    for name, stored in (("absent", {}), ("equal", {"lm_head.weight": tensors["shared.weight"]})):
        source = HuggingFaceSource(write_model(tmp_path / name, {**tensors, **stored}, **RESCALED))
        assert source.settings is not None and source.settings["logits_via_embedding"]
        params = load(source, T5Config(**source.settings))
        assert len(params) == 37 and "decoder/logits_dense/kernel" not in params
    other = write_model(tmp_path / "other", {**tensors, "lm_head.weight": head}, **RESCALED)
    with pytest.raises(CheckpointError, match='set "tie_word_embeddings"'):
        HuggingFaceSource(other).read("token_embedder/embedding")


def test_a_tied_head_that_does_not_rescale_is_a_matrix_of_its_own(tmp_path):
    tensors = make_tensors()
    del tensors["lm_head.weight"]
    source = HuggingFaceSource(
        write_model(tmp_path, tensors, scale_decoder_outputs=False, **RESCALED)
    )
    assert source.settings is not None and not source.settings["logits_via_embedding"]
    np.testing.assert_array_equal(
        source.read("decoder/logits_dense/kernel"), tensors["shared.weight"].T
    )
    with pytest.raises(CheckpointError, match="1 tensors are missing .*no lm_head.weight"):
        HuggingFaceSource(write_model(tmp_path, tensors))


def test_umt5_has_a_table_in_every_layer(tmp_path):
    tensors = make_tensors()
    stored = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    tensors["encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"] = stored + 1
    source = HuggingFaceSource(write_model(tmp_path, tensors, model_type="umt5"))
    assert source.settings is not None
    for scan_layers in (False, True):
        params = load(source, T5Config(**source.settings, scan_layers=scan_layers))
        if scan_layers:
            tables = np.asarray(params["encoder/encoder/relpos_bias/rel_embedding"])
            first, second = tables[:, 0], tables[:, 1]
        else:
            first, second = (
                np.asarray(params[f"encoder/layers_{i}/relpos_bias/rel_embedding"]) for i in (0, 1)
            )
        np.testing.assert_array_equal(first, stored.T)
        np.testing.assert_array_equal(second, stored.T + 1)
    with pytest.raises(CheckpointError, match="1 tensors in .* are not known"):
        HuggingFaceSource(write_model(tmp_path, tensors))


def test_missing_and_unknown_tensors_are_named(tmp_path):
    tensors = make_tensors()
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    write_model(tmp_path, {**tensors, unused: np.zeros((32, 4), np.float32)})
    assert len(HuggingFaceSource(tmp_path).shapes()) == 38
    write_model(tmp_path, {**tensors, "encoder.lora_A": np.zeros(2, np.float32)})
    with pytest.raises(
        CheckpointError, match="1 tensors in .* are not known: got 'encoder.lora_A'"
    ):
        HuggingFaceSource(tmp_path)
    del tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    write_model(tmp_path, tensors)
    with pytest.raises(
        CheckpointError, match="no encoder.block.1.layer.1.DenseReluDense.wo.weight"
    ):
        HuggingFaceSource(tmp_path)


def test_no_names_are_made_for_more_layers_than_there_are_tensors(tmp_path):
    folder = write_model(tmp_path / "m", make_tensors())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 10**12}))
    with pytest.raises(CheckpointError, match="1000000000000 layers of the encoder and .* tensors"):
        HuggingFaceSource(folder)


def test_missing_and_damaged_files_are_named(tmp_path):
    folder = write_model(tmp_path / "m", make_tensors(), num_shards=2)
    index = folder / "model.safetensors.index.json"
    shard = folder / "model-00002-of-00002.safetensors"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**weight_map, "more": shard.name}}))
    with pytest.raises(CheckpointError, match=f"does not describe.*no more in {shard.name}"):
        HuggingFaceSource(folder)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="does not describe the files beside it: got .None"):
        HuggingFaceSource(folder)
    for elsewhere in (f"../m/{shard.name}", str(shard), ".."):
        index.write_text(json.dumps({"weight_map": {**weight_map, "more": elsewhere}}))
        with pytest.raises(CheckpointError, match="names a file of another folder"):
            HuggingFaceSource(folder)
    index.write_text(json.dumps({"weight_map": weight_map}))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"No file .*{shard.name}"):
        HuggingFaceSource(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match="No weights in .*config.json"):
        HuggingFaceSource(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="Cannot read .*config.json.*a JSON list"):
        HuggingFaceSource(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "longt5"),
        ("layer_norm_epsilon", 1e-5),
        ("decoder_start_token_id", -1),
        ("pad_token_id", "1"),
        ("eos_token_id", [1, 2]),
        ("d_model", "768"),
        ("num_decoder_layers", "2"),
        ("feed_forward_proj", "gelu"),
        ("dense_act_fn", "quick_gelu"),
    ],
)
def test_another_architecture_is_named_by_its_field(field, value):
    with pytest.raises(CheckpointError) as error:
        huggingface_config.t5_settings({**CONFIG, field: value})
    assert field in str(error.value) and repr(value) in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"architectures": ["T5EncoderModel"]}, {"is_encoder_decoder": False}, {}]
)
def test_an_encoder_alone_is_refused_with_a_sentence(tmp_path, changes):
    tensors = {n: x for n, x in make_tensors().items() if n.startswith(("shared", "encoder"))}
    folder = write_model(tmp_path / "m", tensors, **changes)
    with pytest.raises(CheckpointError, match="an encoder alone.*use the whole model"):
        HuggingFaceSource(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"feed_forward_proj": "relu"}, ("relu",)),
        ({"feed_forward_proj": "gated-gelu"}, ("gelu", "linear")),
        ({"feed_forward_proj": "gated-silu"}, ("silu", "linear")),
        ({"feed_forward_proj": "gated-relu"}, ("relu", "linear")),
        ({"feed_forward_proj": "gelu_new"}, ("gelu",)),
        ({"feed_forward_proj": None}, ("relu",)),
        ({"feed_forward_proj": None, "model_type": "mt5"}, ("gelu", "linear")),
        (
            {"feed_forward_proj": None, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True},
            ("gelu", "linear"),
        ),
    ],
)
def test_activations_follow_transformers(changes, expected):
    assert huggingface_config.t5_settings({**CONFIG, **changes})["mlp_activations"] == expected


TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (TIED, True),
        (UNTIED, False),
        ({"tie_word_embeddings": None}, True),
        # Written by transformers 5, which sets tie_word_embeddings for all of them.
        ({**TIED, "scale_decoder_outputs": False}, False),
        ({**TIED, "scale_decoder_outputs": True}, True),
        ({**TIED, "model_type": "mt5", "transformers_version": "5.3.0"}, False),
        ({**TIED, "model_type": "mt5", "transformers_version": "4.57.1"}, True),
        ({**UNTIED, "model_type": "mt5", "transformers_version": "4.57.1"}, False),
        ({**TIED, "model_type": "umt5", "transformers_version": "5.3.0"}, True),
        ({**UNTIED, "model_type": "umt5", "transformers_version": "4.31.0.dev0"}, False),
    ],
)
def test_heads_rescale_as_the_version_that_wrote_the_file_did(changes, expected):
    config = {name: v for name, v in {**CONFIG, **changes}.items() if v is not None}
    assert huggingface_config.t5_settings(config)["logits_via_embedding"] is expected


DISTANCE = "relative_attention_max_distance"


@pytest.mark.parametrize(
    ("changes", "field", "values", "gin_file"),
    [
        ({"feed_forward_proj": "relu", **TIED}, "mlp_activations", "('relu',)", "t5_1_0_{size}"),
        ({"feed_forward_proj": "gated-silu"}, "mlp_activations", "('silu', 'linear')", "ul2"),
        (TIED, "logits_via_embedding", "True", "t5_1_0_{size}"),
        ({DISTANCE: 64}, DISTANCE, "64", "t5_1_1"),
        ({DISTANCE: 64, "model_type": "umt5"}, DISTANCE, "64", "umt5_{size}"),
    ],
)
def test_a_model_that_computes_something_else_is_refused(changes, field, values, gin_file):
    model_config = T5Config(**huggingface_config.t5_settings(CONFIG))
    settings = huggingface_config.t5_settings({**CONFIG, **changes})
    # As `prompt-tuning convert` records them.
    settings = json.loads(json.dumps(settings))
    with pytest.raises(CheckpointError) as error:
        huggingface_config.check_settings(settings, model_config, path="/m")
    text = str(error.value)
    assert f"T5Config.{field} differs" in text and f"{field} = {values}" in text
    assert repr(getattr(model_config, field)) in text and f"models/{gin_file}" in text
