"""Soft prompts for frozen T5 models in JAX, with T5X's names, files and checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_tuning.tuning import tune as tune


def __getattr__(name: str) -> Any:
    """Imports what takes seconds to import when it is first asked for."""
    if name == "tune":
        from prompt_tuning.tuning import tune

        return tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
