"""Compiled programs, kept beside the run: a run that starts again loads them instead of compiling for minutes."""

import jax
from absl import logging
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from prompt_tuning.checkpoints import paths

FOLDER = "compilation_cache"


def keep_in(directory: epath.PathLike) -> None:
    """Keeps what takes more than a second to compile in `directory/compilation_cache`, local or gs://.

    A folder that JAX was given already (JAX_COMPILATION_CACHE_DIR) stays, for instance one that several runs share.
    Whoever can write to the folder decides what this process executes.

    Args:
      directory: Output folder of the run.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        logging.info("Compiled programs are kept in %s", chosen)
        return
    # JAX settles at its first compilation whether there is a cache.
    compilation_cache.reset_cache()
    compilation_cache.set_cache_dir(str(paths.absolute(directory) / FOLDER))
