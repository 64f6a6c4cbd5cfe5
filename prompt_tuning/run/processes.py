"""The processes of one run: they find one another, and when one fails the others end instead of waiting for it."""

import contextlib
import glob
import importlib.util
import os
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator

import jax

from prompt_tuning.errors import ConfigError, PromptTuningError, from_machine
from prompt_tuning.run import preemption

# A process that has sent no sign of life for so long is taken for dead. JAX's default is 100. Unit: seconds.
HEARTBEAT_TIMEOUT = 30
# How long to wait for the last process to arrive. JAX's default. Unit: seconds.
INITIALIZATION_TIMEOUT = 300
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/{}"
_METADATA_SECONDS = 3.0


def on_tpu_pod() -> bool:
    """Returns whether this machine is one of several that share a TPU slice.

    Looks for the chips first, so that no other machine is kept waiting for a network. GKE names the workers in the
    environment, a Cloud TPU VM on its metadata server.
    """
    has_chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if not has_chips or importlib.util.find_spec("libtpu") is None:
        return False
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("", "tpu"):
        return False
    if int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1:
        return True
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if name in os.environ:
            return "," in os.environ[name]
    return "," in _metadata("worker-network-endpoints")


def _metadata(attribute: str) -> str:
    """An attribute of this virtual machine; empty where there is none, or no metadata server."""
    request = urllib.request.Request(
        _METADATA.format(attribute), headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as response:
            return response.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def join(
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    *,
    initialization_timeout: int | None = None,
    heartbeat_timeout: int | None = None,
    saves_on_sigterm: bool,
) -> None:
    """Joins the other processes of the run, before any device is touched.

    Args:
      coordinator_address: IP:port of process 0, which listens there and nowhere else. None, as the next two: what the
        pod or the cluster says.
      process_count: Number of processes.
      process_index: This process.
      initialization_timeout: How long to wait for the others. Unit: seconds. None takes
        `INITIALIZATION_TIMEOUT`.
      heartbeat_timeout: After how long without a sign of life a process is taken for dead, which ends the others.
        Unit: seconds. None takes `HEARTBEAT_TIMEOUT`.
      saves_on_sigterm: Whether the run looks for a `preemption.Notice`. Otherwise SIGTERM ends the process at once.

    Raises:
      ConfigError: If nothing says where the other processes are.
    """
    # CPU devices of several processes talk through gloo; accelerators do not look at this.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", saves_on_sigterm)
    if coordinator_address is not None:
        print(f"Joining {process_count} processes at {coordinator_address}", file=sys.stderr)
    try:
        jax.distributed.initialize(
            coordinator_address,
            process_count,
            process_index,
            # JAX would listen on every interface of the machine, and whoever reaches the port can join and end the run.
            coordinator_bind_address=coordinator_address,
            initialization_timeout=initialization_timeout or INITIALIZATION_TIMEOUT,
            heartbeat_timeout_seconds=heartbeat_timeout or HEARTBEAT_TIMEOUT,
        )
    except ValueError as e:
        raise ConfigError(
            "The processes cannot be joined",
            got=str(e),
            expected="a TPU pod or a cluster that JAX knows, or all three flags",
            fix="give --coordinator_address, --process_count and --process_index",
        ) from e


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process as soon as what is inside was preempted, or has failed while other processes wait for it.

    The ordinary way out of a failure waits for the others first, and they wait for this one: nobody would end for
    minutes. After a preemption it spends seconds on taking libraries apart, which the machine may not have any more.
    Exit codes: `preemption.EXIT_CODE`; 2 for an error that a user can mend; 1 for any other.
    """
    try:
        yield
    except preemption.Preempted:
        # Does nothing where there is one process. All of them are here.
        jax.distributed.shutdown()
        _leave(preemption.EXIT_CODE)
    except (Exception, KeyboardInterrupt) as error:
        # Not `jax.process_count()`, which would wait for the others where the accelerator is not open yet.
        if not jax.distributed.is_initialized():
            raise
        told = error if isinstance(error, PromptTuningError) else from_machine(error)
        if told is not None:
            print(f"error: {told}", file=sys.stderr)
        else:
            traceback.print_exc()
        print("This process ends, and with it all others of the run", file=sys.stderr)
        _leave(1 if told is None else 2)


def _leave(code: int) -> None:
    """Ends the process at once; everything that matters has been written and closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
