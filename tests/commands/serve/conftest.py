"""One server for all tests of this folder: the command itself, in a thread, with the tiny model and two prompts."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from prompt_tuning import cli
from prompt_tuning.commands.serve import server
from tests.tiny_run import EMB_DIM

KEY = "a-key-of-the-tests"
SIZES = {
    "serve.Engine.slots": 4,
    "serve.Engine.rows": (1, 4),
    "serve.Engine.input_lengths": (16, 32),
    "serve.Engine.output_length": 12,
    "serve.Engine.prompt_length": 8,
    "serve.Engine.resident_prompts": 4,
    "serve.Engine.queue": 24,
    "utils.RestoreCheckpointConfig.dtype": "float32",
    "PROMPT_LENGTH": 4,
}


@dataclasses.dataclass(frozen=True)
class Served:
    """A server that answers.

    Attributes:
      port: Where, on this machine.
      prompts: The file of each prompt that it has from the start.
      folder: The one that it watches.
    """

    port: int
    prompts: dict[str, str]
    folder: pathlib.Path

    @functools.cached_property
    def client(self) -> openai.OpenAI:
        """OpenAI's own client."""
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60)

    def ask(self, path: str, content: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Sends one request, POST if there is content; returns status, JSON (or text) and headers of the answer."""
        data = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, sent)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        with contextlib.suppress(json.JSONDecodeError):
            return answer.status or 0, json.loads(text), answer.headers
        return answer.status or 0, text, answer.headers

    def figure(self, name: str) -> float:
        """Returns one figure of /metrics."""
        lines = self.ask("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def infer(
        self, inputs, folder: pathlib.Path, rows: list[dict[str, str]], mode: str
    ) -> list[Any]:
        """Returns what `prompt-tuning infer` writes of rows whose `task` is a prompt, in order."""
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        settings = {
            "CHECKPOINT_PATH": str(inputs.checkpoint),
            "INFER_OUTPUT_DIR": str(folder),
            "INFER_INPUT_FILE": str(folder / "rows.jsonl"),
            "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 12},
            "BATCH_SIZE": 8,
            "PROMPT_LENGTH": 4,
            "infer.mode": mode,
            "utils.RestoreCheckpointConfig.dtype": "float32",
        }
        files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_infer.gin")
        argv = ["infer", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
        named = ",".join(f"{name}={path}" for name, path in self.prompts.items())
        assert cli.main([*argv, f"--prompts={named}"]) == 0
        written = (folder / f"rows-{mode}.jsonl-00000-of-00001").read_text().splitlines()
        return [json.loads(line) for line in written]

    def connect(self) -> socket.socket:
        """Returns a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def serve_flags(inputs, folder: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """Returns the flags of a tiny server whose files lie in `folder`, and its prompts."""
    rng = np.random.default_rng(0)
    prompts = {}
    for name, rows in (("boolq", 4), ("cb", 7)):
        prompts[name] = str(folder / f"{name}.npy")
        np.save(prompts[name], rng.normal(size=(rows, EMB_DIM)).astype(np.float32) * 5)
    (folder / "watched").mkdir()
    (folder / "keys").write_text(f"# of the tests\n\n{KEY}\nanother\n")
    flags = [
        "--gin_file=models/t5_1_1_small_prompt.gin",
        *inputs.flags(CHECKPOINT_PATH=str(inputs.checkpoint), **SIZES),
        f"--prompts={','.join(f'{name}={path}' for name, path in prompts.items())}",
        f"--prompts_dir={folder / 'watched'}",
        f"--api_key_file={folder / 'keys'}",
        "--port=0",
    ]
    return flags, prompts


@pytest.fixture(scope="session")
def served(inputs, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    flags, prompts = serve_flags(inputs, folder)
    made: list[Any] = []

    class Seen(server._Server):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_Server", Seen)
        patch.setattr(server, "_PERIOD", 0.1)
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(cli.main(["serve", *flags])))
        thread.start()
        while not (made and made[0].is_ready):
            assert thread.is_alive(), codes
            time.sleep(0.05)
        yield Served(made[0].servers[0].sockets[0].getsockname()[1], prompts, folder / "watched")
        made[0].should_exit = True
        thread.join()
    assert codes == [0]
