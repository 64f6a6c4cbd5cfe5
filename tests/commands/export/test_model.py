"""Whole models out: transformers computes with them what is computed here, and T5X's form reads back bit for bit."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import cli, train, tree
from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.formats import safetensors_shards
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.models.config import SpecialIds, T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints import huggingface_writer
from tests.checkpoints.run_states import State
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.helpers import ENGLISH, tiny_config
from tests.models.t5gemma.tiny import tiny_t5gemma, write_t5gemma

MODELS = "--gin_file=prompt_tuning/configs/models"


def run(*args):
    return cli.main([str(arg) for arg in args])


def params_of(folder):
    source = open_source(folder)
    return {path: source.read(path) for path in source.shapes()}


def assert_same(ours, theirs):
    assert len(ours) > 10 and ours.keys() == theirs.keys()
    for path, x in ours.items():
        assert x.dtype == theirs[path].dtype
        np.testing.assert_array_equal(x, theirs[path])


@functools.cache
def random_params(config):
    """Weights of a model by path, layers apart or stacked."""
    model = EncoderDecoderModel(T5(config), None, None)
    rng = np.random.default_rng(0)
    return {
        path: rng.normal(size=x.shape).astype(np.float32) for path, x in model.param_shapes.items()
    }


@pytest.mark.parametrize("form", ["huggingface", "t5x"])
@pytest.mark.parametrize("changes", [{}, {"scan_layers": True, "logits_via_embedding": True}])
def test_a_t5x_checkpoint_goes_out_and_back_bit_for_bit(tmp_path, form, changes):
    config = tiny_config(**changes)
    stored = dict(random_params(config))
    if config.scan_layers:
        # One table for all layers, as the checkpoints have it that are not scanned.
        for path in [p for p in stored if p.endswith("rel_embedding")]:
            stored[path] = np.broadcast_to(stored[path][:, :1], stored[path].shape)
    checkpoint = write_t5x_checkpoint(tmp_path / "checkpoint_7", stored, 7)
    source = open_source(checkpoint)
    shapes = initial.unscanned_shapes(source)
    groups = initial.links_of(source, shapes)
    kept = initial.kept_dtypes(source, groups)
    apart = dict(initial.whole_arrays(source, groups, shapes, kept))
    assert run("export", "--model", checkpoint, tmp_path / "out", f"--format={form}") == 0
    assert_same(apart, params_of(tmp_path / "out"))
    found = open_source(tmp_path / "out")
    if form == "t5x":
        assert (found.kind, found.step) == ("t5x", 7)
        return
    assert found.settings is not None
    rebuilt = T5Config(**found.settings, dtype="float32", scan_layers=config.scan_layers)
    assert rebuilt == config


def test_the_best_step_of_a_run_that_tuned_all_weights_goes_out(tmp_path):
    config = tiny_config(mlp_activations=("silu", "linear"), special_ids=SpecialIds(pad=1, eos=2))
    checkpointer = Checkpointer(tmp_path / "run")
    for step in (5, 10):
        params = {path: x * step for path, x in random_params(config).items()}
        trainable = tree.unflatten(params)
        state = State(jnp.int32(step), trainable, {}, jax.random.key_data(jax.random.key(0)))
        state = jax.device_put(state, PjitPartitioner(num_partitions=1).replicated)
        checkpointer.save(step, state, {"step": step, "model": dataclasses.asdict(config)})
        checkpointer.ledger.record(step, "accuracy", -step)
    checkpointer.close()
    assert run("export", "--model", tmp_path / "run", tmp_path / "out", "--step=best") == 0
    assert_same(params_of(tmp_path / "run" / "checkpoint_5"), params_of(tmp_path / "out"))
    found = open_source(tmp_path / "out").settings
    assert found is not None and T5Config(**found, dtype="float32") == config


def test_shards_are_no_larger_than_asked_and_say_where_each_tensor_is(tmp_path, monkeypatch):
    written = safetensors_shards.write_shards
    monkeypatch.setattr(
        "prompt_tuning.commands.export.model.write_shards",
        lambda *args: written(*args, shard_bytes=2_000),
    )
    model = huggingface_writer.write_model(tmp_path / "in", huggingface_writer.make_tensors())
    (model / "tokenizer.json").write_text("{}")
    assert run("export", "--model", model, tmp_path / "out") == 0
    assert_same(params_of(model), params_of(tmp_path / "out"))
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert {*index["weight_map"].values()} == {file.name for file in shards}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("stored", "flags", "message"),
    [
        (
            {"encoder/prompt/prompt/prompt": np.ones((2, 32), np.float32)},
            [],
            "export the prompt by",
        ),
        ({}, ["--format=npy"], "--format with --model is unknown"),
        ({}, ["--base_model={other}"], "vocab_size = 10', expected 256"),
    ],
)
def test_what_transformers_has_no_model_for_is_refused(tmp_path, capsys, stored, flags, message):
    other = huggingface_writer.write_model(tmp_path / "other", huggingface_writer.make_tensors())
    params = {**random_params(tiny_config()), **stored}
    checkpoint = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    flags = [flag.format(other=other) for flag in flags]
    assert run("export", "--model", checkpoint, tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("merges_attention", [False, True])
def test_a_t5gemma_goes_out_with_its_own_settings_and_its_successor_not(
    tmp_path, capsys, merges_attention
):
    config = tiny_t5gemma(merges_attention=merges_attention)
    folder = write_t5gemma(tmp_path / "in", config)
    code = run("export", "--model", folder, tmp_path / "out")
    assert code == (2 if merges_attention else 0)
    if merges_attention:
        assert "T5Gemma 2 not at all" in capsys.readouterr().err
        return
    assert_same(params_of(folder), params_of(tmp_path / "out"))
    assert open_source(tmp_path / "out").settings == open_source(folder).settings
    sizes = dataclasses.replace(config.decoder, mlp_dim=40)
    other = write_t5gemma(tmp_path / "other", tiny_t5gemma(decoder=sizes))
    assert run("export", "--model", folder, tmp_path / "out2", f"--base_model={other}") == 2
    assert "width [256, 32, 40]', expected [256, 32, 48]" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


@pytest.mark.slow
@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_a_tuned_model_computes_in_transformers_what_it_computes_here(inputs, tmp_path):
    pytest.importorskip("torch", reason="needs the extra [hf]")
    import transformers

    from tests.parity import huggingface

    files = [
        f"{MODELS}/t5_1_1_small.gin",
        "--gin_file=prompt_tuning/configs/runs/model_finetune.gin",
        "--gin_file=prompt_tuning/configs/methods/lora.gin",
    ]
    model_dir = tmp_path / "run"
    settings = {
        "MODEL_DIR": str(model_dir),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS_RELATIVE": 2,
        "EVAL_PERIOD": 2,
        "EVAL_STEPS": 1,
        "BATCH_SIZE": 8,
        "ACTIVATION_DTYPE": "float32",
    }
    flags = parse_run("train", [*files, *inputs.flags(**settings)])
    parsed = config_files.read(flags.gin_file, flags.bindings, [])
    resolved = resolve.resolve(parsed, train.train, command="train")
    resolved.run()
    assert run("export", "--model", model_dir, tmp_path / "out") == 0
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    model = resolved.arguments()["model"]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = dict.fromkeys(model.param_shapes, sharding)
    tuned = initial.load_params(
        open_source(model_dir / "checkpoint_2"), model.param_shapes, shardings
    )
    features = huggingface.batch(256)
    ours = np.asarray(jax.jit(model.apply)(tree.unflatten(tuned), features))
    difference = huggingface.logits_difference(
        ours, huggingface.their_logits(theirs, features), features
    )
    assert difference <= huggingface.LOGITS_TOLERANCE and np.abs(ours).max() > 0.1
    path = "encoder/layers_0/attention/query/kernel"
    moved = params_of(tmp_path / "out")[path] - params_of(inputs.checkpoint)[path]
    assert np.abs(moved).max() > 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    vocabulary = model.input_vocabulary
    for text in ENGLISH:
        assert tokenizer(text).input_ids == [*vocabulary.encode(text), 1]
