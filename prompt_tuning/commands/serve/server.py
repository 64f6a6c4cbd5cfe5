"""The server from its settings to its end: what it loads, when it is ready, and what SIGTERM does."""

import asyncio
import contextlib
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import jax
import uvicorn
from absl import logging
from sse_starlette.sse import AppStatus

from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.commands.serve.app import make_app
from prompt_tuning.commands.serve.bodies import MAX_TIMEOUT
from prompt_tuning.commands.serve.engine.build import build
from prompt_tuning.commands.serve.engine.settings import EngineSettings
from prompt_tuning.commands.serve.folder import PromptsFolder, check_name, find_folder
from prompt_tuning.commands.serve.metrics import Meters
from prompt_tuning.commands.serve.service import Service
from prompt_tuning.commands.serve.texts import Texts
from prompt_tuning.data import batches, inference_examples
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import checks

# Addresses that only this machine reaches, and what it is called there.
_LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "[::1]"}
# Between two looks at the engine and at the folder: a poll, since network and cloud file systems tell nothing.
# Unit: seconds.
_PERIOD = 2.0


def serve(
    prompts: Mapping[str, str],
    prompts_dir: str | None,
    host: str,
    port: int,
    api_key_file: str | None,
    *,
    model: EncoderDecoderModel,
    dataset_cfg: batches.DatasetConfig,
    restore_checkpoint_cfg: RestoreCheckpointConfig,
    partitioner: PjitPartitioner,
    settings: EngineSettings,
) -> None:
    """Serves until SIGTERM or SIGINT, which lets what was taken be answered; a second one ends the process at once.

    Args:
      prompts: Name -> prompt, served from the start.
      prompts_dir: A folder whose prompts are served too, and may be loaded by requests; None for none.
      host: The address to listen at.
      port: The port; 0 takes a free one.
      api_key_file: A key a line, of which requests name one; None asks for none.
      model: The model.
      dataset_cfg: The task that the model learnt, where it is registered: whether inputs end with EOS is read of it.
      restore_checkpoint_cfg: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run, which names them.
      partitioner: Mesh and axis rules, of the devices of this process.
      settings: Sizes.

    Raises:
      ConfigError, DataError, CheckpointError, MachineError: Before anything compiles; or if the device has no memory
        for what is compiled.
      RuntimeError: If the engine fails for good while it answers.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            "One process answers by itself",
            got=f"{jax.process_count()} processes",
            expected="one process, with all devices of its host",
            fix="start one server a host without --multiprocess_gpu, behind a load balancer",
        )
    for name in prompts:
        check_name(name)
    keys = read_keys(api_key_file)
    watched = prompts_dir and find_folder(prompts_dir)
    if not keys and host not in _LOOPBACK:
        logging.warning("Whoever reaches %s:%s may ask: there is no --api_key_file", host, port)
    # Before the minutes that the weights may take; nobody is answered yet.
    with _bound(host, port) as listener:
        dataset_cfg = checks.enter(model, dataset_cfg)
        if dataset_cfg.mixture_or_task_name is not None:
            batches.get_task(dataset_cfg)
        inputs_end = inference_examples.inputs_end(dataset_cfg.mixture_or_task_name)
        texts = Texts(model, inputs_end)
        engine = build(model, partitioner, restore_checkpoint_cfg, settings, prompts)
        folder = PromptsFolder(watched, engine) if watched else None
        # Who has a key is no page of another site.
        hosts = ("*",) if keys or host not in _LOOPBACK else tuple(_LOOPBACK.values())
        _run(Service(engine, texts, Meters(engine), folder), keys, hosts, listener)


def read_keys(path: str | None) -> frozenset[str]:
    """Returns the keys of a file, one a line; lines that are empty or begin with # are none.

    Raises:
      ConfigError: If it holds none, or one that no header can hold.
      MachineError: If it cannot be read.
    """
    if path is None:
        return frozenset()
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    keys = frozenset(line for line in lines if line and not line.startswith("#"))
    if not keys or not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ConfigError(
            f"--api_key_file {path} holds no keys, or none that a header can hold",
            got=f"{len(keys)} lines",
            expected="a key a line, of printable ASCII without spaces",
            fix="write one there, for example the output of `openssl rand -hex 32`",
        )
    return keys


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has the address, and listens to nobody yet."""
    with contextlib.ExitStack() as stack:
        try:
            # Without the port, of which it would take what is left of a division.
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], port, *address[2:]))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"This address cannot be listened at ({error})",
                got=f"{host}:{port}",
                expected="an address of this machine, and a port that nothing else has",
                fix="choose another --port or --host",
            ) from error
        yield listener


class _Server(uvicorn.Server):
    """uvicorn's server, which ends with exit code 0 when it was told to end, and at once when it is told again.

    Differs: uvicorn sends itself the signal again once it has ended, and takes SIGINT alone for the second time.

    Attributes:
      is_ready: Whether requests are taken: what was taken is worth waiting for.
    """

    is_ready = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Python's signal handler."""
        if self.should_exit or not self.is_ready:
            os._exit(128 + sig)
        self.should_exit = True


def _run(
    service: Service, keys: frozenset[str], hosts: Sequence[str], listener: socket.socket
) -> None:
    """Answers until a signal."""
    failures: list[Exception] = []

    async def start() -> None:
        try:
            await asyncio.to_thread(service.engine.warm)
            await _look(service)
            server.is_ready = True
            names = len(service.engine.names())
            host, port = listener.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(f"Serving {names} prompts at http://{host}:{port}", flush=True)
            while True:
                await asyncio.sleep(_PERIOD)
                if not service.engine.is_ready:
                    raise RuntimeError("The engine has failed, and the log says why: start again")
                await _look(service)
        except Exception as error:
            failures.append(error)
            server.should_exit = True

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        starting = asyncio.create_task(start())
        yield
        starting.cancel()
        await asyncio.to_thread(service.engine.drain)
        await asyncio.to_thread(service.engine.close)

    # It would cut off every stream at the first SIGTERM, and look for that signal for ever.
    AppStatus.disable_automatic_graceful_drain()
    config = uvicorn.Config(
        make_app(service, keys, hosts, lifespan),
        # What uvicorn itself brings, wherever it runs; it would take others that happen to be installed.
        http="h11",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Somebody who reads no answer does not keep the process.
        timeout_graceful_shutdown=int(MAX_TIMEOUT),
    )
    server = _Server(config)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


async def _look(service: Service) -> None:
    """Has a look at the watched folder, whose trouble is told and ends nothing."""
    if service.folder is None:
        return
    try:
        refused = await asyncio.to_thread(service.folder.look)
        service.meters.refused_entries.set(refused)
    # It may have been unmounted; the prompts that are loaded answer on.
    except OSError as error:
        logging.error("The folder of --prompts_dir cannot be looked at: %s", error)
