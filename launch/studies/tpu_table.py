"""Writes the tables of docs/machines/tpu.md: what T5 1.1's sizes take on TPU slices, by `prompt-tuning plan`.

Run `python -m prompt_tuning.launch.studies.tpu_table --results=FILE`. A row compiles for one to ten minutes, in a
process of its own: the compiler keeps several GiB of each. FILE keeps those that are done (a JSON list a line: key
and figures), so that a command that was stopped goes on, and `--sizes`, `--runs` and `--slices` add to it. The tables
are written from all of FILE.
"""

import argparse
import dataclasses
import json
import multiprocessing
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from prompt_tuning.commands.plan import slices
from prompt_tuning.commands.plan.search import Change, Variants

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/machines/tpu.md"
BEGIN, END = "<!-- tpu_table: begin -->\n", "<!-- tpu_table: end -->\n"
SIZES = ("small", "base", "large", "xl", "xxl")
SLICES = ("v3:2x2x1", "v5e:2x4", "v5e:2x2", "v5e:1x1", "v6e:1x1", "v5e:4x4")
HOSTS = SLICES[:2]
_CONFIGS = "prompt_tuning/configs"
_GIB = 2**30
_LENGTHS = "TASK_FEATURE_LENGTHS = {'inputs': 512, 'targets': 8}"
# Tries with more microbatches where a step is too large.
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """One table.

    Attributes:
      title: Its heading.
      model: The model's gin file, for a size.
      file: The run's gin file.
      bindings: Settings besides.
      sizes: Sizes that it is for.
      topologies: Slices that it is for.
      further: Slices for single sizes.
      scanned: Sizes that are compiled with one loop over the layers, though the run's gin file has none: XL's 48
        layers one by one took more than 23 minutes.
    """

    title: str
    model: str
    file: str
    bindings: tuple[str, ...]
    sizes: Sequence[str] = SIZES
    topologies: Sequence[str] = SLICES[:5]
    further: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    scanned: Sequence[str] = ()

    def variants(self, size: str) -> Variants:
        """Returns the run of a size."""
        files = (self.model.format(size=size), self.file)
        bindings = [*self.bindings]
        if size in self.scanned:
            bindings.append("network.T5Config.scan_layers = True")
        return Variants([f"{_CONFIGS}/{file}" for file in files], [(b, b) for b in bindings])


_PROMPT = ("models/t5_1_1_{size}_prompt.gin", "runs/prompt_finetune.gin")
_MODEL = "models/t5_1_1_{size}.gin"
_STEPS = "TRAIN_STEPS_RELATIVE = {}"
# Trained as a whole, XXL does not fit one host.
_BEYOND_A_HOST = {"xxl": ("v5e:4x4",)}
RUNS = {
    "prompt": Run("Prompt tuning", *_PROMPT, (_LENGTHS, _STEPS.format(30_000))),
    "int8": Run(
        "Prompt tuning, int8 weights",
        *_PROMPT,
        (_LENGTHS, _STEPS.format(30_000), "utils.RestoreCheckpointConfig.dtype = 'int8'"),
        SIZES[3:],
        topologies=SLICES[2:4],
    ),
    "model": Run(
        "Model tuning",
        _MODEL,
        "runs/model_finetune.gin",
        (_LENGTHS, _STEPS.format(20_000)),
        topologies=HOSTS,
        further=_BEYOND_A_HOST,
        scanned=SIZES[3:],
    ),
    "lm": Run(
        "LM adaptation",
        _MODEL,
        "runs/lm_adapt.gin",
        (),
        topologies=HOSTS,
        further=_BEYOND_A_HOST,
        scanned=SIZES[3:],
    ),
}


def measure(run: Run, size: str, topology: str) -> dict[str, Any]:
    """Returns the row of one run on one slice, with as many microbatches as it takes to fit.

    Args:
      run: The run.
      size: Of the model.
      topology: The slice.
    """
    variants = run.variants(size)
    planned, cores = variants.read(), slices.num_cores(topology)
    assert planned.trainer is not None
    change = Change()
    if planned.partitioner.model_parallel_submesh or planned.partitioner.num_partitions > cores:
        change = Change(
            (
                ("partitioning.PjitPartitioner.num_partitions", str(cores)),
                ("partitioning.PjitPartitioner.model_parallel_submesh", "None"),
            )
        )
    parts = planned.trainer.num_microbatches or 1
    row: dict[str, Any] = {}
    for _ in range(_TRIES):
        print(f"{run.title}, {size}, {topology}, {parts} microbatches", file=sys.stderr, flush=True)
        microbatches = Change((("trainer.Trainer.num_microbatches", str(parts)),))
        figures = variants.measure(topology, change + microbatches)
        held = figures.weight_bytes_per_core + figures.optimizer_bytes_per_core
        row = {
            **figures.to_json(),
            "batch": planned.batch_size,
            "microbatches": parts,
            "remat": planned.model.config.remat_policy,
        }
        most = planned.batch_size // figures.mesh["data"]
        room = figures.hbm_bytes_per_core - held
        # Gradients of all that is trained stay, however small the microbatches.
        if figures.fits or room <= 0 or parts >= most:
            break
        while parts < most and row["temp_bytes_per_core"] * row["microbatches"] > room * parts:
            parts *= 2
        parts = min(max(parts, 2 * row["microbatches"]), most)
    return row


