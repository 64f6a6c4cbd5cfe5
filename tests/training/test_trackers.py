"""What runs write to the real Weights & Biases (offline) and MLflow (a folder), read back; what fails there."""

import json
import struct
import sys
from typing import Any

import pytest
from etils import epath

from prompt_tuning.errors import ConfigError
from prompt_tuning.training import trackers
from prompt_tuning.training.run_log import RunLog

PARAMS = {"seed": 7, "model/emb_dim": 32, "task": "boolq", "made_from/learning rate?": "0.3"}
pytestmark = [
    # Of their dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(wandb|mlflow|pydantic|google).*"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home without a login, where both trackers write."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "HOME": tmp_path,
        "NETRC": tmp_path / "netrc",
        "WANDB_DIR": tmp_path,
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    yield tmp_path
    if "wandb" in sys.modules:
        # It reads the environment once.
        sys.modules["wandb"].teardown()


def _records(path):
    """The records of a .wandb file: LevelDB's log of protocol buffers, behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    record: Any = wandb_internal_pb2.Record  # pyright: ignore[reportAttributeAccessIssue]
    data, position, whole = path.read_bytes(), 7, b""
    while position < len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        # Whole, or the last of several parts.
        if kind in (1, 4):
            yield record.FromString(whole)
            whole = b""


def read_wandb(folder):
    """The runs below a folder by their ids, each as its group, name, parameters, config.gin and history."""
    # A run that ended is whole on disk when the program has that writes it.
    sys.modules["wandb"].teardown()
    found = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run = {}
        for record in _records(path):
            if record.HasField("run") and not run:
                run = found.setdefault(record.run.run_id, {"history": [], "params": {}})
                run |= {"group": record.run.run_group, "name": record.run.display_name}
                run["config.gin"] = (path.parent / "files" / "config.gin").read_text()
                for item in record.run.config.update:
                    run["params"][item.key] = json.loads(item.value_json)
            if record.HasField("history"):
                items = record.history.item
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                step = row.pop("step")
                names = [name for name in row if not name.startswith("_")]
                run["history"] += [(step, name, row[name]) for name in names]
    return found


def read_mlflow():
    """The same of MLflow's runs."""
    import mlflow

    client, found = mlflow.MlflowClient(), {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            metrics = [client.get_metric_history(run.info.run_id, n) for n in run.data.metrics]
            folder = epath.Path(str(run.info.artifact_uri).removeprefix("file://"))
            found[run.info.run_id] = {
                "group": experiment.name,
                "name": run.info.run_name,
                "params": run.data.params,
                "config.gin": (folder / "config.gin").read_text(),
                "history": [(m.step, m.key, m.value) for each in metrics for m in each],
                "status": run.info.status,
            }
    return found


@pytest.mark.parametrize("kind", [trackers.Wandb, trackers.MLflow])
def test_what_was_written_over_two_starts_is_one_run(kind, place):
    pytest.importorskip(kind.package)
    tracker = kind(group="figure_3a", labels={"size": "mini"})
    run_id = None
    for first, loss in ((0, 2.5), (200, 1.5)):
        tracked = tracker.start(run_id, "size=mini", PARAMS, "BATCH_SIZE = 8\n")
        run_id = run_id or tracked.run_id
        assert tracked.run_id == run_id
        log = RunLog(epath.Path(place / "run"), first=first, total=400, tracked=tracked)
        log.started(first + 1, {"checks": loss})
        results = {"boolq": {"accuracy": loss * 10}}
        log.evaluated(first + 100, results, {"step": first + 100, "value": loss * 10})
        log.close()
        # Of the second start after a kill, which takes steps again.
        tracked.write_scalars(first, {"after": 1})
    found = read_wandb(place) if kind is trackers.Wandb else read_mlflow()
    assert list(found) == [run_id]
    run = found[run_id]
    assert run["group"] == "figure_3a" and run["name"] == "size=mini"
    assert run["config.gin"] == "BATCH_SIZE = 8\n"
    params = {name.replace("_?", "?"): str(value) for name, value in run["params"].items()}
    assert params.items() >= {("seed", "7"), ("model/emb_dim", "32"), ("task", "boolq")}
    assert [(s, x) for s, n, x in run["history"] if n == "train/timing/start/checks_seconds"] == [
        (1, 2.5),
        (201, 1.5),
    ]
    assert set(run["history"]) >= {
        (100, "inference_eval/boolq/accuracy", 25),
        (300, "inference_eval/boolq/accuracy", 15),
        (100, "best/step", 100),
        (300, "best/score", 15),
    }
    assert "after" not in {name for _, name, _ in run["history"]}
    assert run.get("status", "FINISHED") == "FINISHED"


def test_a_tracker_that_fails_is_told_once_and_left_alone(caplog):
    written = []

    def log(step, scalars):
        written.append(step)
        raise ConnectionError("no route to host")

    tracked = trackers.TrackedRun("a", log, lambda is_finished: written.append("end"))
    for step in (1, 2):
        tracked.write_scalars(step, {"loss": 1.0})
    tracked.close()
    assert written == [1]
    assert len(caplog.records) == 1 and "no route to host" in caplog.text


def test_nobody_logged_in_is_an_error_with_two_ways_out(place, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"got 'no API key'.*Fix: log in, or set WANDB_MODE"):
        trackers.Wandb().start(None, "a", {}, "")


def test_a_tracker_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-tuning\[mlflow\]'"):
        trackers.MLflow()
