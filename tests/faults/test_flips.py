"""One flipped bit in any file that is read back: it is told, or what is read is what was written."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.checkpoints.ledger import Ledger
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.checkpoints.prompt_files.source import read_source
from prompt_tuning.checkpoints.prompt_files.write import save_prompts, write_prompt
from prompt_tuning.commands.report import rows as report_rows
from prompt_tuning.commands.sweep.results import Table, read_cells
from prompt_tuning.errors import PromptTuningError
from prompt_tuning.run import measured
from prompt_tuning.run.shard import Shard
from tests.checkpoints.run_states import make_state, save_steps, to_abstract
from tests.checkpoints.tiny_params import make_unscanned

PROMPT = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
INFO = {"step": 3, "frozen_digest": "ab", "model": {"emb_dim": 8}}
SETTINGS = {"BATCH_SIZE": 8, "the task": {"files": "ab"}}
ROW = {
    "sweep": "tiny",
    "scale": None,
    "cell": "seed=0",
    "key": "ab",
    "status": "done",
    "score": 71.5,
    "axes": {"seed": "0"},
}


def _told(read: Callable[[], Any]) -> Any:
    """What is read; None where it is told that nothing can be."""
    try:
        return read()
    except PromptTuningError:
        return None


def _write_run(folder):
    save_steps(folder, 1, 2, keep=None)


def _resume(folder):
    """The step that a run goes on from, its state and its metadata."""
    checkpointer = Checkpointer(folder, keep=None)
    step = checkpointer.latest_step()
    assert step is not None
    state, metadata = checkpointer.restore(step, to_abstract(make_state(step)))
    checkpointer.close()
    return step, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], metadata


def _same_resume(folder, found):
    step, leaves, metadata = found
    written = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(make_state(step))]
    # A damaged one is set aside by name, and the one before goes on.
    is_aside = step == 2 or (folder / "damaged_checkpoint_2").is_dir()
    return leaves == written and metadata == {"step": step} and is_aside


def _read_prompt_of_checkpoint(folder):
    prompt, info = read_source(folder / "checkpoint_1")
    # Where it was read from, which is another folder for each flip.
    del info["exported_from"]
    return prompt.tobytes(), info


def _write_weights(folder):
    writer = weights.WeightsWriter(folder / "w")
    params = make_unscanned()
    params["token_embedder/embedding"] = params["token_embedder/embedding"].astype(jnp.bfloat16)
    for name, array in params.items():
        writer.write(name, array)
    origin = {
        "kind": "t5x",
        "path": "/a",
        "step": 1,
        "frozen_digest": "a",
        "trainable_paths": [],
        "metadata": {},
    }
    writer.finish(source=origin, digest="ab")


def _read_weights(folder):
    source = open_source(folder / "w")
    assert isinstance(source, weights.WeightsSource)
    arrays = {path: source.read(path).tobytes() for path in source.shapes()}
    return arrays, source.digest, source.step


def _prompt_of(name: str) -> Callable[[pathlib.Path], Any]:
    def read(folder):
        prompt, info = load_prompt(folder / name)
        return prompt.tobytes(), {key: (info or {}).get(key) for key in INFO}

    return read


def _write_shard(folder, *, finish: bool):
    shard = Shard(epath.Path(folder), "x", SETTINGS)
    shard.open()
    shard.write_chunk(0, ["one", "two"])
    shard.write_chunk(1, ["three"])
    if finish:
        shard.finish(2)


def _go_on_with_shard(folder):
    shard = Shard(epath.Path(folder), "x", SETTINGS)
    done = shard.open()
    for number in range(done or 0, 2 if done is not None else 0):
        shard.write_chunk(number, [["one", "two"], ["three"]][number])
    if done is not None:
        shard.finish(2)
    return shard.final.read_text()


def _write_ledger(folder):
    Ledger(folder).record(4, "accuracy", 71.5)


def _write_table(folder):
    Table(folder).append(ROW)
    Table(folder).append({**ROW, "cell": "seed=1", "key": "cd"})


def _same_rows(_, found):
    written = [ROW, {**ROW, "cell": "seed=1", "key": "cd"}]
    return all(row in written for row in found)


def _read_report(folder):
    return [dict(row) for sweep in report_rows.read([str(folder)]).sweeps for row in sweep.cells]


def _write_metrics(folder):
    (folder / "inference_eval").mkdir()
    text = "".join(json.dumps({"step": n, "accuracy": 50.0 + n}) + "\n" for n in (2, 4))
    (folder / "inference_eval" / "t-metrics.jsonl").write_text(text)
    measured.seal(epath.Path(folder))


# What is written, how it is read back, and whether that is right; None compares with what was read before the flip.
KINDS: dict[str, tuple[Callable, Callable, Callable | None]] = {
    "checkpoint that a run goes on from": (_write_run, _resume, _same_resume),
    "checkpoint that a prompt is taken from": (
        lambda folder: Checkpointer(folder).save(
            1,
            {"trainable": {"encoder": {"prompt": {"prompt": {"prompt": jnp.asarray(PROMPT)}}}}},
            INFO,
        ),
        _read_prompt_of_checkpoint,
        None,
    ),
    "converted weights": (_write_weights, _read_weights, None),
    "prompt of a run": (
        lambda folder: save_prompts(folder, 3, {"encoder/prompt/prompt/prompt": PROMPT}, INFO),
        _prompt_of("numpy_checkpoints/checkpoint_3"),
        None,
    ),
    **{
        f"prompt as {name}": (
            lambda folder, name=name, form=form: write_prompt(
                folder / name, PROMPT, INFO, file_format=form
            ),
            _prompt_of(name),
            None,
        )
        for name, form in (("p.npy", "npy"), ("p.safetensors", "safetensors"), ("p", "peft"))
    },
    "finished predictions": (lambda f: _write_shard(f, finish=True), _go_on_with_shard, None),
    "unfinished predictions": (lambda f: _write_shard(f, finish=False), _go_on_with_shard, None),
    "best.json": (
        _write_ledger,
        lambda folder: Ledger(folder).best,
        lambda _, found: (
            not found or found["accuracy"]["step"] == 4 and found["accuracy"]["value"] == 71.5
        ),
    ),
    "results.jsonl": (_write_table, lambda folder: Table(folder).read(), _same_rows),
    "results.jsonl in a report": (_write_table, _read_report, _same_rows),
    "cells.json": (
        lambda folder: (folder / "cells.json").write_bytes(
            json_files.encode({"tiny": {"": {"ab": "x"}}})
        ),
        lambda folder: read_cells(folder / "cells.json"),
        lambda _, found: found.get("tiny", {}) in ({}, {"": {"ab": "x"}}),
    ),
    "metrics of evaluations": (
        _write_metrics,
        lambda folder: list(measured.read(epath.Path(folder))),
        None,
    ),
}


def _flip(path: pathlib.Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def count_flips(kind: str, count: int, seed: int, folder: pathlib.Path) -> dict[str, int]:
    """Returns how many of `count` flips in files of a kind were told, harmless, and silently other values."""
    write, read, is_right = KINDS[kind]
    (folder / "sound").mkdir()
    write(folder / "sound")
    shutil.copytree(folder / "sound", folder / "first")
    before = read(folder / "first")
    rng = np.random.default_rng([seed, *kind.encode()])
    counts = {"told": 0, "as written, or set aside": 0, "silent": 0}
    for number in range(count):
        copy = folder / f"flip_{number}"
        shutil.copytree(folder / "sound", copy)
        files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size]
        sizes = np.array([path.stat().st_size for path in files])
        # Files alike, so that small ones are met too.
        shares = sizes / sizes.sum() if rng.random() < 0.5 else None
        file = files[int(rng.choice(len(files), p=shares))]
        bit = int(rng.integers(file.stat().st_size * 8))
        _flip(file, bit)
        found = _told(lambda copy=copy: read(copy))
        if found is None:
            counts["told"] += 1
        elif found == before if is_right is None else is_right(copy, found):
            counts["as written, or set aside"] += 1
        else:
            counts["silent"] += 1
            print(f"{kind}: {file.relative_to(copy)}, bit {bit}: {str(found)[:500]}")
        shutil.rmtree(copy)
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_no_flip_is_read_as_another_value(kind, tmp_path):
    counts = count_flips(kind, 6, seed=0, folder=tmp_path)
    assert counts["silent"] == 0 and sum(counts.values()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000])
def test_none_of_many_flips_is_read_as_another_value(count, tmp_path):
    """With -s prints how many were told; `-k` and this number choose how long it takes."""
    each = -(-count // len(KINDS))
    total = {}
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        total[kind] = count_flips(kind, each, seed=1, folder=tmp_path / kind)
        print(f"{kind:42} {json.dumps(total[kind])}", flush=True)
    assert sum(found["silent"] for found in total.values()) == 0
    assert sum(sum(found.values()) for found in total.values()) >= count
