"""The shipped gin files: budgets, recipes, sizes, macros, and the golden resolved text."""

import dataclasses
import importlib
import inspect
import os
import pathlib

import pytest
from gin import config_parser

from prompt_tuning.config import files as config_files
from tests.gin_runs import (
    CHECKPOINT,
    CONFIGS,
    DEMO_TRAIN,
    DEMOS,
    TRAIN_FILES,
    resolve,
    resolve_demo,
)
from tests.helpers import GOLDEN, REPO

MAX_FILES, MAX_LINES, MAX_REFERENCES = 5, 150, 20


# The shipped files.


def code_lines(paths):
    lines = [
        line.split("#")[0].strip()
        for p in paths
        for line in pathlib.Path(p).read_text().splitlines()
    ]
    return [line for line in lines if line]


@pytest.mark.parametrize("prefix", ["prompt_tuning/configs", "configs", str(REPO / "configs")])
def test_shipped_files_are_known_as_such_however_they_are_reached(prefix, monkeypatch):
    monkeypatch.chdir(REPO)
    files = [
        name.replace(CONFIGS, prefix) for name in [*TRAIN_FILES, f"{CONFIGS}/prompts/uniform.gin"]
    ]
    settings = {name: value for name, value in DEMO_TRAIN.items() if name != "CLASS_LABELS"}
    assert resolve(files, settings).warnings == ()


@pytest.mark.parametrize("command", sorted(DEMOS))
def test_a_resolved_run_stays_within_the_budget(command):
    resolved = resolve_demo(command)
    lines = code_lines(resolved.files)
    assert 0 < len(resolved.files) <= MAX_FILES
    assert 0 < len(lines) <= MAX_LINES
    assert 0 < sum(line.count("@") for line in lines) <= MAX_REFERENCES


def test_model_tuning_stays_within_the_budget_and_trains_everything():
    files = [f"{CONFIGS}/models/t5_1_1_base.gin", f"{CONFIGS}/runs/model_finetune.gin"]
    settings = {k: v for k, v in DEMO_TRAIN.items() if k != "CLASS_LABELS"}
    resolved = resolve(files, settings)
    arguments = resolved.arguments()
    assert resolved.warnings == ()
    assert len(resolved.files) <= MAX_FILES and len(code_lines(resolved.files)) <= MAX_LINES + 10
    assert arguments["model"].prompt is None
    assert arguments["trainable_regex"] == [".*"]
    assert arguments["train_dataset_cfg"].batch_size == 128
    assert arguments["trainer"].optimizer.multiply_by_parameter_scale is True
    assert arguments["trainer"].optimizer.restored_step is None
    assert arguments["trainer"].learning_rate_fn(0) == pytest.approx(1e-3)


def test_the_training_demo_builds_the_papers_recipe():
    arguments = resolve_demo("train").arguments()
    optimizer = arguments["trainer"].optimizer
    assert arguments["total_steps"] == 1_150_000
    assert arguments["trainable_regex"] == [".*/prompt/.*"]
    assert optimizer.decay_rate == 0.8 and optimizer.restored_step == 1_100_000
    assert optimizer.multiply_by_parameter_scale is False
    assert (optimizer.weight_decay_rate, optimizer.clipping_threshold) == (1e-5, 1.0)
    assert arguments["trainer"].learning_rate_fn(30_000) == pytest.approx(0.3)
    cfgs = [arguments[f"{name}_dataset_cfg"] for name in ("train", "train_eval", "infer_eval")]
    assert [cfg.split for cfg in cfgs] == ["train", "validation", "validation"]
    assert [cfg.shuffle for cfg in cfgs] == [True, False, False]
    assert {cfg.batch_size for cfg in cfgs} == {32}
    assert (arguments["checkpoint_cfg"].save.period, arguments["checkpoint_cfg"].save.keep) == (
        1000,
        1,
    )
    assert arguments["checkpoint_cfg"].restore.path == CHECKPOINT
    assert arguments["model"].prompt.length == 100
    assert arguments["model"].prompt.prompt_init.labels == ("positive", "negative")


@pytest.mark.parametrize("size", ["large", "xl", "xxl"])
def test_sizes_that_do_not_fit_one_core_are_spread_over_all(size):
    files = [f"{CONFIGS}/models/t5_1_1_{size}_prompt.gin", *TRAIN_FILES[1:]]
    arguments = resolve(files, DEMO_TRAIN).arguments()
    is_spread = size != "large"
    assert arguments["checkpoint_cfg"].restore.dtype == ("bfloat16" if is_spread else "float32")
    assert (("embed", "data") in arguments["partitioner"].rules) == is_spread
    assert arguments["partitioner"].num_partitions == (2 if size == "xxl" else 1)
    config = arguments["model"].config
    assert (config.scan_layers, config.remat_policy) == (
        is_spread,
        "minimal" if is_spread else "none",
    )


