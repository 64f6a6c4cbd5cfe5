"""What holds of every method in the model: one layout as the other, one device as eight, each row its own set.

What a method computes is tested beside it; a new one gets a line in `CASES`.
"""

import ast
import dataclasses
import functools
import pathlib
import re
import tomllib
from typing import Any

import jax
import numpy as np
import pytest
from flax.linen import partitioning as nn_partitioning

import prompt_tuning
from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files.folded import is_folded
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.attempt import Attempt
from prompt_tuning.models.methods.deep_prompt import DeepPrompt
from prompt_tuning.models.methods.dept import DePT
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.models.methods.method import Method
from prompt_tuning.models.methods.mpt import MPT
from prompt_tuning.models.methods.multitask_prompt import MultitaskPrompt
from prompt_tuning.models.methods.prefix import Prefix
from prompt_tuning.models.methods.residual import Residual
from prompt_tuning.models.methods.several import Several
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import layouts
from prompt_tuning.params.names import is_added, is_method, is_prompt
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from prompt_tuning.prompts import table
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.types import TASK
from tests import both_layouts
from tests.helpers import GOLDEN, tiny_config
from tests.models.conftest import FEATURES, max_difference

# Linen's modules are hashable, which pyright does not see.
_cached: Any = functools.cache
PACKAGE = pathlib.Path(prompt_tuning.__file__).parent


@dataclasses.dataclass(frozen=True)
class Case:
    """A method, and the length of the prompt that it has beside it; 0 for none."""

    method: Method
    prompt_length: int = 0


CASES = {
    "ia3": Case(IA3()),
    "lora": Case(LoRA(targets=(".*",), rank=3, rank_pattern=((".*/key", 2),))),
    "prefix": Case(Prefix(length=3)),
    "deep prompt": Case(DeepPrompt(mode="add"), prompt_length=3),
    "dept": Case(DePT(rank=2, max_length=24), prompt_length=6),
    "residual": Case(Residual(hidden=5), prompt_length=6),
    "multitask_prompt": Case(MultitaskPrompt(tasks=("a", "b"), sees=("causal",)), prompt_length=6),
    "mpt": Case(MPT(tasks=("a", "b"), rank=2), prompt_length=6),
    "attempt": Case(Attempt(sources=(str(GOLDEN / "prompt.npy"),) * 2, bottleneck=5), 6),
    "several": Case(
        Several(
            methods=(
                DePT(rank=2, max_length=24),
                DeepPrompt(),
                LoRA(targets=(".*/query",), rank=2),
                Prefix(length=2),
                IA3(),
            )
        ),
        prompt_length=6,
    ),
}
# The others give rows what belongs to their tasks, or leave plain prompts.
IN_TABLES = {
    name: case
    for name, case in CASES.items()
    if not case.method.task_names and not is_folded(case.method.describe())
}


def _module(case: Case, *, scan_layers: bool = False) -> T5:
    prompt = PromptConfig(length=case.prompt_length) if case.prompt_length else None
    config = tiny_config(dropout_rate=0.0, scan_layers=scan_layers)
    return T5(config, prompt, case.method)


def _init(module: T5) -> Any:
    ids = np.ones((1, 1), np.int32)
    return module.init({"params": jax.random.key(0)}, ids, ids, ids, enable_dropout=False)


@_cached
def _weights(module: T5) -> dict[str, np.ndarray]:
    variables = jax.jit(functools.partial(_init, module))()
    return {path: np.asarray(x) for path, x in tree.flatten(variables["params"]).items()}


@_cached
def _abstract(module: T5) -> tuple[dict, dict]:
    """Shapes and logical axes of all parameters by path."""
    variables = jax.eval_shape(functools.partial(_init, module))
    axes = tree.flatten(nn_partitioning.get_axis_names(variables["params_axes"]))
    return tree.flatten(variables["params"]), {path: tuple(axes[path]) for path in axes}


