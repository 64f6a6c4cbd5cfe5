"""The shipped runs of pre-training and LM adaptation, and the ladder's, resolve to the recipes that they name."""

import pytest

from prompt_tuning.launch.studies.ladder import RUNGS
from tests.gin_runs import CONFIGS, resolve

MODEL = f"{CONFIGS}/models/t5_1_1_small.gin"
INITIAL = {"INITIAL_CHECKPOINT_PATH": "'/runs/pretrained/checkpoint_1000000'"}
OWN_TEXT = {
    "MIXTURE_OR_TASK_NAME": "@tasks.from_text_files()",
    "tasks.from_text_files.name": "'my_text'",
    "tasks.from_text_files.train": "'/text/*.txt'",
    "tasks.from_text_files.validation": "'/text/held_out.txt'",
}


def resolved(run, **settings):
    more = INITIAL if run == "lm_adapt" else {}
    found = resolve(
        [MODEL, f"{CONFIGS}/runs/{run}.gin"], {"MODEL_DIR": "'/runs/x'", **more, **settings}
    )
    assert found.warnings == ()
    return found.arguments()


@pytest.mark.parametrize("run", ["pretrain", "lm_adapt"])
def test_the_recipe_is_that_of_t5(run):
    arguments = resolved(run)
    rate = arguments["trainer"].learning_rate_fn
    assert [float(rate(step)) for step in (0, 10_000, 40_000, 1_000_000)] == pytest.approx(
        [0.01, 0.01, 0.005, 0.001]
    )
    optimizer = arguments["trainer"].optimizer
    assert optimizer.multiply_by_parameter_scale and optimizer.weight_decay_rate is None
    assert optimizer.restored_step is None and optimizer.decay_rate == 0.8
    assert arguments["model"].config.dropout_rate == 0.0 and arguments["model"].prompt is None
    assert arguments["trainable_regex"] == [".*"]
    assert arguments["infer_eval_dataset_cfg"] is None
    for name in ("train", "train_eval"):
        assert arguments[f"{name}_dataset_cfg"].pack is True


def test_pre_training_starts_from_nothing_and_adaptation_from_a_checkpoint():
    pretrain, adapt = resolved("pretrain"), resolved("lm_adapt")
    assert pretrain["initialize_from_scratch"] is True
    assert pretrain["relative_steps"] is None and pretrain["total_steps"] == 1_000_000
    assert adapt["initialize_from_scratch"] is False
    assert adapt["relative_steps"] == pretrain["total_steps"] // 10
    assert adapt["checkpoint_cfg"].restore.path == INITIAL["INITIAL_CHECKPOINT_PATH"].strip("'")
    assert pretrain["train_dataset_cfg"].mixture_or_task_name == "c4_v220_span_corruption"
    assert adapt["train_dataset_cfg"].mixture_or_task_name == "c4_v220_prefix_lm"


@pytest.mark.parametrize("run", ["pretrain", "lm_adapt"])
def test_text_of_ones_own_takes_the_place_of_c4(run):
    cfg = resolved(run, **OWN_TEXT)["train_dataset_cfg"]
    assert cfg.mixture_or_task_name == "my_text"


PARAMETERS = {"pico": 111_424, "nano": 296_256, "micro": 887_232, "mini": 1_970_048}


@pytest.mark.parametrize("rung", sorted(RUNGS))
def test_each_rung_has_the_size_it_names(rung):
    settings = {
        "MODEL_DIR": "'/runs/x'",
        "VOCABULARY_FILE": "'/ladder/vocabulary.model'",
        "TRAIN_TEXT": "'/ladder/train.txt'",
        "VALIDATION_TEXT": "'/ladder/validation.txt'",
    }
    files = [f"{CONFIGS}/ladder/{rung}.gin", f"{CONFIGS}/ladder/pretrain.gin"]
    found = resolve(files, settings)
    cfg = found.arguments()["model"].config
    inner = cfg.num_heads * cfg.head_dim
    attention, mlp = 4 * cfg.emb_dim * inner, 3 * cfg.emb_dim * cfg.mlp_dim
    norms = cfg.num_encoder_layers * 5 * cfg.emb_dim + 2 * cfg.emb_dim
    biases = 2 * cfg.num_heads * cfg.relative_attention_num_buckets
    assert found.warnings == () and cfg.num_encoder_layers == cfg.num_decoder_layers
    total = cfg.num_encoder_layers * (3 * attention + 2 * mlp) + norms + biases
    assert total == PARAMETERS[rung]
    adapted = resolve(
        [f"{CONFIGS}/ladder/{rung}.gin", f"{CONFIGS}/ladder/adapt.gin"],
        {**settings, **INITIAL, "TRAIN_STEPS_RELATIVE": "10"},
    )
    assert adapted.warnings == ()
    for name, arguments in (("pretrain", found.arguments()), ("adapt", adapted.arguments())):
        # Batches and seeds are the ladder's in both runs, whatever the run files say.
        assert arguments["train_dataset_cfg"].batch_size == 64, name
        assert arguments["random_seed"] == 0 and arguments["eval_period"] == 1000, name
    assert adapted.arguments()["relative_steps"] == 10
