"""Overriding, checks, the saved text, and asking a finished run; no run is started."""

import re

import gin
import pytest
import seqio

from prompt_tuning.config import queries
from prompt_tuning.errors import ConfigError
from tests.gin_runs import (
    CHECKPOINT,
    CONFIGS,
    DEMO_EVAL,
    DEMO_TRAIN,
    DEMOS,
    EVAL_FILES,
    TRAIN_FILES,
    resolve,
    resolve_demo,
    strip,
    write,
)

# Overriding.


def test_two_bindings_of_one_name_in_one_file_are_an_error(tmp_path):
    path = write(tmp_path / "mine.gin", "BATCH_SIZE = 8\n\nBATCH_SIZE = 16\n")
    with pytest.raises(ConfigError, match="BATCH_SIZE is bound twice in .*mine.gin.*lines 1 and 3"):
        resolve_demo("train", path)


def test_two_spellings_of_one_parameter_in_one_file_are_an_error(tmp_path):
    text = """\
        utils.SaveCheckpointConfig.keep = 2
        SaveCheckpointConfig:
          keep = 3
        """
    with pytest.raises(
        ConfigError, match="utils.SaveCheckpointConfig.keep is bound twice.*1 and 3"
    ):
        resolve_demo("train", write(tmp_path / "mine.gin", text))


def test_the_last_file_wins_and_flags_win_over_files(tmp_path):
    first = write(tmp_path / "a.gin", "BATCH_SIZE = 8\nEVAL_PERIOD = 1\n")
    second = write(tmp_path / "b.gin", "BATCH_SIZE = 16\n")
    arguments = resolve_demo("train", first, second).arguments()
    assert arguments["train_dataset_cfg"].batch_size == 16
    assert arguments["eval_period"] == 1
    arguments = resolve_demo("train", first, second, BATCH_SIZE=4).arguments()
    assert arguments["train_dataset_cfg"].batch_size == 4


def test_a_file_that_includes_its_model_runs_alone(tmp_path):
    run = "".join(f"include '{name}'\n" for name in TRAIN_FILES)
    run += "".join(f"{name} = {value}\n" for name, value in DEMO_TRAIN.items())
    resolved = resolve([write(tmp_path / "run.gin", run)])
    # Built in the same order by the demo's command line.
    assert strip(resolved.text) == strip(resolve_demo("train").text)


def test_the_authors_order_models_prompts_sizes_runs_works():
    files = [*TRAIN_FILES[:2], f"{CONFIGS}/models/sizes/xl.gin", *TRAIN_FILES[2:]]
    model = resolve(files, DEMO_TRAIN).arguments()["model"]
    assert (model.config.emb_dim, model.config.num_encoder_layers) == (2048, 24)
    assert model.prompt.prompt_init.labels == ("positive", "negative")


# Checks.


def test_unset_values_are_named_all_at_once():
    with pytest.raises(ConfigError) as error:
        resolve(TRAIN_FILES)
    for name in ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "CLASS_LABELS"):
        assert name in str(error.value)


def test_one_of_the_two_numbers_of_steps_is_enough():
    settings = {k: v for k, v in DEMO_TRAIN.items() if k != "TRAIN_STEPS"}
    with pytest.raises(ConfigError, match="TRAIN_STEPS_RELATIVE=30_000"):
        resolve(TRAIN_FILES, settings)
    relative = resolve(TRAIN_FILES, {**settings, "TRAIN_STEPS_RELATIVE": "7"})
    assert relative.warnings == () and relative.arguments()["relative_steps"] == 7
    assert relative.arguments()["total_steps"] is None
    total = resolve(TRAIN_FILES, DEMO_TRAIN).arguments()
    assert (total["total_steps"], total["relative_steps"]) == (1_150_000, None)


