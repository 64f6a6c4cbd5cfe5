"""`prompt-tuning plan` on real slices, with a tiny model; and Base, scanned and unrolled."""

import json

import jax
import pytest

from prompt_tuning import cli
from prompt_tuning.commands.plan import figures, report, search, slices
from tests.commands.plan.test_run_step import CONFIGS, TINY

TRAIN_FILES = (
    f"{CONFIGS}/models/t5_1_1_small_prompt.gin",
    f"{CONFIGS}/runs/prompt_finetune.gin",
)
SCANNED = {"network.T5Config.scan_layers": True, "PROMPT_LENGTH": 4}
ON_TWO = {
    "TRAIN_STEPS_RELATIVE": 1000,
    "partitioning.PjitPartitioner.num_partitions": 2,
    "utils.RestoreCheckpointConfig.dtype": "bfloat16",
}

pytestmark = [
    pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays"),
    pytest.mark.skipif(
        slices.libtpu_version() is None, reason="libtpu, the extra [tpu], is not installed"
    ),
]


def run(*flags, **settings):
    """Returns the exit code."""
    settings = {**TINY, **SCANNED, **settings}
    files = [f"--gin_file={file}" for file in TRAIN_FILES]
    bindings = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    return cli.main(["plan", *files, *bindings, *flags])


def plan(capsys, *flags, **settings):
    """Returns the exit code and what was printed."""
    return run(*flags, **settings), capsys.readouterr().out


@pytest.fixture(scope="module")
def compiled_once():
    """Stands for `Lowered.compile`, and compiles the same program once only."""
    done, compile_ = {}, jax.stages.Lowered.compile

    def compiled(lowered):
        key = lowered.as_text()
        if key not in done:
            done[key] = compile_(lowered)
        return done[key]

    return compiled


@pytest.fixture
def share_programs(compiled_once, monkeypatch):
    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled_once)


@pytest.mark.usefixtures("share_programs")
def test_an_update_on_a_slice_as_json(capsys):
    code, out = plan(capsys, "--topology=v5e:2x2", "--format=json", **ON_TWO)
    found = json.loads(out)
    assert code == 0
    assert found["fits"] is True and found["change"] is None
    assert (found["topology"], found["cores"]) == ("v5e:2x2", 4)
    assert found["mesh"] == {"data": 2, "model": 2}
    assert found["unknown_loops"] == 0
    # The embedding and the logits are bfloat16 and in two halves.
    assert found["weight_bytes_per_core"] > 256 * 32 * 2
    held = found["weight_bytes_per_core"] + found["optimizer_bytes_per_core"]
    assert held < found["peak_bytes_per_core"] < found["hbm_bytes_per_core"]
    for name in ("temp_bytes_per_core", "flops_per_core", "bytes_moved_per_core", "compiler"):
        assert found[name]
    assert found["collectives"].keys() >= {"all-reduce"}
    assert found["collective_bytes_per_core"] == sum(found["collectives"].values()) > 0
    assert found["hours"] == pytest.approx(1000 * found["estimated_step_seconds"] / 3600)
    assert found["chip_hours"] == pytest.approx(4 * found["hours"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "decode"])
def test_other_steps_as_a_table(capsys, mode):
    code, out = plan(capsys, "--topology=v5e:1x1", f"--mode={mode}")
    assert code == 0
    assert out.startswith(f"{mode} step on v5e:1x1: 1 core, mesh 1 data x 1 model")
    assert "by the compiler (libtpu" in out
    assert "Estimates" in out
    assert "counted once" not in out


@pytest.mark.slow
def test_a_step_that_is_too_large_exits_with_1_and_says_what_would_fit(capsys, monkeypatch):
    change = search.Change((("trainer.Trainer.num_microbatches", "128"),))
    monkeypatch.setattr(search, "changes", lambda *args: [change])
    # The attention logits of a layer alone take 17 GB.
    code, out = plan(
        capsys,
        "--topology=v5e:1x1",
        BATCH_SIZE=1024,
        TASK_FEATURE_LENGTHS={"inputs": 1024, "targets": 16},
    )
    assert code == 1
    assert "NO" in out
    assert "The compiler: RESOURCE_EXHAUSTED" in out
    assert "The closest change with which it fits:" in out
    assert "--gin.trainer.Trainer.num_microbatches=128" in out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "No slice is named"),
        (("--topology=v5f:2x2",), "Unknown TPU slice"),
        (("--topology=v5e:2x2", "--mode=trian"), "Closest matches: train"),
        (("--topology=v5e:2x2", "--dry_run"), "no such flag"),
    ],
)
def test_wrong_flags_are_told(capsys, flags, text):
    # Usage errors are told before anything is compiled.
    assert run(*flags) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_search_names_the_smallest_slice_and_its_flags(capsys):
    code, out = plan(capsys, "--search", "--topology=v5e", "--format=json")
    found = json.loads(out)
    assert code == 0
    assert found["topology"] == "v5e:1x1"
    assert found["flags"][0] == "--gin.partitioning.PjitPartitioner.num_partitions=1"
    assert [row["fits"] for row in found["tried"]] == [True]


def test_other_errors_of_the_compiler_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def compile_(self):
        raise RuntimeError("INTERNAL: something else")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_)
    settings = {**TINY, **SCANNED}
    variants = search.Variants(TRAIN_FILES, [(f"{n} = {v!r}", n) for n, v in settings.items()])
    with pytest.raises(RuntimeError, match="something else"):
        variants.measure("v5e:1x1")


@pytest.mark.usefixtures("share_programs")
def test_memory_is_known_even_where_the_program_cannot_be_written_down(monkeypatch):
    def as_text(self):
        raise RuntimeError(
            "INTERNAL: RET_CHECK failure (xla/hlo/ir/hlo_instruction.cc:390) arity\nmore"
        )

    monkeypatch.setattr(jax.stages.Compiled, "as_text", as_text)
    settings = {**TINY, **SCANNED, **ON_TWO}
    variants = search.Variants(TRAIN_FILES, [(f"{n} = {v!r}", n) for n, v in settings.items()])
    found = variants.measure("v5e:2x2")
    assert found.fits and found.peak_bytes_per_core > 0 and found.flops_per_core is None
    text = report.table({**found.to_json(), "change": None})
    assert "cannot be read" in text and "arity" in text and "more" not in text


@pytest.mark.slow
def test_scanned_and_unrolled_layers_of_base_cost_the_same():
    """Four layers without dropout and with short inputs, which compile in a fraction of the time when unrolled."""
    bindings = [
        "TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 8}",
        "BATCH_SIZE = 8",
        "DROPOUT_RATE = 0.0",
        "NUM_ENCODER_LAYERS = 4",
        "NUM_DECODER_LAYERS = 4",
        "utils.RestoreCheckpointConfig.dtype = 'bfloat16'",
    ]
    files = (f"{CONFIGS}/models/t5_1_1_base_prompt.gin", f"{CONFIGS}/runs/prompt_finetune.gin")
    found: list[figures.Figures] = []
    for scanned in (True, False):
        layers = f"network.T5Config.scan_layers = {scanned}"
        variants = search.Variants(files, [(b, b) for b in [*bindings, layers]])
        found.append(variants.measure("v2:2x2x1"))
    scanned, unrolled = found
    assert scanned.flops_per_core == pytest.approx(unrolled.flops_per_core, rel=0.01)
    assert scanned.weight_bytes_per_core == pytest.approx(unrolled.weight_bytes_per_core, rel=0.01)
    # A loop counted once would be off by far more.
    assert unrolled.flops_per_core is not None and unrolled.flops_per_core > 3e10
