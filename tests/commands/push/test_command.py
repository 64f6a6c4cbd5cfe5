"""What a run tuned, to the hub and back, through huggingface_hub and a stand-in of its server."""

import json
import re
from typing import Any

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.checkpoints import hub
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files import source, write
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run.prompt_start import prompt_origin
from tests.checkpoints import hub_server

pytest.importorskip("huggingface_hub", reason="needs the extra [hub]")

PROMPT = "encoder/prompt/prompt/prompt"
NAME = PROMPT.replace("/", ".")
LORA = {
    f"encoder/layers_0/attention/query/lora_{end}": np.full(shape, 0.5, np.float32)
    for end, shape in (("a", (8, 2)), ("b", (2, 8)))
}
INFO = {
    "task": "boolq",
    "frozen_digest": "ab12",
    "frozen_dtype": "float32",
    "model": {"emb_dim": 8},
}


def prompt_of(step):
    return np.random.default_rng(step).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture
def server(tmp_path):
    hub._download.cache_clear()
    with hub_server.serving(tmp_path / "cache") as server:
        yield server
    hub._download.cache_clear()


def make_run(folder, added=None, **info):
    """A MODEL_DIR that saved at steps 5, the best, and 10."""
    for step in (5, 10):
        write.save_prompts(folder, step, added or {PROMPT: prompt_of(step)}, {**INFO, **info})
    best = {"accuracy": {"name": "accuracy", "step": 5, "value": 0.75, "higher_is_better": True}}
    (folder / "best.json").write_text(json.dumps(best))
    (folder / "config.gin").write_text("PROMPT_LENGTH = 5\n")
    return folder


def run(*args):
    return cli.main([str(arg) for arg in args])


def test_what_is_pushed_comes_back_bit_for_bit(server, tmp_path, capsys):
    model_dir = make_run(tmp_path / "run")
    assert run("push", model_dir, "anna/boolq", "--base_model=google/t5") == 0
    assert server.private == {"anna/boolq"}
    assert run("pull", "anna/boolq", tmp_path / "pulled") == 0, capsys.readouterr().err
    saved = model_dir / "numpy_checkpoints" / "checkpoint_5"
    for file in saved.iterdir():
        assert (tmp_path / "pulled" / file.name).read_bytes() == file.read_bytes()
    assert len([*saved.iterdir()]) == 2
    # By its name, from the folder, and as PEFT reads it.
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in (tmp_path / "pulled").glob("adapter_*"):
        file.rename(adapter / file.name)
    for path in ("hf://anna/boolq", tmp_path / "pulled", adapter):
        np.testing.assert_array_equal(load_prompt(path)[0], prompt_of(5))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google/t5"


def test_a_name_is_recorded_with_its_commit(server, tmp_path):
    model_dir = make_run(tmp_path / "run")
    run("push", model_dir, "anna/boolq", "--step=5")
    run("push", model_dir, "anna/boolq", "--step=10")
    _, first, second = server.commits["anna/boolq"]
    # Once in a process: what is pushed meanwhile is not seen.
    for name, commit, step in (("", second, 10), (f"@{first}", first, 5)):
        prompt, info = source.read_source(f"hf://anna/boolq{name}")
        np.testing.assert_array_equal(prompt, prompt_of(step))
        assert info["exported_from"] == f"hf://anna/boolq@{commit}"
    spec = initializers.FromFile(f"hf://anna/boolq@{first}")
    origin = prompt_origin(PromptConfig(length=5, prompt_init=spec))
    assert origin is not None and origin["path"] == f"hf://anna/boolq@{first}"
    assert origin["step"] == 5
    target = tmp_path / "p.npy"
    assert run("export", "hf://anna/boolq", target) == 0
    np.testing.assert_array_equal(np.load(target), prompt_of(10))


@pytest.mark.parametrize("has_prompt", [False, True])
def test_a_method_is_pushed_with_the_prompt_beside_it(server, tmp_path, has_prompt):
    method = LoRA(rank=2).describe()
    added = {**LORA, **({PROMPT: prompt_of(1)} if has_prompt else {})}
    run("push", make_run(tmp_path / "run", added, method=method), "anna/lora")
    files = server.commits["anna/lora"][server.head("anna/lora")]
    # PEFT has adapters of LoRA, and none of LoRA with a prompt.
    assert ("adapter_config.json" in files) is not has_prompt
    found = read_set("hf://anna/lora")
    assert found.params.keys() == LORA.keys()
    for path, x in LORA.items():
        np.testing.assert_array_equal(found.params[path], x)
    assert found.info["exported_from"] == f"hf://anna/lora@{server.head('anna/lora')}"


