"""Compiled programs are kept beside the run, unless JAX was given a folder."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from prompt_tuning.run import compilation_cache


@pytest.fixture
def jax_folder():
    """Sets JAX's own folder, and takes it back; what compiles at once is not kept unless asked for."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update(names[1], 100.0)
    yield lambda value: jax.config.update(names[0], value)
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def test_programs_are_kept_in_the_runs_folder_however_fast_they_compile(tmp_path, jax_folder):
    jax_folder(None)
    jax.jit(lambda x: x * 3)(jnp.ones(3)).block_until_ready()
    compilation_cache.keep_in(tmp_path)
    jax.jit(lambda x: x * 5 + 1)(jnp.ones(7)).block_until_ready()
    assert list((tmp_path / "compilation_cache").glob("*-cache"))


def test_a_folder_that_was_chosen_stays(tmp_path, jax_folder):
    jax_folder(str(tmp_path / "mine"))
    compilation_cache.keep_in(tmp_path)
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")


def test_on_gs_small_programs_are_compiled_again(jax_folder):
    jax_folder(None)
    compilation_cache.keep_in("gs://bucket/run")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 100.0
