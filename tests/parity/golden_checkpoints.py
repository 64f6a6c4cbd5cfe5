"""T5X checkpoints read into models of either layout, and the optimizer state in them, against the stored arrays."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.load import load_params
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.optimizer_state.t5x import SLOTS, find_optimizer_state
from prompt_tuning.checkpoints.prompt_files import read
from prompt_tuning.params import layouts
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from tests import both_layouts
from tests.parity.golden_folder import Golden
from tests.parity.rows import NotChecked, Row, differing


def checkpoints(golden: Golden) -> Iterator[Row | NotChecked]:
    """Every T5X checkpoint of the folder, into the unscanned and into the scanned model."""
    found = sorted(path.parent for path in golden.path.glob("*checkpoint*/checkpoint_*/checkpoint"))
    if not found:
        yield NotChecked("t5x_checkpoint*", "not in this folder")
    for folder in found:
        yield from _checkpoint_rows(golden, folder)


def _checkpoint_rows(golden: Golden, folder: pathlib.Path) -> Iterator[Row]:
    """One checkpoint."""
    row = f"checkpoints/{folder.parent.name}"
    source = open_source(folder)
    stored = source.shapes()
    dtypes = {str(np.dtype(dtype)) for _, dtype in stored.values()}
    with_prompt = PROMPT_PATH in stored
    flat = dict(golden.frozen)
    if with_prompt:
        flat[PROMPT_PATH] = _stored_prompt(folder)
    flat = {path: x.astype(jnp.dtype(_dtype(stored, path))) for path, x in flat.items()}
    flat = {path: x.astype(np.float32) for path, x in flat.items()}
    step = int(folder.name.rpartition("_")[2])
    yield Row(f"{row}/step", abs((source.step or 0) - step), 0, "count")
    for scan_layers in (False, True):
        model = golden.model(with_prompt=with_prompt, scan_layers=scan_layers)
        partitioner = PjitPartitioner()
        loaded = load_params(
            source,
            model.param_shapes,
            partitioner.param_shardings(model.param_axes, model.param_shapes),
            dtype="float32",
            model_shapes=model.param_shapes,
        )
        expected = flat
        if scan_layers:
            expected = both_layouts.to_scanned(flat)
        wrong = set(loaded) ^ set(expected)
        wrong |= {p for p in set(loaded) & set(expected) if differing(loaded[p], expected[p])}
        note = f"{len(loaded)} arrays of {', '.join(sorted(dtypes))}"
        name = "scanned" if scan_layers else "unscanned"
        yield Row(f"{row}/{name}", len(wrong), 0, "count", note)


def _dtype(stored: Mapping[str, Any], path: str) -> np.dtype:
    """The dtype in which a parameter is stored, in whichever layout."""
    if path in stored:
        return stored[path][1]
    return stored[layouts.scanned_path(path)[0]][1]


def _stored_prompt(folder: pathlib.Path) -> np.ndarray:
    """The prompt that the authors' checkpointer wrote beside a checkpoint."""
    numpy_folder = folder.parent / "numpy_checkpoints" / folder.name
    return read.load_prompt(numpy_folder)[0]


def optimizer_state(golden: Golden) -> Iterator[Row | NotChecked]:
    """The second moments of the checkpoint, into the optimizers of both layouts."""
    theirs = golden.arrays("optimizer_state.npz")
    checkpoint = golden.meta["checkpoint"]["path"]
    if not golden.has(checkpoint):
        yield NotChecked("optimizer_state.npz", f"its {checkpoint} is not in this folder")
        return
    source = open_source(golden.path / checkpoint)
    for scan_layers in (False, True):
        model = golden.model(with_prompt=False, scan_layers=scan_layers)
        shapes = {path: leaf.shape for path, leaf in model.param_shapes.items()}
        state = find_optimizer_state(source, shapes)
        assert state is not None
        if not scan_layers:
            yield Row(
                "optimizer_state/step", abs((state.step or 0) - int(theirs["step"])), 0, "count"
            )
        wrong = compared = 0
        for path, shape in shapes.items():
            names = [path]
            if layouts.is_stacked(path):
                names = layouts.unscanned_paths(path, shape[layouts.LAYERS_AXIS])
                if names[0] not in golden.frozen:
                    count = shape[layouts.LAYERS_AXIS]
                    names = layouts.unscanned_paths(path, count, relative_bias_per_layer=True)
            for slot in SLOTS:
                arrays = [theirs[f"{name}/{slot}"] for name in names]
                if layouts.is_stacked(path):
                    count = shape[layouts.LAYERS_AXIS]
                    expected = np.stack(arrays * (count // len(arrays)))
                else:
                    (expected,) = arrays
                ours = state.read_slot(path, shape, slot, expected.shape)
                wrong += differing(ours, expected) > 0
                compared += 1
        name = "scanned" if scan_layers else "unscanned"
        yield Row(f"optimizer_state/{name}", wrong, 0, "count", f"{compared} arrays")
