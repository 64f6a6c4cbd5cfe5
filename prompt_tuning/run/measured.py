"""The metrics that evaluations by decoding have left, line by line, and the digests of these lines.

`inference_eval/{task}-metrics.jsonl` is SeqIO's and stays as T5X's users know it. The `digests.json` beside it tells a
line that was damaged from one that was written, for those who choose a step by it.
"""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError, DataError

FOLDER = "inference_eval"
_SUFFIX = "-metrics.jsonl"
_DIGESTS = "digests.json"


def seal(output_dir: epath.Path) -> None:
    """Notes the digests of lines that are new; to be called by process 0 after each evaluation.

    Args:
      output_dir: Parent of `inference_eval/`.
    """
    folder = output_dir / FOLDER
    known = _digests(folder)
    for path in _files(folder):
        old = known.get(path.name, [])
        known[path.name] = [*old, *map(content.of_bytes, _lines(path)[len(old) :])]
    json_files.write_atomically(folder / _DIGESTS, json_files.encode(known))


def read(output_dir: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (task, what a line says), file by file.

    Args:
      output_dir: Parent of `inference_eval/`.

    Raises:
      DataError: If a line is not what was written.
    """
    folder = output_dir / FOLDER
    known = _digests(folder)
    for path in _files(folder):
        digests = known.get(path.name, [])
        for number, line in enumerate(_lines(path)):
            try:
                if number < len(digests) and content.of_bytes(line) != digests[number]:
                    raise ValueError("other content than was written")
                values = json.loads(line)
                yield path.name.removesuffix(_SUFFIX), {**values, "step": int(values["step"])}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}:{number + 1} is damaged",
                    got=f"{type(error).__name__}: {error}",
                    expected="what the evaluation of a step wrote",
                    fix=f"delete {output_dir}, to have the run made again",
                ) from error


def _files(folder: epath.Path) -> list[epath.Path]:
    """The files of metrics."""
    return sorted(filter(content.is_file, folder.glob(f"*{_SUFFIX}"))) if folder.exists() else []


def _lines(path: epath.Path) -> list[bytes]:
    """The lines of a file."""
    return path.read_bytes().splitlines()


def _digests(folder: epath.Path) -> dict[str, list[str]]:
    """File -> digests of its first lines; empty where none were noted, or they are damaged: then nothing is known."""
    file = folder / _DIGESTS
    try:
        return json_files.read(file, expected="digests", fix="") if file.exists() else {}
    except CheckpointError:
        return {}
