"""Compiled programs, kept beside the run: a run that starts again loads them instead of compiling for minutes."""

import jax
from absl import logging
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from prompt_tuning.checkpoints import paths

FOLDER = "compilation_cache"


def keep_in(directory: epath.PathLike) -> None:
    """Keeps what is compiled in `directory/compilation_cache`; on gs:// what takes more than a second.

    A folder that JAX was given already (JAX_COMPILATION_CACHE_DIR) stays, for instance one that several runs share.
    Whoever can write to the folder decides what this process executes.

    Args:
      directory: Output folder of the run. JAX finds programs again only in a folder of the same path.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        logging.info("Compiled programs are kept in %s", chosen)
        return
    if not paths.in_object_store(directory):
        # A start compiles dozens of small programs, each of which is read from a disk in less time.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # JAX settles at its first compilation whether there is a cache.
    compilation_cache.reset_cache()
    compilation_cache.set_cache_dir(str(paths.absolute(directory) / FOLDER))
