"""Room for the TPU compiler's threads, which need more stack than systems give by default."""

import os
import sys


def allow_deep_stacks() -> None:
    """Starts this program once more with the largest stacks that the system allows, unless it has them.

    libtpu 0.0.42 ends in a stack overflow on XXL for `v5e:2x4` where the limit is the usual 8 MiB. What a thread gets
    is settled when its program starts.
    """
    try:
        import resource
    except ImportError:
        return  # Not a Unix; libtpu does not exist there either.
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == hard:
        return
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