def test_class_labels_are_required_only_where_they_are_used():
    settings = {k: v for k, v in DEMO_TRAIN.items() if k != "CLASS_LABELS"}
    with pytest.raises(ConfigError, match="CLASS_LABELS.*--gin.CLASS_LABELS="):
        resolve(TRAIN_FILES, settings)
    resolve([*TRAIN_FILES, f"{CONFIGS}/prompts/uniform.gin"], settings)


def test_a_run_without_a_model_says_which_file_is_missing():
    with pytest.raises(ConfigError, match=r"MODEL.*models/t5_1_1_base_prompt.gin"):
        resolve(TRAIN_FILES[2:], DEMO_TRAIN)


def test_a_size_left_open_names_the_size_files():
    with pytest.raises(ConfigError, match=r"EMBED_DIM.*models/sizes/base.gin"):
        resolve([f"{CONFIGS}/models/t5_1_1_prompt.gin", *TRAIN_FILES[1:]], DEMO_TRAIN)


def test_a_config_of_another_command_is_an_error():
    with pytest.raises(
        ConfigError, match="`prompt-tuning train`.*add --gin_file=.*prompt_eval.gin"
    ):
        resolve(TRAIN_FILES, DEMO_TRAIN, command="eval")


def test_a_training_config_and_an_evaluation_file_go_together():
    settings = {**DEMO_TRAIN, **DEMO_EVAL}
    resolved = resolve([*TRAIN_FILES, EVAL_FILES[1]], settings, command="eval")
    assert resolved.arguments()["dataset_cfg"].split == "validation"
    assert resolved.arguments()["restore_checkpoint_cfg"].path == CHECKPOINT


