"""The command from its flags to its end: what is refused before anything loads, and what SIGTERM leaves undone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import uvicorn
import yaml

from prompt_tuning import cli
from prompt_tuning.commands.serve import bodies, command, server
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.errors import ConfigError
from tests.commands.serve.conftest import KEY, serve_flags
from tests.helpers import REPO


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--prompts=a/b=x.npy"], "No prompt may have this name: got 'a/b'"),
        (["--prompts=frozen=x.npy"], "No prompt may have this name: got 'frozen'"),
        (["--prompts=a=/nothing.npy"], "/nothing.npy"),
        (["--prompts_dir=/nothing"], "--prompts_dir names no folder: got '/nothing'"),
        (["--host=192.0.2.1"], "This address cannot be listened at"),
        (["--port=70000"], "This address cannot be listened at"),
        (["--api_key_file=/nothing"], "No such file or directory: got '/nothing'"),
        (["--gin.serve.Engine.slots=0"], "serve.Engine.slots is not a number of answers: got 0"),
        (["--gin.serve.Engine.slot=1"], "serve.Engine has no parameter of this name"),
    ],
)
def test_what_is_wrong_is_told_before_anything_compiles(
    inputs, tmp_path, capsys, monkeypatch, flags, told
):
    monkeypatch.setattr(server, "_run", lambda *_: pytest.fail("it was served"))
    made, _ = serve_flags(inputs, tmp_path)
    assert cli.main(["serve", *made, *flags]) == 2
    errors = capsys.readouterr().err
    assert told in errors and "Fix: " in errors


def test_a_port_that_is_taken_is_told(inputs, tmp_path, capsys):
    made, _ = serve_flags(inputs, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", *made, f"--port={taken.getsockname()[1]}"]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_a_device_without_memory_is_told(inputs, tmp_path, capsys, monkeypatch):
    def warm(self):
        raise ConfigError("No memory", got=1, expected="more", fix="lower serve.Engine.slots")

    monkeypatch.setattr(Engine, "warm", warm)
    assert cli.main(["serve", *serve_flags(inputs, tmp_path)[0]]) == 2
    assert "lower serve.Engine.slots" in capsys.readouterr().err


def test_an_engine_that_has_failed_ends_the_process(inputs, tmp_path, monkeypatch):
    # It is as one that was ready once.
    monkeypatch.setattr(Engine, "warm", lambda self: None)
    monkeypatch.setattr(server, "_PERIOD", 0.01)
    with pytest.raises(RuntimeError, match="The engine has failed"):
        cli.main(["serve", *serve_flags(inputs, tmp_path)[0]])


@pytest.mark.parametrize("text", ["", "# none\n", "two words\n", "é\n"])
def test_keys_are_what_a_header_can_hold(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match="--api_key_file"):
        server.read_keys(str(tmp_path / "keys"))


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.setattr(command, "_LIBRARIES", ("starlette", "no_such_library"))
    assert cli.main(["serve"]) == 2
    assert "pip install 'prompt-tuning[serve]'" in capsys.readouterr().err


def test_the_manifest_asks_what_there_is():
    page = (REPO / "docs/use/serving.md").read_text()
    (manifest,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    deployment, service = yaml.safe_load_all(manifest)
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    (container,) = pod["spec"]["containers"]
    program, name, *flags = container["command"]
    assert (program, name) == ("prompt-tuning", "serve")
    given = command.parse(flags)
    assert given.host == "0.0.0.0"
    (port,) = container["ports"]
    assert (
        given.port
        == port["containerPort"]
        == int(pod["metadata"]["annotations"]["prometheus.io/port"])
    )
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    probes = {n: container[f"{n}Probe"]["httpGet"] for n in ("startup", "readiness", "liveness")}
    assert {n: probe["path"] for n, probe in probes.items()} == {
        "startup": "/health",
        "readiness": "/health",
        "liveness": "/metrics",
    }
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > bodies.MAX_TIMEOUT + pause
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
    for path in (given.prompts_dir, given.api_key_file, container["env"][0]["value"]):
        assert any(path.startswith(f"{place}/") for place in mounted.values())
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert f"--gin.partitioning.PjitPartitioner.num_partitions={chips}" in flags


def _stream(port, texts, answers):
    """Asks for a stream that takes a while; keeps its bytes."""
    content = {"model": "boolq", "prompt": texts, "n": 16, "temperature": 2, "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(content).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    answer = bytearray()
    answers.append(answer)
    with urllib.request.urlopen(request, timeout=120) as response:
        while part := response.read1():
            answer += part


@pytest.mark.slow
@pytest.mark.entry
def test_sigterm_under_load_loses_nothing_that_was_taken(inputs, tmp_path):
    flags, _ = serve_flags(inputs, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    argv = [sys.executable, "-m", "prompt_tuning", "serve", *flags, "--gin.serve.Engine.queue=400"]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if line.startswith("Serving"))
        found = re.fullmatch(r"Serving 2 prompts at http://127\.0\.0\.1:(\d+)\n", told)
        assert found is not None
        port = int(found[1])
        answers: list[bytearray] = []
        asking = [
            threading.Thread(target=_stream, args=(port, ["the old mill"] * 6, answers))
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        end = time.monotonic() + 60
        # All are taken; what is whole by now was not under way.
        while len(answers) < 4 or not all(answers):
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        under_way = sum(b"[DONE]" not in answer for answer in answers)
        for thread in asking:
            thread.join()
        assert process.wait(60) == 0
    assert under_way > 0
    for answer in answers:
        events = [
            json.loads(e[6:]) for e in answer.decode().split("\n\n") if e.startswith("data: {")
        ]
        ended = [c["index"] for e in events for c in e["choices"] if c["finish_reason"]]
        assert sorted(ended) == list(range(96)) and answer.endswith(b"data: [DONE]\n\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_signal_ends_at_once_what_was_told_before_or_is_not_ready(monkeypatch, is_ready):
    codes = []
    monkeypatch.setattr(server.os, "_exit", codes.append)
    made = server._Server(uvicorn.Config("no:app"))
    made.is_ready = is_ready
    made.handle_exit(signal.SIGTERM, None)
    assert made.should_exit and codes == ([] if is_ready else [143])
    made.handle_exit(signal.SIGTERM, None)
    assert codes[-1] == 143 and not made._captured_signals
