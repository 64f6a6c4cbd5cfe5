"""What the benchmarks share: flags, models of the shipped sizes, memory, and rows of JSON."""

import argparse
import importlib.resources
import json
import pathlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_tuning.models.config import T5Config

MIB = 2**20


def config_of(size: str) -> "T5Config":
    """Returns the T5 1.1 of a shipped size or of a rung of the ladder; "tiny" is one for tests."""
    # The other side of a comparison measures its memory too, without JAX in it.
    from prompt_tuning.models.config import T5Config

    if size == "tiny":
        sizes = {"NUM_HEADS": 4, "HEAD_DIM": 8, "EMBED_DIM": 32, "MLP_DIM": 64}
        sizes |= {"NUM_ENCODER_LAYERS": 2, "NUM_DECODER_LAYERS": 2}
    else:
        folder = importlib.resources.files("prompt_tuning") / "configs"
        names = [f"models/sizes/{size}.gin"]
        if not (folder / names[0]).is_file():
            names = ["ladder/t5.gin", f"ladder/{size}.gin"]
        text = "".join((folder / name).read_text() for name in names)
        found = re.findall(r"^(\w+) = (\d+)(?: *#.*)?$", text, re.M)
        sizes = {name: int(value) for name, value in found}
    return T5Config(
        vocab_size=sizes.get("NUM_EMBEDDINGS", 32128),
        emb_dim=sizes["EMBED_DIM"],
        num_heads=sizes["NUM_HEADS"],
        num_encoder_layers=sizes["NUM_ENCODER_LAYERS"],
        num_decoder_layers=sizes["NUM_DECODER_LAYERS"],
        head_dim=sizes["HEAD_DIM"],
        mlp_dim=sizes["MLP_DIM"],
    )


def parser(description: str | None, *, sizes: str) -> argparse.ArgumentParser:
    """Returns a parser of the flags that every benchmark of shipped sizes has.

    Args:
      description: For --help.
      sizes: The default of --sizes.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sizes", default=sizes, help="separated by commas, ascending")
    made.add_argument("--json", type=pathlib.Path, help="file to append the rows to")
    return made


def append(path: pathlib.Path | None, row: Any) -> None:
    """Appends a row to a file of JSON lines, if there is to be one."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def peak_bytes() -> int:
    """Returns the most memory that was resident in this process so far. Linux only."""
    # getrusage's maximum counts in the parent, as it was when this process was started.
    status = pathlib.Path("/proc/self/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    assert match is not None, status
    return int(match[1]) * 1024


def forget_peak() -> None:
    """Makes `peak_bytes` count from what is resident now. Linux only."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