def test_no_initial_checkpoint_is_an_error_unless_asked_for():
    settings = {k: v for k, v in DEMO_TRAIN.items() if k != "INITIAL_CHECKPOINT_PATH"}
    with pytest.raises(
        ConfigError, match="INITIAL_CHECKPOINT_PATH is not set.*INITIALIZE_FROM_SCRATCH"
    ):
        resolve(TRAIN_FILES, settings)
    resolved = resolve(TRAIN_FILES, {**settings, "INITIALIZE_FROM_SCRATCH": "True"})
    assert resolved.arguments()["initialize_from_scratch"] is True


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TRAIN_STEPS", "1e5", "whole number"),
        ("BATCH_SIZE", "0", "whole number"),
        ("BATCH_SIZE", "True", "whole number"),
        ("MODEL_DIR", "7", "text"),
        ("CLASS_LABELS", "'positive'", "list of texts"),
        ("TASK_FEATURE_LENGTHS", "{'inputs': '512'}", "lengths in tokens"),
        ("DROPOUT_RATE", "'0.1'", "a number"),
        ("USE_CACHED_TASKS", "'False'", "True or False"),
        ("PROMPT_LENGTH", "None", "whole number"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_macro(name, value, expected):
    with pytest.raises(ConfigError, match=f"{name} has a value of the wrong type.*{expected}"):
        resolve_demo("train", **{name: value})


@pytest.mark.parametrize(
    ("settings", "circle"),
    [
        ({"PROMPT_LENGTH": "@prompts.Prompt()"}, "Prompt.. -> %PROMPT_LENGTH -> @.*prompts.Prompt"),
        ({"BATCH_SIZE": "%EVAL_STEPS", "EVAL_STEPS": "%BATCH_SIZE"}, "%BATCH_SIZE -> %EVAL_STEPS"),
    ],
)
def test_a_setting_that_needs_its_own_value_is_an_error(settings, circle):
    with pytest.raises(ConfigError, match=f"A setting needs its own value: got .*{circle}"):
        resolve_demo("train", **settings)


def test_what_nothing_reads_is_a_warning_with_the_closest_match(tmp_path):
    mine = write(tmp_path / "mine.gin", "BATCHSIZE = 3\n")
    settings = {
        "PROMPT_LENGHT": "20",
        "prompt_init/prompts.from_sample_of_embeddings.population_size": "9",
    }
    warnings = resolve_demo("train", mine, **settings).warnings
    assert len(warnings) == 3
    assert "BATCHSIZE" in warnings[0] and f"{mine}:1" in warnings[0] and "BATCH_SIZE" in warnings[0]
    assert "PROMPT_LENGHT (--gin.PROMPT_LENGHT=20). Closest matches: PROMPT_LENGTH" in warnings[1]
    assert "population_size" in warnings[2]


# The saved text.


@pytest.mark.parametrize("command", sorted(DEMOS))
def test_the_saved_text_alone_means_the_same(command, tmp_path):
    first = resolve_demo(command)
    saved = write(tmp_path / "config.gin", first.text)
    second = resolve([saved], command=command)
    assert strip(second.text) == strip(first.text)
    assert second.warnings == ()
    one, two = describe(first.arguments()), describe(second.arguments())
    assert len(one) >= 6 and one == two


def describe(arguments):
    """Text of each argument, without addresses."""
    return {name: re.sub(r" at 0x\w+", "", repr(value)) for name, value in arguments.items()}


def test_a_long_value_survives_the_saved_text(tmp_path):
    labels = [f"label number {n} 'quoted' \"twice\"" for n in range(20)]
    first = resolve_demo("train", CLASS_LABELS=repr(labels))
    second = resolve([write(tmp_path / "config.gin", first.text)])
    assert second.arguments()["model"].prompt.prompt_init.labels == tuple(labels)


# Asking a finished run.


def test_query_run_describes_a_run_and_leaves_gin_alone(tmp_path):
    write(tmp_path / "config.gin", resolve_demo("train").text)
    resolve_demo("eval")
    before = gin.config_str()
    run = queries.query_run(str(tmp_path))
    assert run.train_dataset_cfg.mixture_or_task_name == "taskless_glue_sst2_v200_examples"
    assert run.train_dataset_cfg.task_feature_lengths == {"inputs": 512, "targets": 8}
    restore = run.checkpoint_cfg.restore
    assert (restore.path, restore.dtype) == (CHECKPOINT, "float32")
    assert run.model_dir == "/runs/sst2"
    assert run.trainable_regex == [".*/prompt/.*"]
    assert run.model.prompt.length == 100 and run.model.config.emb_dim == 768
    assert run.partitioner.num_partitions == 1
    assert len(before) > 1000 and gin.config_str() == before


def test_query_run_leaves_a_locked_config_locked(tmp_path):
    write(tmp_path / "config.gin", resolve_demo("train").text)
    gin.clear_config()
    gin.finalize()
    queries.query_run(str(tmp_path / "config.gin"))
    assert gin.config_is_locked()


def test_query_run_of_another_folder_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="holds no config.gin"):
        queries.query_run(str(tmp_path))


def test_a_task_of_files_is_registered_under_both_of_its_names(tmp_path):
    task = write(
        tmp_path / "task.gin",
        """\
        MIXTURE_OR_TASK_NAME = @tasks.from_files()
        tasks.from_files:
          name = 'config_test_task'
          validation = 'validation.csv'
          inputs = '{text}'
          targets = '{label}'
          label_map = {0: 'no', 1: 'yes'}
        """,
    )
    ranked = "config_test_task_rank"
    assert ranked not in seqio.TaskRegistry.names()
    resolved = resolve_demo("eval", task, MIXTURE_OR_TASK_NAME=f"'{ranked}'")
    assert not [text for text in resolved.warnings if "from_files" in text]
    assert resolved.arguments()["dataset_cfg"].mixture_or_task_name == ranked
    try:
        assert {ranked, "config_test_task"} <= set(seqio.TaskRegistry.names())
        # The saved config describes the task too.
        assert "tasks.from_files.label_map" in resolved.text
    finally:
        for name in (ranked, "config_test_task"):
            seqio.TaskRegistry.remove(name)
    half = write(tmp_path / "half.gin", "tasks.from_files.name = 'half'\n")
    with pytest.raises(ConfigError, match="tasks.from_files.inputs"):
        resolve_demo("eval", half)
