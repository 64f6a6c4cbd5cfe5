"""What notebooks/tune_a_prompt.ipynb does besides naming a model and a task: it goes on across sessions.

A free notebook ends after some hours, and its disk with it. So the run's folder, which is small, is packed into one
file now and then and at the end, and that file is put where the next session finds it: in a folder that stays (Colab's
Drive) or in a private Kaggle data set. Imports nothing that has to be installed on the notebook's own Python.
"""

import abc
import contextlib
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from prompt_tuning.launch import processes

# A tar file under another name: Kaggle would unpack it.
PACKED = "prompt_tuning_run.bin"
# Checkpoints that are being written have this in their name.
_UNFINISHED = ".orbax-checkpoint-tmp"
# From the notice to the kill: a save takes at most ten seconds, once the step it is in has ended.
_GRACE_SECONDS = 120.0


def place() -> str:
    """Returns `kaggle`, `colab` or `elsewhere`."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ else "elsewhere"


class Keeper(abc.ABC):
    """Where a run waits for the next session."""

    @abc.abstractmethod
    def get(self) -> pathlib.Path | None:
        """The packed run, or None in the first session."""

    @abc.abstractmethod
    def put(self, packed: pathlib.Path) -> None:
        """Replaces the packed run."""


class Folder(Keeper):
    """A folder that stays, such as one on Drive.

    Args:
      path: The folder; made when it is first needed.
    """

    def __init__(self, path: str | pathlib.Path):
        self._path = pathlib.Path(path)

    def get(self) -> pathlib.Path | None:
        """The packed run, or None in the first session."""
        packed = self._path / PACKED
        return packed if packed.exists() else None

    def put(self, packed: pathlib.Path) -> None:
        """Replaces the packed run; the one before stays until the new one is complete."""
        self._path.mkdir(parents=True, exist_ok=True)
        unfinished = self._path / f"{PACKED}.new"
        shutil.copyfile(packed, unfinished)
        os.replace(unfinished, self._path / PACKED)


class KaggleDataset(Keeper):
    """A private Kaggle data set; every session adds versions to it.

    Args:
      handle: `USER/NAME`.
    """

    def __init__(self, handle: str):
        self._handle = handle

    def get(self) -> pathlib.Path | None:
        """The newest version's packed run, or None where there is no such data set yet."""
        try:
            folder = _hub().dataset_download(self._handle)
        except _hub().exceptions.KaggleApiHTTPError as error:
            # Kaggle answers 403 for a private data set that does not exist.
            if error.response is not None and error.response.status_code in (403, 404):
                return None
            raise
        # Were it missing, the run would start at its beginning and replace the one that is kept.
        return next(pathlib.Path(folder).rglob(PACKED))

    def put(self, packed: pathlib.Path) -> None:
        """Adds a version."""
        _hub().dataset_upload(self._handle, str(packed.parent), version_notes="prompt-tuning")


def _hub() -> Any:
    """Kaggle's package, which every Kaggle notebook has and nothing here requires."""
    hub = importlib.import_module("kagglehub")
    importlib.import_module("kagglehub.exceptions")
    return hub


def restore(keeper: Keeper, model_dir: str | pathlib.Path) -> bool:
    """Unpacks the run of the last session, unless this session has it already.

    Args:
      keeper: Where it waits.
      model_dir: The run's folder.

    Returns:
      Whether there is anything to go on from.
    """
    folder = pathlib.Path(model_dir)
    if folder.exists():
        print(f"{folder} is here already")
        return True
    packed = keeper.get()
    if packed is None:
        print("Nothing was kept: the run starts at its beginning")
        return False
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    print(f"The run goes on from {', '.join(sorted(p.name for p in folder.glob('checkpoint_*')))}")
    return True


def keep(keeper: Keeper, model_dir: str | pathlib.Path) -> None:
    """Packs the run's folder and hands it to the keeper; does nothing before the folder exists.

    Args:
      keeper: Where it will wait.
      model_dir: The run's folder.
    """
    folder = pathlib.Path(model_dir)
    if not folder.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        packed = pathlib.Path(scratch) / PACKED
        with tarfile.open(packed, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and _UNFINISHED not in str(path):
                    # The run may remove an old checkpoint meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        archive.add(path, arcname=str(path.relative_to(folder)))
        keeper.put(packed)


def run(
    command: Sequence[str],
    model_dir: str | pathlib.Path,
    keeper: Keeper,
    *,
    hours: float,
    keep_every_minutes: float = 30.0,
) -> int:
    """Runs a command, keeps its folder now and then, and stops it before the session ends.

    Args:
      command: The words of a `prompt-tuning train` that writes into `model_dir`.
      model_dir: The run's folder.
      keeper: Where the run waits for the next session.
      hours: After so long the run is told to save and to end. Unit: hours.
      keep_every_minutes: Time between two versions. Unit: minutes.

    Returns:
      The command's exit code: 0 at the end of the run; any other where another session has to go on.
    """
    process, printer = processes.start(list(command))
    with _stopped_at_the_end(process):
        deadline = time.monotonic() + 3600 * hours
        while process.poll() is None and time.monotonic() < deadline:
            pause = min(60 * keep_every_minutes, deadline - time.monotonic())
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(pause, 0.0))
            if process.poll() is None and time.monotonic() < deadline:
                keep(keeper, model_dir)
    printer.join()
    keep(keeper, model_dir)
    if process.returncode == processes.USER_ERROR:
        print("The error above would come again: mend what it names, then run the notebook again")
    elif process.returncode:
        print(f"Exit code {process.returncode}: run the notebook again to go on from the last save")
    return process.returncode


@contextlib.contextmanager
def _stopped_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    """Tells a process that still runs to save and end, whatever ended the wait for it."""
    try:
        yield
    finally:
        if process.poll() is None:
            print("This session's time is over, or it was interrupted: the run saves", flush=True)
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                processes.kill(process)
