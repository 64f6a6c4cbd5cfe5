"""Puts a ladder that `launch/studies/ladder.py` built into the package, in bfloat16.

    python -m prompt_tuning.launch.studies.ship_ladder /path/ladder

What ships stands in `SHIPPED`; the layout is the ladder's own, so that LADDER_DIR may name either.
"""

import argparse
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from etils import epath

from prompt_tuning import ladder as shipped_files
from prompt_tuning.commands import convert
from prompt_tuning.errors import ConfigError, DataError

# Of every rung: both ends, and two stops on the way of LM adaptation, whose length is studied.
_CHECKPOINTS = (
    "pretrained/checkpoint_12000",
    "adapted/checkpoint_120",
    "adapted/checkpoint_600",
    "adapted/checkpoint_1200",
)
SHIPPED = dict.fromkeys(("pico", "nano", "micro", "mini"), _CHECKPOINTS)
_TEXT, _VOCABULARY, _RECORD = "text.json", "vocabulary.model", "rung.json"
# All that ships, and one file of it. Unit: bytes.
MOST_BYTES, MOST_FILE_BYTES = 40_000_000, 4_000_000


def main(argv: Sequence[str] | None = None) -> None:
    """Converts and copies, and says how large the result is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "ladder", type=epath.Path, help="folder that launch/studies/ladder.py wrote"
    )
    parser.add_argument(
        "--target",
        type=pathlib.Path,
        default=pathlib.Path(shipped_files.locate(shipped_files.LADDER)),
        help="default: where the package looks for it",
    )
    flags = parser.parse_args(argv)
    print(f"{ship(flags.ladder, flags.target):,} bytes in {flags.target}")


def ship(ladder: epath.Path, target: pathlib.Path) -> int:
    """Returns the bytes of all files, which take the place of `target`.

    Args:
      ladder: Folder of the ladder.
      target: Folder to make. What it held is dropped once the new files are complete.

    Raises:
      ConfigError: If `target` holds something other than a ladder.
      DataError: If a rung is missing, or too much would ship.
    """
    if target.exists() and any(target.iterdir()) and not (target / _TEXT).is_file():
        raise ConfigError(
            "The target is not a ladder, and would be replaced",
            got=str(target),
            expected="a folder that does not exist, an empty one, or one with a ladder",
            fix="name another --target",
        )
    wanted = [_TEXT, _VOCABULARY, *(f"{rung}/{_RECORD}" for rung in SHIPPED)]
    missing = [name for name in wanted if not (ladder / name).is_file()]
    if missing:
        raise DataError(
            "The ladder is not finished",
            got=f"no {', '.join(missing)} in {ladder}",
            expected="all that launch/studies/ladder.py writes",
            fix="name the --output_dir of `python -m prompt_tuning.launch.studies.ladder`, or run that to its end",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ladder_", dir=target.parent) as folder:
        made = pathlib.Path(folder) / target.name
        for name in wanted:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes((ladder / name).read_bytes())
        for rung, checkpoints in SHIPPED.items():
            for checkpoint in checkpoints:
                convert.convert(
                    str(ladder / rung / checkpoint),
                    str(made / rung / checkpoint),
                    dtype="bfloat16",
                    # Files grow beyond it by at most one array.
                    data_file_bytes=MOST_FILE_BYTES // 2,
                )
        total = _check_sizes(made)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return total


def _check_sizes(folder: pathlib.Path) -> int:
    """The bytes of all files, if that is no more than may ship."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total, largest = sum(sizes.values()), max(sizes, key=sizes.__getitem__)
    if total > MOST_BYTES or sizes[largest] > MOST_FILE_BYTES:
        raise DataError(
            "The ladder is too large to ship",
            got=f"{total:,} bytes, {sizes[largest]:,} of them in {largest.relative_to(folder)}",
            expected=f"at most {MOST_BYTES:,} in all, {MOST_FILE_BYTES:,} a file",
            fix="take checkpoints out of SHIPPED in launch/studies/ship_ladder.py",
        )
    return total


if __name__ == "__main__":
    main()
