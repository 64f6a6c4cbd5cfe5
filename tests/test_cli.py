"""The command line: flags, exit codes, what is imported when. Runs themselves are tested elsewhere."""

import subprocess
import sys
import time

import gin
import pytest

from prompt_tuning import cli, train
from prompt_tuning.commands import infer as commands_infer
from prompt_tuning.config import resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.errors import ConfigError
from prompt_tuning.run import processes
from tests.gin_runs import DEMOS, TRAIN_FILES, strip
from tests.helpers import REPO, run_cli

HELP_SECONDS = 1.0


@pytest.fixture(autouse=True)
def untouched_settings(monkeypatch):
    """SeqIO's folders are the process's: a test that hands flags over must not leave them behind."""
    monkeypatch.setattr(resolve, "set_data_dirs", lambda *args: None)
    yield
    gin.clear_config()


def argv(command, *more):
    files, settings = DEMOS[command]
    flags = [f"--gin_file={name}" for name in files]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    return [command, *flags, *more]


# Help.


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from prompt_tuning import cli; code = cli.main(['--help']);"
        "heavy = {'jax', 'tensorflow', 'seqio', 'flax', 'numpy', 'gin'} & set(sys.modules);"
        "print('HEAVY', sorted(heavy), 'CODE', code)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True
    )
    seconds = time.perf_counter() - began
    assert "HEAVY [] CODE 0" in done.stdout
    assert all(f"  {command}" in done.stdout for command in cli.modules())
    assert seconds < HELP_SECONDS


# Flags.


def test_gin_flags_keep_their_order_and_are_shown_as_typed():
    flags = parse_run(
        "train",
        ["--gin.A=1", "--gin_bindings=B.c = 2", "--gin.D=[1, 2]", "--gin_bindings", "E = 3"],
    )
    assert flags.bindings == [
        ("A = 1", "--gin.A=1"),
        ("B.c = 2", "--gin_bindings=B.c = 2"),
        ("D = [1, 2]", "--gin.D=[1, 2]"),
        ("E = 3", "--gin_bindings=E = 3"),
    ]
    assert parse_run("train", []).bindings == []


def test_files_and_lists_parse_as_in_t5x():
    flags = commands_infer.parse(
        ["--gin_file=a.gin", "--gin_file", "b.gin", "--gin_search_paths=x,y,", "--shard_id=3"]
        + ["--seqio_additional_cache_dirs=/c,/d", "--tfds_data_dir=/t", "--run_mode=infer"],
    )
    assert flags.gin_file == ["a.gin", "b.gin"]
    assert flags.gin_search_paths == ["x", "y"]
    assert flags.seqio_additional_cache_dirs == ["/c", "/d"]
    assert (flags.tfds_data_dir, flags.shard_id) == ("/t", 3)


@pytest.mark.parametrize(
    ("typed", "value"),
    [(["--dry_run"], True), (["--dry_run=false"], False), (["--nodry_run"], False), ([], False)],
)
def test_truth_values_parse_as_in_absl(typed, value):
    assert parse_run("train", typed).dry_run is value


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "The command is unknown.*Closest matches: train"),
        (["train", "--gin_fle=a.gin"], "no such flag.*--gin_file"),
        (["train", "--gin.MODEL_DIR", "'/x'"], "--gin.MODEL_DIR=VALUE"),
        (["train", "--run_mode=eval"], "--run_mode contradicts.*prompt-tuning eval"),
        (["train", "--coordinator_address=localhost:1"], "add --multiprocess_gpu"),
        (["train", "--gin_file=nowhere.gin"], "gin file not found"),
        (["train", "--gin.MODEL_DIR=/tmp/x"], "write --gin.MODEL_DIR=\"'/tmp/x'\""),
        (["tasks", "list", "--data_dir="], "--data_dir names nothing"),
        (["train", "--gin.TRAIN_STEPS=0"], "TRAIN_STEPS has a value of the wrong type"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(args, message, capsys):
    assert cli.main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(captured.err, got="", expected="", fix="")


@pytest.mark.entry
def test_an_error_in_a_process_has_no_traceback():
    done = run_cli("train", "--gin.MODEL_DIR=/tmp/x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


# Handing over.


@pytest.fixture
def recorded_train(monkeypatch):
    """Replaces the training run by one that notes its arguments; its signature is the real one's."""
    import functools

    calls = []

    @functools.wraps(train.train)
    def record(**kwargs):
        calls.append(kwargs)

    monkeypatch.setattr(train, "train", record)
    return calls


def test_train_gets_its_arguments_and_the_text_to_save(recorded_train, capsys):
    assert cli.main(argv("train", "--tfds_data_dir=/data/tfds")) == 0
    (arguments,) = recorded_train
    assert arguments["total_steps"] == 1_150_000
    assert arguments["model_dir"] == "/runs/sst2"
    assert "--tfds_data_dir=/data/tfds" in arguments["config_text"]
    captured = capsys.readouterr()
    assert arguments["config_text"] in captured.out
    assert captured.err == ""


def test_one_process_speaks_for_all(recorded_train, capsys, monkeypatch):
    import jax

    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert cli.main(argv("train", "--gin.BATCHSIZE=8")) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
    assert len(recorded_train) == 1


def test_a_dry_run_neither_runs_nor_takes_the_accelerator(recorded_train, capsys, monkeypatch):
    import jax

    def fail():
        raise AssertionError("asked for devices")

    monkeypatch.setattr(jax, "process_index", fail)
    assert cli.main(argv("train", "--dry_run")) == 0
    assert recorded_train == []
    assert "MODEL_DIR = '/runs/sst2'" in capsys.readouterr().out


def test_gin_flags_may_stand_before_the_command(recorded_train):
    assert cli.main(["--gin.BATCH_SIZE=4", *argv("train")]) == 0
    assert recorded_train[0]["train_dataset_cfg"].batch_size == 4


def test_a_warning_goes_to_stderr_and_does_not_stop(recorded_train, capsys):
    assert cli.main(argv("train", "--gin.BATCHSIZE=8")) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: nothing in this run reads BATCHSIZE") and "BATCH_SIZE" in err
    assert len(recorded_train) == 1


def test_dry_run_builds_every_object(recorded_train, capsys):
    assert cli.main(argv("train", "--dry_run", "--gin.utils.SaveCheckpointConfig.keep=0")) == 2
    assert "utils.SaveCheckpointConfig.keep" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(DEMOS))
def test_the_real_commands_take_what_their_run_files_bind(command, capsys):
    assert cli.main(argv(command, "--dry_run")) == 0
    assert capsys.readouterr().err == ""


def test_shard_id_overrides_the_files(capsys):
    assert (
        cli.main(argv("infer", "--dry_run", "--shard_id=2", "--gin.infer.infer.num_shards=4")) == 0
    )
    out = capsys.readouterr().out
    assert "infer.infer.shard_id = 2\n" in out and "infer.infer.num_shards = 4\n" in out


def test_errors_of_others_keep_their_traceback(monkeypatch):
    def broken(*, model, config_text=""):
        raise RuntimeError("a bug")

    monkeypatch.setattr(train, "train", broken)
    settings = [f"--gin_file={TRAIN_FILES[0]}", "--gin.train.train.model=%MODEL"]
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["train", *settings])


