"""The files of one shard of inference: chunks that resume, and a manifest of what they were made from.

    {name}-tmp/manifest.json, {name}-tmp/chunk00000, …   while the shard is being computed
    {name}, {name}.COMPLETED                             when it is done; the second holds the manifest

All but `{name}` carry a digest of their own, and `{name}.COMPLETED` that of `{name}`: nothing damaged is handed out.
Process 0 reads and writes; what it finds, it tells the others.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from prompt_tuning.checkpoints import json_files
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError, ConfigError, DataError, PromptTuningError

_COMPLETE, _FAILED = -1, -2
# In `{name}.COMPLETED`, the digest of `{name}`.
_RESULTS = "results (SHA-256)"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard's files.

    Attributes:
      directory: INFER_OUTPUT_DIR.
      name: Name of the finished file.
      settings: Everything that the results follow from, by the name a user knows it by; JSON values.
    """

    directory: epath.Path
    name: str
    settings: Mapping[str, Any]

    @property
    def final(self) -> epath.Path:
        """The finished file."""
        return self.directory / self.name

    @property
    def completed(self) -> epath.Path:
        """The file that closes it."""
        return self.directory / f"{self.name}.COMPLETED"

    @property
    def unfinished(self) -> epath.Path:
        """The folder of chunks."""
        return self.directory / f"{self.name}-tmp"

    def open(self) -> int | None:
        """Prepares the folder; the same answer in every process.

        Returns:
          The number of chunks that are done, counted up to the first missing one; None if the shard is complete.

        Raises:
          ConfigError: If what is there was made with other settings.
          DataError: If finished results are not what was written.
        """
        state = 0
        failure: Exception | None = None
        if jax.process_index() == 0:
            try:
                state = self._look()
            except (PromptTuningError, OSError) as e:
                state, failure = _FAILED, e
        # One process looks: with several, a folder that changes meanwhile would be seen differently by each.
        if jax.process_count() > 1:
            state = int(multihost_utils.broadcast_one_to_all(np.int32(state)))
        if failure:
            raise failure
        if state == _FAILED:
            raise ConfigError(
                f"INFER_OUTPUT_DIR {self.directory} cannot be used",
                got="the error that process 0 reports",
                expected="a folder that is new or holds results of the same settings",
                fix="see the error of process 0",
            )
        return None if state == _COMPLETE else state

    def write_config(self, text: str) -> None:
        """Writes the resolved gin config into the folder."""
        if jax.process_index() == 0:
            json_files.write_atomically(self.directory / "config.gin", text.encode())

    def write_chunk(self, number: int, lines: Sequence[str]) -> None:
        """Writes the lines of a chunk; does nothing but in process 0."""
        if jax.process_index() == 0:
            chunk = {"lines": list(lines)}
            json_files.write_atomically(self._chunk(number), json_files.encode(chunk))

    def finish(self, num_chunks: int) -> None:
        """Joins the chunks and closes the shard; does nothing but in process 0."""
        if jax.process_index() != 0:
            return
        chunks = [self._read_chunk(number) for number in range(num_chunks)]
        lost = [number for number, lines in enumerate(chunks) if lines is None]
        if lost:
            raise DataError(
                f"A part of the results of {self.name} was damaged meanwhile",
                got=str(self._chunk(lost[0])),
                expected="what was written",
                fix="run the same command again, which goes on there",
            )
        data = "".join(line + "\n" for lines in chunks for line in lines or ()).encode()
        record = {**self.settings, _RESULTS: content.of_bytes(data)}
        json_files.write_atomically(self.final, data)
        json_files.write_atomically(self.completed, json_files.encode(record))
        self.unfinished.rmtree()

    def _chunk(self, number: int) -> epath.Path:
        """The file of one chunk."""
        return self.unfinished / f"chunk{number:05}"

    def _read_chunk(self, number: int) -> list[str] | None:
        """The lines of a chunk; None if it is missing or damaged, which is computed again then."""
        lines = _read(self._chunk(number)).get("lines")
        return lines if isinstance(lines, list) else None

    def _look(self) -> int:
        """Returns `_COMPLETE` or the number of chunks done; leaves a folder with a manifest."""
        if self.completed.exists():
            self._check(self.completed)
            self._check_results()
            if self.unfinished.exists():
                self.unfinished.rmtree()
            return _COMPLETE
        manifest = self.unfinished / "manifest.json"
        if self._chunk(0).exists():
            self._check(manifest)
        else:
            # What failed before its first chunk leaves nothing to go on from, whatever its settings were.
            if self.unfinished.exists():
                self.unfinished.rmtree()
            self.unfinished.mkdir(parents=True)
            json_files.write_atomically(manifest, json_files.encode(self.settings))
        number = 0
        while self._read_chunk(number) is not None:
            number += 1
        return number

    def _check_results(self) -> None:
        """Raises DataError if finished results are not what was written; those of earlier versions are not checked."""
        digest = _read(self.completed).get(_RESULTS)
        present = self.final.read_bytes() if self.final.is_file() else b""
        if digest not in (None, content.of_bytes(present)):
            raise DataError(
                f"{self.final} is damaged, or was edited",
                got="other content than was written",
                expected=f"what {self.completed.name} says ({_RESULTS})",
                fix=f"delete {self.completed}, to have it made again",
            )

    def _check(self, manifest: epath.Path) -> None:
        """Raises ConfigError for the first setting that differs from the recorded one."""
        present = content.unsealed(json.loads(json_files.encode(self.settings)))
        # In the order of the settings, which tells what others follow from first.
        ordered = {name: present[name] for name in self.settings}
        recorded = _read(manifest)
        recorded.pop(_RESULTS, None)
        found = content.difference(recorded, ordered)
        if found:
            name, then, now = found
            raise ConfigError(
                f"{self.directory} holds results of {self.name} that were made with another {name}",
                got=now,
                expected=f"{then!r}, as recorded in {manifest.name}",
                fix=f"choose another INFER_OUTPUT_DIR, or delete {self.directory}",
            )


def _read(path: epath.Path) -> dict[str, Any]:
    """What a file recorded; nothing where it was lost or damaged."""
    try:
        return json_files.read(path, expected="JSON", fix="") if path.exists() else {}
    except CheckpointError as error:
        logging.warning("%s", error)
        return {}
