"""Long prompts, whose second moments are factored: a recorded run made by an Adafactor that is written out here."""

import json
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.params.names import PROMPT_PATH
from tests.parity import golden
from tests.parity.golden_folder import Golden
from tests.parity.golden_forward import loss_and_gradient
from tests.parity.golden_training import prompt_gradient

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")

P, H, STEPS, RATE, WEIGHT_DECAY = 129, 130, 4, 0.01, 1e-5
MODEL = {
    "vocab_size": 17,
    "emb_dim": H,
    "mlp_dim": 12,
    "num_heads": 2,
    "head_dim": 6,
    "num_encoder_layers": 2,
    "num_decoder_layers": 1,
    "mlp_activations": ["relu", "linear"],
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "dtype": "float32",
}
ADAFACTOR = {
    "decay_rate": 0.8,
    "step_offset": 0,
    "multiply_by_parameter_scale": False,
    "weight_decay_rate": WEIGHT_DECAY,
    "factored": True,
    "beta1": None,
    "clipping_threshold": 1.0,
    "min_dim_size_to_factor": 128,
    "epsilon1": 1e-30,
}


def adafactor(prompt, grad, v_row, v_col, step):
    """One update of T5X's Adafactor of a matrix with fewer rows than columns, in float32."""
    one = np.float32(1.0)
    decay = one - np.float32(step + 1) ** np.float32(-0.8)
    square = grad * grad + np.float32(1e-30)
    v_row = decay * v_row + (one - decay) * square.mean(axis=1)
    v_col = decay * v_col + (one - decay) * square.mean(axis=0)
    update = grad * (v_row / v_row.mean())[:, None] ** np.float32(-0.5)
    update = update * v_col[None, :] ** np.float32(-0.5)
    update = update / max(one, np.sqrt(np.mean(update * update)))
    return prompt * np.float32(1 - WEIGHT_DECAY) - np.float32(RATE) * update, v_row, v_col


def write_inputs(folder):
    rng = np.random.default_rng(0)
    meta = {
        "model": MODEL,
        "prompt": {"length": P, "file": "prompt.npy"},
        "loss": {"z_loss": 1e-3, "label_smoothing": 0.1, "loss_normalizing_factor": None},
        "trajectory": {
            "files": {"trajectory.npz": "restored step"},
            "adafactor": ADAFACTOR,
            "learning_rate": f"constant {RATE}",
        },
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    np.savez(folder / "params.npz")
    np.save(folder / "prompt.npy", rng.normal(size=(P, H)).astype(np.float32))
    shapes = Golden(folder).model(with_prompt=False).param_shapes
    params = {
        path: (np.ones(s.shape) if path.endswith("scale") else rng.normal(size=s.shape) / 20)
        for path, s in shapes.items()
    }
    arrays: dict[str, Any] = {path: x.astype(np.float32) for path, x in params.items()}
    np.savez(folder / "params.npz", **arrays)
    targets = np.asarray([[3, 9, 1, 0], [5, 1, 0, 0]], np.int32)
    inputs = np.asarray([[7, 8, 9, 2, 1], [4, 1, 0, 0, 0]], np.int32)
    np.savez(
        folder / "batch.npz",
        encoder_input_tokens=inputs,
        decoder_target_tokens=targets,
        decoder_input_tokens=np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        decoder_loss_weights=(targets > 0).astype(np.int32),
    )


def record(folder, start_step):
    """A run of STEPS updates: this project's gradients, the Adafactor above."""
    reference = Golden(folder)
    value_and_gradient = prompt_gradient(reference)
    prompt, v_row, v_col = reference.prompt, np.zeros(P, "f"), np.zeros(H, "f")
    kept = {name: [] for name in ("grads", "v_row_after", "v_col_after", "loss", "learning_rate")}
    prompts = [prompt]
    for i in range(STEPS):
        loss, grad = value_and_gradient(jnp.asarray(prompt), reference.batch)
        kept["loss"].append(float(loss))
        grad = np.asarray(grad)
        prompt, v_row, v_col = adafactor(prompt, grad, v_row, v_col, start_step + i)
        prompts.append(prompt)
        for name, x in (("grads", grad), ("v_row_after", v_row), ("v_col_after", v_col)):
            kept[name].append(x)
        kept["learning_rate"].append(RATE)
    # T5X's placeholder of what a factored parameter does not use.
    v_after = np.zeros((STEPS, 1), "f")
    return {"start_step": start_step, "prompts": prompts, "v_after": v_after, **kept}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long_prompt")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module", params=[0, 1_100_000], ids=["fresh", "restored"])
def recorded(request, folder):
    return folder, record(folder, request.param)


def rows_of(folder, arrays, tmp_path):
    copy = tmp_path / "golden"
    shutil.copytree(folder, copy)
    np.savez(copy / "trajectory.npz", **arrays)
    report = golden.compare(Golden(copy), ("trajectories",))
    return {row.name.rpartition("/")[2]: row for row in report.rows}


def test_a_factored_prompt_holds(recorded, tmp_path):
    folder, arrays = recorded
    rows = rows_of(folder, arrays, tmp_path)
    assert [row for row in rows.values() if not row.ok] == []
    assert rows["second_moments"].note == "v_col, v_row after 4 updates"
    assert np.abs(arrays["prompts"][-1] - arrays["prompts"][0]).max() > 0.02


@pytest.mark.parametrize("slot", ["v_row_after", "v_col_after"])
def test_a_wrong_factor_shows(recorded, tmp_path, slot):
    folder, arrays = recorded
    wrong = [x.copy() for x in arrays[slot]]
    wrong[1][5] *= 1.5
    rows = rows_of(folder, {**arrays, slot: wrong}, tmp_path)
    # The moments themselves, and the update that is taken from them.
    assert {name for name, row in rows.items() if not row.ok} == {"second_moments", "single_update"}


def test_moments_recorded_at_the_end_only_are_compared_there(recorded, tmp_path):
    folder, arrays = recorded
    few = {n: x for n, x in arrays.items() if not n.startswith("v_")}
    few |= {f"{s}_step{STEPS}": arrays[f"{s}_after"][-1] for s in ("v_row", "v_col")}
    rows = rows_of(folder, few, tmp_path)
    assert [row for row in rows.values() if not row.ok] == []
    assert rows["second_moments"].note == "v_col, v_row after 1 updates"


def test_moments_recorded_nowhere_do_not_hold(recorded, tmp_path):
    folder, arrays = recorded
    none = {n: x for n, x in arrays.items() if not n.startswith("v_")}
    rows = rows_of(folder, none, tmp_path)
    assert {name for name, row in rows.items() if not row.ok} == {"second_moments"}


def test_other_shapes_and_losses_go_through_every_comparison_of_the_model(folder):
    """Depths, widths, activations, label smoothing: nothing but meta.json says what they are."""
    reference = Golden(folder)
    report = golden.compare(reference, ("cache", "checkpoints"))
    assert [row for row in report.rows if not row.ok] == [] and len(report.rows) == 6
    ours, gradient = loss_and_gradient(reference, reference.model())
    assert ours["logits"].shape == (2, 4, 17) and gradient[PROMPT_PATH].shape == (P, H)
