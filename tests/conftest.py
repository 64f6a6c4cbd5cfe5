"""Every test runs on eight fake CPU devices, without a network, and with JAX at its strictest.

Annotations are not checked at run time: `--jaxtyping-packages=prompt_tuning,beartype.beartype` works with Linen's
modules, but stops wherever a test hands NumPy arrays to a parameter that is annotated `jax.Array`.
"""

import contextlib
import gc
import importlib.metadata
import ipaddress
import os
import pathlib
import socket
import tempfile

import pytest

from tests import helpers

# Tracing makes objects by the million, nearly all of which stay: walking them less often saves a tenth.
gc.set_threshold(200_000, 20, 100)

# XLA reads its flags when the first backend starts, so they are set before anything imports jax.
_XLA_FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    # One LLVM module per program: cutting a tiny one into 32 costs half as much again as compiling it.
    "--xla_cpu_parallel_codegen_split_count": "1",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The older code generator, which later releases lack, compiles tiny models twice as fast.
    _XLA_FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
for _name, _value in _XLA_FLAGS.items():
    if _name not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_name}={_value}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# TensorFlow's file system would otherwise ask a metadata server whether it runs in Google's cloud.
os.environ.setdefault("NO_GCE_CHECK", "true")
# Most of the time goes into compiling tiny models: fewer passes over each one, and each one only once among the
# workers and the processes that tests start. A folder named from outside is kept for the next run.
# JAX_DISABLE_MOST_OPTIMIZATIONS=false compiles about as a run does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# To keep what compiles in less costs more than to compile it again.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
_COMPILED: tempfile.TemporaryDirectory | None = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(
        prefix="prompt-tuning-tests-", ignore_cleanup_errors=True
    )
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name

# What takes longest is begun first, so that nobody waits for it at the end.
_LONGEST = (
    "run/test_processes.py",
    "run/test_resume.py",
    "faults/",
    "parity/test_golden.py",
    "launch/studies/test_ladder.py",
    "parity/test_t0_tfew.py",
    "commands/sweep/test_runner.py",
    "launch/benchmarks/speed/test_main.py",
    "commands/tasks/test_command.py",
    "test_train.py",
    "test_infer.py",
    "test_t5x_commands.py",
)

_LOCAL_NAMES = frozenset({"localhost", "", "0.0.0.0", "::", socket.gethostname()})


def _is_loopback(host: object) -> bool:
    """Whether connecting to `host` stays on this machine."""
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def pytest_collection_modifyitems(items):
    """Puts the longest files in front, where `--no-loadscope-reorder` keeps them; skips what lacks its data."""
    place = helpers.REPO.parent / "shared"
    missing = pytest.mark.skip(reason=f"needs the reference data beside the checkout ({place})")
    for item in items if helpers.SHARED is None else ():
        if item.get_closest_marker("shared"):
            item.add_marker(missing)
    prefixes = [f"tests/{name}" for name in _LONGEST]
    last = len(prefixes)
    items.sort(
        key=lambda item: next(
            (i for i, name in enumerate(prefixes) if item.nodeid.startswith(name)), last
        )
    )


def pytest_xdist_make_scheduler(config, log):
    """Keeps tests of one file in one process, as `--dist loadfile` does, and those of some folders.

    What these work on takes long to make.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            folders = ("tests/faults", "tests/commands/serve")
            return next((f for f in folders if file.startswith(f"{f}/")), file)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_unconfigure():
    """Removes the compiled programs, in the process that chose their folder."""
    if _COMPILED is not None:
        _COMPILED.cleanup()


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Makes a connection to another machine fail at once, with the address in the message."""
    patch = pytest.MonkeyPatch()

    def guarded(original):
        def connect(self, address, *args):
            if isinstance(address, tuple) and not _is_loopback(address[0]):
                raise ConnectionRefusedError(f"tests have no network: connection to {address}")
            return original(self, address, *args)

        return connect

    resolve = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if not _is_loopback(host):
            raise socket.gaierror(f"tests have no network: looked up {host}")
        return resolve(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def strict_numerics(request):
    """Forbids silent dtype and rank promotion, except where a test says `loose_numerics` and why."""
    marker = request.node.get_closest_marker("loose_numerics")
    if marker is not None:
        assert marker.kwargs.get("reason") or marker.args, "loose_numerics needs a reason"
        yield
        return
    import jax

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        yield


@pytest.fixture(scope="session")
def tiny_vocabulary(tmp_path_factory) -> pathlib.Path:
    """Path of a 256-piece SentencePiece model, trained once per session (vocab_size of `tiny_config`)."""
    path = tmp_path_factory.mktemp("vocabulary") / "sentencepiece.model"
    return helpers.train_sentencepiece(path)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What tiny runs read (`tiny_run.TinyInputs`), made once; no test writes to them."""
    from tests import tiny_run

    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))
