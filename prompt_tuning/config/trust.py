"""What the `config.gin` of a run may name: a run that somebody else sent is read, it does not run what it likes.

A gin file is a program: `import` runs a module, and with dynamic registration `@os.system()` calls whatever can be
imported. Of one's own files that is wanted. docs/security.md says which command trusts what.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prompt_tuning.config.files import Source
from prompt_tuning.errors import ConfigError

# Importing them runs nothing that was not run before.
_OWN = ("prompt_tuning", "seqio")
FLAG = "allow_imports"


@dataclasses.dataclass(frozen=True)
class Trust:
    """Which modules files of runs may import and call; this package's names and SeqIO's vocabularies always.

    Attributes:
      modules: Modules, whatever is below them included; None allows everything.
    """

    modules: Sequence[str] | None = ()

    def check_import(self, module: str, source: Source, where: str) -> None:
        """Raises ConfigError if a file may not import a module, or a run not have its tasks registered by it."""
        if not self._covers(module, source, _OWN):
            raise _refused(where, "imports a module, which runs its code", module, module)

    def check_path(self, path: str, source: Source, where: str) -> None:
        """Raises ConfigError if a file may not follow a dotted name through a module to what it holds."""
        # What modules hold is also what they import: `seqio.evaluation.os.system`.
        is_seqios = path.startswith("seqio.") and path.count(".") == 1
        if not is_seqios and not self._covers(path, source):
            raise _refused(where, "names what no run needs", path, path.rpartition(".")[0])

    def check_target(self, target: Any, name: str, source: Source, where: str) -> None:
        """Raises ConfigError if a file may not call a class or function that this package did not register."""
        import seqio

        is_vocabulary = isinstance(target, type) and issubclass(target, seqio.Vocabulary)
        module = getattr(target, "__module__", None) or "builtins"
        if not is_vocabulary and not self._covers(module, source):
            raise _refused(where, f"calls code of {module}", name, module)

    def _covers(self, module: str, source: Source, always: Sequence[str] = ()) -> bool:
        if self.modules is None or not source.is_of_run:
            return True
        return any(f"{module}.".startswith(f"{name}.") for name in (*always, *self.modules))


# For files that the user wrote, or runs as a program.
ANYTHING = Trust(None)


def _refused(where: str, what: str, got: str, module: str) -> ConfigError:
    return ConfigError(
        f"{where}: the config of this run {what}",
        got=got,
        expected="names of this package and SeqIO's vocabularies, or a module that you trust",
        fix=f"look at {module}, and if you trust it add --{FLAG}={module}",
    )
