"""Where a sweep's files are, and the command lines of its cells. Imports nothing heavy."""

import dataclasses
import pathlib

from prompt_tuning.commands.sweep.sweep import OUTPUT_MACROS, Cell, bound


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders of a sweep, and what every cell is given besides its own settings.

    Attributes:
      directory: Output folder: the table, claims and logs; on a file system, shared by all hosts that append.
      runs_dir: Parent of the runs' folders; local or gs://.
      sweep_command: The command line of the sweep, up to what it is to do.
      tfds_data_dir: As `prompt-tuning train --tfds_data_dir`.
      cache_dirs: As `prompt-tuning train --seqio_additional_cache_dirs`.
    """

    directory: str
    runs_dir: str
    sweep_command: tuple[str, ...] = ()
    tfds_data_dir: str | None = None
    cache_dirs: tuple[str, ...] = ()

    def run_dir(self, key: str) -> str:
        """Returns the output folder of a cell's run."""
        return f"{self.runs_dir}/{key}"

    def log(self, cell: Cell) -> pathlib.Path:
        """Returns the file of all that a cell prints, on the machine that runs it."""
        return pathlib.Path(self.directory) / "logs" / f"{cell.key}.log"

    def command(self, cell: Cell) -> list[str]:
        """Returns the command line that makes the run of a cell; its row is not made by all of them."""
        if cell.command not in OUTPUT_MACROS:
            return self.cell_command(cell)
        words = ["prompt-tuning", cell.command]
        words += [f"--gin_file={name}" for name in cell.run.gin_files]
        output = bound(OUTPUT_MACROS[cell.command], self.run_dir(cell.key))
        words += [flag for _, flag in cell.run.flags]
        if cell.search_paths:
            words.append(f"--gin_search_paths={','.join(cell.search_paths)}")
        words.append(output[1])
        if self.tfds_data_dir:
            words.append(f"--tfds_data_dir={self.tfds_data_dir}")
        if self.cache_dirs:
            words.append(f"--seqio_additional_cache_dirs={','.join(self.cache_dirs)}")
        return words

    def cell_command(self, cell: Cell) -> list[str]:
        """Returns the command line that runs a cell, or takes up its finished run, and adds its row."""
        return [*self.sweep_command, f"--cell={cell.key}"]