def test_the_card_says_what_it_is_and_keeps_what_a_user_wrote(server, tmp_path):
    from huggingface_hub import ModelCard

    model_dir = make_run(tmp_path / "run")
    run("push", model_dir, "anna/boolq", "--base_model=google/t5")
    files = server.commits["anna/boolq"][server.head("anna/boolq")]
    card: Any = ModelCard(files["README.md"].decode())
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert result.dataset_name == "boolq" and card.data.base_model == "google/t5"
    for text in (
        "length 5 and width 8",
        "`ab12`",
        "PROMPT_LENGTH = 5",
        "hf://anna/boolq",
        "PeftModel",
    ):
        assert text in card.text
    assert card.data.license is None and card.text.count("TO BE FILLED IN") == 5
    card.data.license = "mit"
    card.text = card.text.replace("**TO BE FILLED IN**", "mine")
    server.add("anna/boolq", {**files, "README.md": str(card).encode(), "method.safetensors": b"x"})
    run("push", model_dir, "anna/boolq", "--step=10")
    files = server.commits["anna/boolq"][server.head("anna/boolq")]
    again: Any = ModelCard(files["README.md"].decode())
    assert again.data.license == "mit" and again.data.base_model == "google/t5"
    assert again.text.count("mine") == 5 and "| Step | 10 |" in again.text
    assert "| Frozen model | google/t5 |" in again.text and 'name = "google/t5"' in again.text
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "google/t5"
    # The scores are of step 5.
    assert not again.data.eval_results
    assert "method.safetensors" not in files and ".gitattributes" in files


def test_what_names_this_machine_is_left_out_or_announced(server, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"d_model": 8}')
    model_dir = make_run(tmp_path / "run", initial_checkpoint_path=str(tmp_path))
    assert run("push", model_dir, "anna/boolq") == 0
    assert "warning" not in capsys.readouterr().err
    files = server.commits["anna/boolq"][server.head("anna/boolq")]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] is None
    server.private.clear()
    assert run("push", model_dir, "anna/boolq") == 0
    assert "warning: anna/boolq is public, and config.gin, README.md" in capsys.readouterr().err


def test_metadata_that_is_refused_is_one_error(server, tmp_path, capsys):
    model_dir = make_run(tmp_path / "run")
    assert run("push", model_dir, "anna/new", f"--base_model={tmp_path}") == 2
    refused = [capsys.readouterr().err]
    server.add("anna/edited", {"README.md": b"---\nlicense: [\n---\n# Mine\n"})
    assert run("push", model_dir, "anna/edited") == 2
    refused.append(capsys.readouterr().err)
    for error in refused:
        assert re.search("metadata of README.md is refused.*--base_model", error)


def test_of_a_folder_of_the_cache_only_what_is_ours_is_pulled(server, tmp_path):
    run("push", make_run(tmp_path / "run"), "anna/boolq")
    folder = hub.local("hf://anna/boolq")
    (folder / "model.safetensors").write_bytes(b"a whole model")
    (folder / "onnx").mkdir()
    assert run("pull", "anna/boolq", tmp_path / "pulled") == 0
    names = {file.name for file in (tmp_path / "pulled").iterdir()}
    assert NAME in names and names <= {*hub.FILES}
    # What others put there makes no prompt of a repository without one.
    commit = server.add("anna/whole", {"README.md": b"# Whole"})
    for message in ("got ['README.md']", "got ['README.md', 'model.safetensors']"):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            hub.local("hf://anna/whole")
        folder = tmp_path / "cache/models--anna--whole/snapshots" / commit
        (folder / "model.safetensors").write_bytes(b"a whole model")


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("anna/none", "There is no repository anna/none"),
        ("anna/gated", "anna/gated is gated.*ask for access"),
        ("anna/empty@v2", "anna/empty has no such revision"),
        ("anna/empty", "holds no prompt and no method"),
        ("anna/a/b", "not of its form"),
        ("anna", "not of its form"),
    ],
)
def test_what_cannot_be_pulled_is_one_error(server, tmp_path, capsys, repo, message):
    server.add("anna/empty", {"README.md": b"# Nothing"})
    server.add("anna/gated", {})
    server.gated.add("anna/gated")
    assert run("pull", repo, tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and re.search(message, error)
    assert not (tmp_path / "x").exists()


def test_pushing_needs_a_token_that_may_write(server, tmp_path, capsys, monkeypatch):
    model_dir = make_run(tmp_path / "run")
    assert run("push", model_dir, "bert/boolq") == 2
    assert "The token may not do this with bert/boolq" in capsys.readouterr().err
    assert run("push", tmp_path, "anna/boolq") == 2
    assert "RUN has saved no prompt" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert run("push", model_dir, "anna/boolq") == 2
    assert "There is no token" in capsys.readouterr().err
    assert not server.commits


def test_without_a_network_what_was_downloaded_is_used(server, tmp_path, capsys, monkeypatch):
    run("push", make_run(tmp_path / "run"), "anna/boolq")
    load_prompt("hf://anna/boolq")
    hub._download.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(load_prompt("hf://anna/boolq")[0], prompt_of(5))
    assert run("pull", "anna/other", tmp_path / "x") == 2
    assert "The hub cannot be reached for anna/other" in capsys.readouterr().err