def _added(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values, none of them small, of all that a case adds to an unscanned model."""
    rng = np.random.default_rng(seed)
    shapes = {path: x.shape for path, x in _abstract(_module(case))[0].items() if is_added(path)}
    return {p: rng.uniform(0.5, 1.5, shape).astype(np.float32) for p, shape in shapes.items()}


@_cached
def _compiled(module: T5) -> Any:
    return jax.jit(EncoderDecoderModel(module, None, None).apply)


def _run(module: T5, flat: dict, batch: dict) -> np.ndarray:
    return np.asarray(_compiled(module)(tree.unflatten(flat), batch))


@pytest.fixture
def batch(reference) -> dict[str, np.ndarray]:
    features = {name: reference.batch[name] for name in FEATURES}
    rows = len(features["encoder_input_tokens"])
    # What methods read that tell tasks apart.
    return {**features, TASK: np.arange(rows, dtype=np.int32) % 2}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scanned_on_a_mesh_it_is_what_it_is_unscanned_on_one_device(reference, batch, case):
    flat = {**reference.frozen, **_added(case)}
    expected = _run(_module(case), flat, batch)
    module, scanned = _module(case, scan_layers=True), both_layouts.to_scanned(flat)
    partitioner = PjitPartitioner(
        num_partitions=2, logical_axis_rules=standard_logical_axis_rules()
    )
    shapes, axes = _abstract(module)
    assert {p: x.shape for p, x in shapes.items()} == {p: x.shape for p, x in scanned.items()}
    shardings = partitioner.param_shardings(axes, shapes)
    placed = {path: jax.device_put(leaf, shardings[path]) for path, leaf in scanned.items()}
    with partitioner.activate():
        logits = _run(module, placed, partitioner.shard_batch(batch))
    real = reference.is_target
    assert max_difference(logits[real], expected[real]) <= 2e-5
    # What is added moves the model.
    assert max_difference(expected[real], _run(T5(module.config), scanned, batch)[real]) > 0.01


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_of_a_seed_stay_and_what_is_added_is_known_by_its_name(case):
    config = tiny_config(num_encoder_layers=1, num_decoder_layers=1)
    tuned, flat = _weights(_module(case).clone(config=config)), _weights(T5(config))
    for path, leaf in flat.items():
        np.testing.assert_array_equal(leaf, tuned[path])
    added = {path for path in tuned if is_added(path)}
    assert added == set(tuned) - set(flat) and any(map(is_method, added))
    assert {tuned[path].dtype for path in added} == {np.dtype("float32")}
    case.method.check([path for path in added if is_method(path)])


@pytest.mark.parametrize("case", IN_TABLES.values(), ids=IN_TABLES)
def test_rows_of_one_batch_take_sets_of_their_own(reference, batch, case):
    module, chosen = _module(case, scan_layers=True), np.array([1, 0, 0, 1], np.int32)
    batch = {name: x[: len(chosen)] for name, x in batch.items()}
    own = [both_layouts.to_scanned({**reference.frozen, **_added(case, n)}) for n in (0, 1)]
    layers_first = lambda p, x: np.moveaxis(x, 1, 0) if layouts.is_stacked(p) else x  # noqa: E731
    added = [{p: layers_first(p, x) for p, x in flat.items() if is_method(p)} for flat in own]
    prompts = [x for flat in own for p, x in flat.items() if is_prompt(p)]
    params = {**own[0], table.TABLE: table.make_table(prompts, added)}
    got = _run(module, params, {**batch, table.INDEX: chosen})
    alone = np.stack([_run(module, flat, batch) for flat in own])
    real = batch["decoder_target_tokens"] > 0
    assert max_difference(got[real], alone[chosen, np.arange(len(chosen))][real]) <= 2e-5
    assert max_difference(alone[0][real], alone[1][real]) > 0.01


def test_the_models_know_no_method_by_name():
    """But a method's own file: what acts where is decided by the hooks that it overrides."""
    names = tomllib.loads((PACKAGE / "config/names.toml").read_text(encoding="utf-8"))
    targets = re.findall(r"prompt_tuning\.models\.methods\.(\w+):(\w+)", str(names))
    assert len(targets) > 0
    files = [p for p in (PACKAGE / "models").rglob("*.py") if p.parent.name != "methods"]
    files.append(PACKAGE / "models/methods/method.py")
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            words = [getattr(node, field, None) for field in ("id", "attr", "name", "module")]
            words.append(node.value if isinstance(node, ast.Constant) else None)
            texts = [word for word in words if isinstance(word, str)]
            for module, name in targets:
                is_named = name in texts or any(t.endswith(f"methods.{module}") for t in texts)
                found += [f"{file.name}: {name}"] * is_named
    assert not found
