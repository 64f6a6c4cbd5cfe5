"""Time and memory of an ensemble of prompts beside as many separate runs, in one process, with random weights.

Run `python -m prompt_tuning.launch.benchmarks.ensembles`; it reads no data and needs neither TensorFlow nor SeqIO.
The ensemble decodes every example once for each prompt in one batch, over one copy of the frozen weights. The separate
runs have a prompt and a copy of the weights each, as separate processes would, and decode the same examples one run
after the other. Rounds alternate between the two.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.measuring import MIB
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts import table
from prompt_tuning.prompts.config import PromptConfig

ENSEMBLE, SEPARATE = "ensemble", "separate runs"


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is decoded.

    Attributes:
      num_prompts: K.
      examples: Examples decoded at once; the ensemble's batch has K times as many rows.
      inputs: Tokens of an input (L).
      targets: Tokens decoded (T).
      prompt_length: Rows of each prompt (P).
      dtype: Of weights and activations.
    """

    num_prompts: int = 5
    examples: int = 2
    inputs: int = 64
    targets: int = 8
    prompt_length: int = 100
    dtype: str = "float32"


def measure(size: str, work: Workload, *, num_rounds: int) -> dict[str, Any]:
    """Returns a row of figures, those of both ways by their names; a way that does not fit has an `error`.

    Args:
      size: A shipped size, or "tiny".
      work: What is decoded.
      num_rounds: Timed rounds, after one that is not.
    """
    config = dataclasses.replace(
        measuring.config_of(size), dtype=work.dtype, param_dtype=work.dtype, scan_layers=True
    )
    model = EncoderDecoderModel(T5(config, PromptConfig(work.prompt_length)), None, None)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, config.vocab_size, (work.examples, work.inputs)).astype(np.int32)
    shape = (work.num_prompts, work.prompt_length, config.emb_dim)
    prompts = list(rng.uniform(-0.5, 0.5, shape).astype(np.float32))
    frozen = tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    del frozen[PROMPT_PATH]
    params = {**tree.unflatten(frozen), table.TABLE: jax.device_put(table.make_table(prompts))}
    # The rows of an example stand side by side.
    batch = _batch(np.repeat(tokens, work.num_prompts, axis=0), work)
    batch[table.INDEX] = jnp.tile(jnp.arange(work.num_prompts), work.examples)
    # The ensemble's memory is measured before there are more copies.
    ways = {ENSEMBLE: _Way(model, [params], batch)}
    row = {"size": size, "device": jax.devices()[0].device_kind, "jax": jax.__version__}
    row |= dataclasses.asdict(work)
    needed, there_is = work.num_prompts * _num_bytes(frozen), _device_bytes("bytes_limit")
    if there_is is not None and needed > there_is:
        error = f"{work.num_prompts} copies of the weights take {needed / MIB:,.0f} MiB, more than"
        row[SEPARATE] = {"error": f"{error} the {there_is / MIB:,.0f} there are"}
    else:
        copies = [frozen] + [jax.tree.map(jnp.copy, frozen) for _ in prompts[1:]]
        all_params = [
            tree.unflatten({**copy, PROMPT_PATH: jnp.asarray(prompt)})
            for copy, prompt in zip(copies, prompts, strict=True)
        ]
        ways[SEPARATE] = _Way(model, all_params, _batch(tokens, work))
    for _ in range(num_rounds):
        for way in ways.values():
            way.run_timed()
    row |= {name: way.figures() for name, way in ways.items()}
    if SEPARATE in ways:
        together = ways[ENSEMBLE].ids.reshape(work.examples, work.num_prompts, -1).swapaxes(0, 1)
        same = (together == ways[SEPARATE].ids).all(axis=-1)
        row["same_answers"], row["answers"] = int(same.sum()), int(same.size)
    return row