@pytest.mark.parametrize("command", sorted(DEMOS))
@pytest.mark.parametrize("decoding", ["beam_search", "nucleus_sampling"])
def test_decoding_files_choose_how_every_command_decodes(decoding, command):
    expected = {
        "beam_search": {"num_decodes": 4, "alpha": 0.6},
        "nucleus_sampling": {
            "num_decodes": 1,
            "temperature": 1.0,
            "topp": 0.9,
            "topk": 0,
            "rescale_log_probs": True,
            "seed": 0,
        },
    }
    files, settings = DEMOS[command]
    file = f"{CONFIGS}/models/decoding/{decoding}.gin"
    resolved = resolve([files[0], file, *files[1:]], settings, command)
    assert dataclasses.asdict(resolved.arguments()["model"].decoder) == expected[decoding]
    assert resolved.warnings == ()
    assert dataclasses.asdict(resolve_demo(command).arguments()["model"].decoder) == {}


MACROS = (
    "MODEL MODEL_DIR MIXTURE_OR_TASK_NAME MIXTURE_OR_TASK_MODULE TASK_FEATURE_LENGTHS TRAIN_STEPS "
    "TRAIN_STEPS_RELATIVE BATCH_SIZE INITIAL_CHECKPOINT_PATH CHECKPOINT_PATH EVAL_OUTPUT_DIR INFER_OUTPUT_DIR "
    "DROPOUT_RATE EVAL_PERIOD EVAL_STEPS USE_CACHED_TASKS RANDOM_SEED LOSS_NORMALIZING_FACTOR Z_LOSS LABEL_SMOOTHING "
    "ACTIVATION_DTYPE VOCABULARY NUM_EMBEDDINGS "
    "NUM_HEADS NUM_ENCODER_LAYERS NUM_DECODER_LAYERS HEAD_DIM EMBED_DIM MLP_DIM PROMPT PROMPT_LENGTH PROMPT_REGEX "
    "PROMPT_FILE EMBEDDING_FILE CLASS_LABELS EVALUATOR_NUM_EXAMPLES JSON_WRITE_N_RESULTS"
).split()


def test_every_macro_of_t5x_is_defined_and_read_somewhere():
    text = "\n".join(
        config_files.text_of(config_files.find_file(name)) for name in config_files.shipped_files()
    )
    names = {line.split(" = ")[0] for line in text.splitlines()}
    missing = [name for name in MACROS if name not in names or f"%{name}" not in text]
    assert len(MACROS) > 30 and missing == []


def test_shipped_files_hold_literals_macros_and_called_references_only():
    references = [
        leaf
        for name in config_files.shipped_files()
        for statement in config_files.read([name]).statements
        for leaf in config_files.leaves(getattr(statement, "value", None))
        if isinstance(leaf, config_files.Reference)
    ]
    assert len(references) > 20
    assert [r for r in references if not r.called] == []


@pytest.mark.parametrize(
    "prompt", sorted(p.stem for p in config_files.PACKAGE_CONFIGS.glob("prompts/*.gin"))
)
def test_every_prompt_file_builds_its_initializer(prompt):
    expected = {
        "from_class_labels": ("ClassLabels", {"CLASS_LABELS": "['a']"}),
        "from_class_labels_numpy": (
            "ClassLabels",
            {"CLASS_LABELS": "['a']", "EMBEDDING_FILE": "'/e.npy'"},
        ),
        "from_sampled_vocab": ("SampledVocab", {}),
        "from_sampled_vocab_numpy": ("SampledVocab", {"EMBEDDING_FILE": "'/e.npy'"}),
        "from_string": ("FromText", {"PROMPT_TEXT": "'is it true?'"}),
        "from_file": ("FromFile", {"PROMPT_FILE": "'/p.npy'"}),
        "uniform": ("Uniform", {}),
    }
    kind, needed = expected[prompt]
    settings = {k: v for k, v in DEMO_TRAIN.items() if k != "CLASS_LABELS"} | needed
    files = [TRAIN_FILES[0], f"{CONFIGS}/prompts/{prompt}.gin", TRAIN_FILES[2]]
    resolved = resolve(files, settings)
    initializer = resolved.arguments()["model"].prompt.prompt_init
    assert type(initializer).__name__ == kind
    assert resolved.warnings == ()
    if prompt.endswith("_numpy"):
        assert initializer.embedding_file == "/e.npy"


def test_files_for_t5x_bind_what_this_package_has():
    """T5X itself reads them in tests/test_inside_t5x.py, where it is installed; this needs no T5X."""
    files = sorted((config_files.PACKAGE_CONFIGS / "t5x").glob("*.gin"))
    compared = 0
    for path in files:
        ours: dict[str, object] = {}
        for statement in config_parser.ConfigParser(path.read_text(), AnyValue()):
            if isinstance(statement, config_parser.ImportStatement):
                if statement.module.startswith("prompt_tuning."):
                    ours[statement.bound_name()] = importlib.import_module(statement.module)
            elif isinstance(statement, config_parser.BindingStatement):
                module, _, name = statement.selector.partition(".")
                if module in ours:
                    target = getattr(ours[module], name)
                    assert statement.arg_name in inspect.signature(target).parameters, statement
                    compared += 1
    assert len(files) == 6 and compared > 15


class AnyValue(config_parser.ParserDelegate):
    """Reads references and macros without looking them up."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return scoped_configurable_name

    def macro(self, macro_name):
        return macro_name


@pytest.mark.parametrize("command", sorted(DEMOS))
def test_the_resolved_demo_equals_the_golden_text(command):
    text = resolve_demo(command).text
    golden = GOLDEN / f"resolved_{command}.gin"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