def test_processes_join_before_the_run(recorded_train, monkeypatch):
    import jax

    calls = []
    monkeypatch.setattr(jax.config, "update", lambda *args: calls.append(args))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((*a, k)))
    more = ["--multiprocess_gpu", "--coordinator_address=localhost:1", "--process_count=2"]
    more += ["--process_index=1", "--initialization_timeout=9", "--heartbeat_timeout=7"]
    assert cli.main(argv("train", *more)) == 0
    assert calls == [
        ("jax_cpu_collectives_implementation", "gloo"),
        ("jax_enable_preemption_service", True),
        (
            "localhost:1",
            2,
            1,
            {
                "coordinator_bind_address": "localhost:1",
                "initialization_timeout": 9,
                "heartbeat_timeout_seconds": 7,
            },
        ),
    ]
    assert len(recorded_train) == 1


@pytest.mark.parametrize(
    ("on_pod", "more", "joins"),
    [
        (True, [], True),
        (True, ["--nomultiprocess_gpu"], False),
        (True, ["--dry_run"], False),
        (False, [], False),
    ],
)
def test_a_pod_joins_without_being_told(recorded_train, monkeypatch, on_pod, more, joins):
    calls = []
    monkeypatch.setattr(processes, "on_tpu_pod", lambda: on_pod)
    monkeypatch.setattr(processes, "join", lambda *a, **k: calls.append((a, k)))
    assert cli.main(argv("train", *more)) == 0
    nothing = {"initialization_timeout": None, "heartbeat_timeout": None}
    assert calls == ([((None, None, None), {**nothing, "saves_on_sigterm": True})] if joins else [])


@pytest.mark.entry
def test_a_users_module_runs_again_from_the_saved_config(tmp_path, monkeypatch, capsys):
    """In two processes: what one registers, the other must register from the saved file alone."""
    (tmp_path / "my_rates.py").write_text("def fixed(value=0.1):\n    return lambda step: value\n")
    (tmp_path / "mine.gin").write_text(
        "from __gin__ import dynamic_registration\nimport my_rates as rates\n"
        "trainer.Trainer.learning_rate_fn = @rates.fixed()\nrates.fixed.value = 0.75\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(argv("train", f"--gin_file={tmp_path}/mine.gin", "--dry_run")) == 0
    first = capsys.readouterr().out
    assert "import my_rates" in first and "my_rates.fixed.value = 0.75" in first
    (tmp_path / "config.gin").write_text(first)
    env = {"PYTHONPATH": str(tmp_path)}
    again = ["train", f"--gin_file={tmp_path}/config.gin", "--dry_run"]
    assert "--allow_imports=my_rates" in run_cli(*again, env=env).stderr
    second = run_cli(*again, "--allow_imports=my_rates", env=env)
    assert second.returncode == 0, second.stderr
    assert strip(second.stdout) == strip(first)