class _Way:
    """One of the two ways: a batch is decoded with each of some parameters in turn."""

    def __init__(self, model: EncoderDecoderModel, all_params: Sequence[Any], batch: Any):
        self._all_params, self._batch = all_params, batch
        self._compiled = jax.jit(model.predict).lower(all_params[0], batch).compile()
        self._seconds: list[float] = []
        measuring.forget_peak()
        self.ids = self._run()
        analysis = self._compiled.memory_analysis()
        assert analysis is not None, "CPUs and GPUs have one"
        # What the process and the device held while it ran.
        self._memory = {
            "weight_bytes": _num_bytes(all_params),
            "temp_bytes": analysis.temp_size_in_bytes,
            "host_peak_bytes": measuring.peak_bytes(),
            "device_peak_bytes": _device_bytes("peak_bytes_in_use"),
        }

    def _run(self) -> np.ndarray:
        """Token ids [number of parameters, rows of the batch, T]."""
        return np.stack([np.asarray(self._compiled(p, self._batch)[0]) for p in self._all_params])

    def run_timed(self) -> None:
        """Runs once more."""
        began = time.perf_counter()
        self.ids = self._run()
        self._seconds.append(time.perf_counter() - began)

    def figures(self) -> dict[str, Any]:
        """Memory and times."""
        low, median, high = (1000 * float(np.quantile(self._seconds, q)) for q in (0, 0.5, 1))
        return {**self._memory, "ms": median, "ms_range": [low, high]}


def _device_bytes(name: str) -> int | None:
    """What the device says of its memory; None where it says nothing, as CPUs do."""
    return (jax.devices()[0].memory_stats() or {}).get(name)


def _batch(tokens: np.ndarray, work: Workload) -> dict[str, jax.Array]:
    """Full rows of ids, and as many target positions as are decoded."""
    targets = jnp.zeros((len(tokens), work.targets), jnp.int32)
    return {"encoder_input_tokens": jnp.asarray(tokens), "decoder_input_tokens": targets}


def _num_bytes(params: Any) -> int:
    """Bytes of all arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def format_row(row: dict[str, Any]) -> str:
    """Returns a row as lines: one for each way, and how many answers agree."""
    lines = [
        f"{row['size']}, {row['device']}, {row['dtype']}: {row['num_prompts']} prompts,"
        f" {row['examples']} examples of {row['inputs']} tokens",
        f"{'':<14}{'ms':>10}{'range':>18}{'weights':>10}{'temps':>9}{'host peak':>11}{'device peak':>13}  MiB",
    ]
    for name in (ENSEMBLE, SEPARATE):
        way = row[name]
        if "error" in way:
            lines.append(f"{name:<14}  {way['error']}")
            continue
        low, high = way["ms_range"]
        mib = [way[f"{key}_bytes"] for key in ("weight", "temp", "host_peak", "device_peak")]
        texts = ["-" if value is None else f"{value / MIB:,.0f}" for value in mib]
        lines.append(
            f"{name:<14}{way['ms']:>10.1f}{f'{low:.1f}-{high:.1f}':>18}"
            f"{texts[0]:>10}{texts[1]:>9}{texts[2]:>11}{texts[3]:>13}"
        )
    if "answers" in row:
        lines.append(f"{row['same_answers']} of {row['answers']} answers are the same")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints both ways side by side for each size, smallest first: a device's peak is that of the process so far."""
    parser, work = measuring.parser(__doc__, sizes="small"), Workload()
    add = parser.add_argument
    add("--num_prompts", type=int, default=work.num_prompts)
    add("--examples", type=int, default=work.examples)
    add("--inputs", type=int, default=work.inputs)
    add("--dtype", choices=("float32", "bfloat16"), default=work.dtype)
    add("--rounds", type=int, default=5, help="timed rounds")
    flags = parser.parse_args(argv)
    names = ("num_prompts", "examples", "inputs", "dtype")
    work = Workload(**{name: getattr(flags, name) for name in names})
    for size in flags.sizes.split(","):
        row = measure(size, work, num_rounds=flags.rounds)
        print(format_row(row), flush=True)
        measuring.append(flags.json, row)


if __name__ == "__main__":
    main()
