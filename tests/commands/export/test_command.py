"""Prompts out: from every source, in every format."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import cli
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.prompt_files import write as prompt_file
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.commands.export import command as export
from prompt_tuning.errors import CheckpointError, ConfigError
from tests.checkpoints.run_states import save_steps
from tests.checkpoints.t5x_orbax_writer import write_t5x_orbax_checkpoint
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.helpers import REPO, SHARED, requires_shared

PATH = "encoder/prompt/prompt/prompt"
NAME = "encoder.prompt.prompt.prompt"
INFO = {
    "task": "boolq",
    "frozen_digest": "ab",
    "model": {"emb_dim": 8},
    "trainable_regex": [".*/prompt/.*"],
}
FILES = {"npy": "p.npy", "safetensors": "p.safetensors", "peft": "adapter"}


def prompt_of(step):
    return np.random.default_rng(step).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    """A MODEL_DIR that holds prompts of steps 5 and 10, the first of them the best."""
    folder = tmp_path / "run"
    for step in (5, 10):
        prompt_file.save_prompts(folder, step, {PATH: prompt_of(step)}, INFO)
    ledger = {"accuracy": {"name": "accuracy", "step": 5, "value": 1.0, "higher_is_better": True}}
    (folder / "best.json").write_text(json.dumps(ledger))
    return folder


def run_export(*args):
    export.main([str(arg) for arg in args])


@pytest.mark.parametrize("file_format", prompt_file.FORMATS)
def test_every_format_reads_back_bit_for_bit_with_what_it_belongs_to(
    run, tmp_path, file_format, capsys
):
    target = tmp_path / "new" / FILES[file_format]
    run_export(run, target, f"--format={file_format}")
    prompt, info = load_prompt(target)
    np.testing.assert_array_equal(prompt.view(np.uint32), prompt_of(10).view(np.uint32))
    assert info is not None
    assert info.items() >= {**INFO, "step": 10, "parameter": PATH}.items()
    source = run / "numpy_checkpoints" / "checkpoint_10"
    assert info["exported_from"] == str(source)
    assert f"length 5 and width 8, from {source}" in capsys.readouterr().out


def test_the_ending_of_the_target_means_the_format(run, tmp_path):
    run_export(run, tmp_path / "p.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), prompt_of(10))
    run_export(run, tmp_path / "p.safetensors")
    stored = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    assert list(stored) == [NAME]
    with pytest.raises(ConfigError, match="format of TARGET is not known.*npy, safetensors, peft"):
        run_export(run, tmp_path / "adapter")
    with pytest.raises(ConfigError, match="got 'q.npy', expected a name that ends in .safetensors"):
        run_export(run, tmp_path / "q.npy", "--format=safetensors")


@pytest.mark.parametrize(
    ("flag", "step"), [("--step=5", 5), ("--step=best", 5), ("--step=latest", 10)]
)
def test_a_step_of_a_run_is_chosen(run, tmp_path, flag, step):
    run_export(run, tmp_path / "p.npy", flag)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), prompt_of(step))


def test_steps_that_are_not_there_are_errors(run, tmp_path):
    with pytest.raises(ConfigError, match=r"no prompt of this step: got '--step=7'.*\[5, 10\]"):
        run_export(run, tmp_path / "p.npy", "--step=7")
    (run / "best.json").unlink()
    with pytest.raises(ConfigError, match="no one best step: got {}"):
        run_export(run, tmp_path / "p.npy", "--step=best")
    with pytest.raises(ConfigError, match="--step chooses among the prompts of a run"):
        run_export(run / "numpy_checkpoints" / "checkpoint_5", tmp_path / "p.npy", "--step=5")
    for folder in (run / "numpy_checkpoints").iterdir():
        folder.rename(run / folder.name)
    with pytest.raises(CheckpointError, match="has saved no prompt"):
        run_export(run, tmp_path / "p.npy")
    assert not (tmp_path / "p.npy").exists()


def test_a_checkpoint_of_a_run_is_a_source(tmp_path):
    save_steps(tmp_path / "run", 3)
    checkpoint = tmp_path / "run" / "checkpoint_3"
    run_export(checkpoint, tmp_path / "p.npy")
    prompt, info = load_prompt(tmp_path / "p.npy")
    np.testing.assert_array_equal(
        prompt, run_format.open_state(checkpoint).read(f"trainable/{PATH}")
    )
    assert info == {"step": 3, "exported_from": str(checkpoint)}


@pytest.mark.parametrize("write", [write_t5x_checkpoint, write_t5x_orbax_checkpoint])
def test_a_t5x_checkpoint_with_a_prompt_is_a_source(tmp_path, write):
    table = np.ones((16, 8), np.float32)
    params = {"token_embedder/embedding": table, PATH: prompt_of(1)}
    checkpoint = write(tmp_path / "checkpoint_7", params, 7)
    run_export(checkpoint, tmp_path / "p.npy")
    prompt, info = load_prompt(tmp_path / "p.npy")
    np.testing.assert_array_equal(prompt, prompt_of(1))
    assert info == {"step": 7, "exported_from": str(checkpoint)}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["token_embedder/embedding"], "holds no prompt: got \\[\\]"),
        ([PATH, "decoder/prompt/prompt/prompt"], "another place: got .*decoder/prompt"),
    ],
)
def test_a_checkpoint_without_one_prompt_of_the_encoder_is_an_error(tmp_path, paths, message):
    params = dict.fromkeys(paths, prompt_of(1))
    checkpoint = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    with pytest.raises(CheckpointError, match=message):
        run_export(checkpoint, tmp_path / "p.npy")


@requires_shared
def test_a_checkpoint_of_real_t5x_is_a_source(tmp_path):
    assert SHARED is not None
    root = SHARED / "golden" / "t5x_prompt_checkpoint"
    (checkpoint,) = root.glob("checkpoint_*")
    run_export(checkpoint, tmp_path / "p.npy")
    expected, _ = load_prompt(root / "numpy_checkpoints" / checkpoint.name)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)
    # The folder of the run that left both.
    run_export(root, tmp_path / "q.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "q.npy"), expected)


def test_a_target_that_exists_is_left_alone(run, tmp_path):
    (tmp_path / "p.npy").write_text("mine")
    with pytest.raises(ConfigError, match="TARGET exists already"):
        run_export(run, tmp_path / "p.npy")
    assert (tmp_path / "p.npy").read_text() == "mine"


@pytest.mark.parametrize("file_format", prompt_file.FORMATS)
def test_a_killed_export_leaves_nothing_under_the_targets_name(
    run, tmp_path, file_format, monkeypatch
):
    target = tmp_path / FILES[file_format]
    args = (run, target, f"--format={file_format}")
    path_type = type(export.epath.Path(target))

    def killed(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The last thing that happens to a file or folder before it has its name.
        for name in ("replace", "rename"):
            patch.setattr(path_type, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run_export(*args)
    assert not target.exists()
    run_export(*args)
    np.testing.assert_array_equal(load_prompt(target)[0], prompt_of(10))


def test_the_last_file_makes_an_adapter_whole_where_folders_cannot_be_renamed(
    run, tmp_path, monkeypatch
):
    written = []
    path_type = type(export.epath.Path(tmp_path))
    write = path_type.write_bytes

    def write_bytes(self, content):
        written.append(self)
        return write(self, content)

    monkeypatch.setattr(prompt_file.paths, "in_object_store", lambda path: True)
    monkeypatch.setattr(path_type, "write_bytes", write_bytes)
    target = tmp_path / "adapter"
    run_export(run, target, "--format=peft")
    assert written[-1] == target / "adapter_config.json" and len(written) == 2
    np.testing.assert_array_equal(load_prompt(target)[0], prompt_of(10))


def test_a_base_model_is_recorded_and_has_the_prompts_width(run, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 16}))
    flags = ("--format=peft", f"--base_model={model}")
    with pytest.raises(CheckpointError, match="width 8', expected the model's width 16"):
        run_export(run, tmp_path / "a", *flags)
    (model / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8}))
    run_export(run, tmp_path / "a", *flags)
    # Without the flag it is the Hugging Face folder that the run started from.
    info = {**INFO, "initial_checkpoint_path": str(model)}
    prompt_file.save_prompts(run, 15, {PATH: prompt_of(15)}, info)
    run_export(run, tmp_path / "b", "--format=peft")
    for name in ("a", "b"):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(model)
    # PEFT cannot open a bucket, so none is asked.
    info["initial_checkpoint_path"] = "gs://bucket/checkpoint_1100000"
    prompt_file.save_prompts(run, 16, {PATH: prompt_of(16)}, info)
    run_export(run, tmp_path / "c", "--format=peft", "--step=16")
    config = json.loads((tmp_path / "c" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    with pytest.raises(ConfigError, match="--base_model is written into PEFT adapters only"):
        run_export(run, tmp_path / "p.npy", "--base_model=x")


def test_a_prompt_that_contradicts_its_own_record_is_refused(tmp_path):
    np.save(tmp_path / "p.npy", prompt_of(1))
    (tmp_path / "p.npy.json").write_text(json.dumps({"model": {"emb_dim": 16}}))
    with pytest.raises(CheckpointError, match="got 'width 8', expected the model's width 16"):
        run_export(tmp_path / "p.npy", tmp_path / "q.npy")


def test_a_run_that_tuned_more_than_the_prompt_gives_a_warning(run, tmp_path, capsys):
    run_export(run, tmp_path / "p.npy")
    assert capsys.readouterr().err == ""
    info = {**INFO, "trainable_regex": [".*"]}
    prompt_file.save_prompts(run, 15, {PATH: prompt_of(15)}, info)
    run_export(run, tmp_path / "q.npy")
    assert "did not tune the prompt alone" in capsys.readouterr().err


def test_the_commands_of_the_documents_work(run, tmp_path, capsys):
    text = (REPO / "docs/use/prompts.md").read_text(encoding="utf-8")
    commands = re.findall(r"^prompt-tuning (export .*)$", text, flags=re.MULTILINE)
    assert len(commands) == len(prompt_file.FORMATS)
    for command in commands:
        args = shlex.split(command.replace("/path/to", str(tmp_path)))
        assert cli.main(args) == 0, capsys.readouterr().err
        assert load_prompt(pathlib.Path(args[2]))[0].shape == (5, 8)
    assert cli.main(["export", str(run), str(tmp_path / "prompt.npy")]) == 2
    assert "error: TARGET exists already" in capsys.readouterr().err