def tables(rows: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> str:
    """Returns the tables as Markdown.

    Args:
      rows: Run, size and slice -> what `measure` returned.
    """
    compilers = sorted({row["compiler"] for row in rows.values()})
    lines = [f"Compiled by {', '.join(compilers)}. Sizes in GiB, of one core.", ""]
    for name, run in RUNS.items():
        found = [(key, rows[key]) for key in _keys([name], SIZES, SLICES) if key in rows]
        if not found:
            continue
        lines += [f"### {run.title}", ""]
        if run.scanned:
            sizes = ", ".join(map(_shown, run.scanned))
            lines += [f"{sizes}: with `network.T5Config.scan_layers = True`.", ""]
        lines += _HEADER
        lines += [_line(size, topology, row) for (_, size, topology), row in found]
        lines.append("")
    return "\n".join(lines)


_COLUMNS = (
    "size | slice | data x model | batch / parts | remat | peak | of | weights | temporaries | TFLOP | sent, GB"
    " | *traffic, GB* | *step, s* | *run, h* | *chip-hours*"
)
_HEADER = (f"| {_COLUMNS} |", "|" + "---|" * (_COLUMNS.count("|") + 1))


def _shown(size: str) -> str:
    """A size as it is written in text."""
    return size.upper() if size.startswith("x") else size.capitalize()


def _line(size: str, topology: str, row: Mapping[str, Any]) -> str:
    """One row as Markdown."""
    gib = [
        f"{row[f'{name}_bytes_per_core'] / _GIB:.2f}" for name in ("peak", "hbm", "weight", "temp")
    ]
    cells = [
        _shown(size),
        f"`{topology}`",
        f"{row['mesh']['data']} x {row['mesh']['model']}",
        f"{row['batch']} / {row['microbatches']}",
        row["remat"],
    ]
    if not row["fits"]:
        return f"| {' | '.join([*cells, f'**too large**: {gib[0]}', *gib[1:]])} |" + " |" * 6
    if row["flops_per_core"] is None:
        return f"| {' | '.join([*cells, *gib])} |" + " - |" * 6
    cells += [
        *gib,
        f"{row['flops_per_core'] / 1e12:.3f}",
        f"{row['collective_bytes_per_core'] / 1e9:.3f}",
        f"*{row['bytes_moved_per_core'] / 1e9:.1f}*",
        f"*{row['estimated_step_seconds']:.3f}*",
        f"*{row['hours']:.1f}*",
        f"*{row['chip_hours']:.0f}*",
    ]
    return f"| {' | '.join(cells)} |"


def write_page(page: pathlib.Path, text: str) -> None:
    """Puts the tables between the page's markers."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + text + END + after, encoding="utf-8")


def _keys(
    runs: Iterable[str], sizes: Iterable[str], topologies: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Run, size and slice of every row, in order."""
    return [
        (name, size, topology)
        for name in runs
        for size in sizes
        for topology in topologies
        if size in RUNS[name].sizes
        and topology in (*RUNS[name].topologies, *RUNS[name].further.get(size, ()))
    ]


def main() -> None:
    """Compiles what is missing and writes the page."""
    parser = argparse.ArgumentParser(description="Writes the tables of docs/machines/tpu.md.")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="JSONL file of rows")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, help="default: all")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="default: all")
    parser.add_argument("--slices", nargs="+", choices=SLICES, default=SLICES, help="default: all")
    flags = parser.parse_args()
    rows = {}
    if flags.results.exists():
        for line in flags.results.read_text(encoding="utf-8").splitlines():
            key, row = json.loads(line)
            rows[tuple(key)] = row
    for key in _keys(flags.runs, flags.sizes, flags.slices):
        if key not in rows:
            name, size, topology = key
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows[key] = process.submit(measure, RUNS[name], size, topology).result()
            with flags.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, rows[key]]) + "\n")
    write_page(PAGE, tables(rows))


if __name__ == "__main__":
    main()
