"""Command lines as gin settings, and runnables with the real ones' parameters that return what they were given."""

import textwrap

from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve as config

CONFIGS = "prompt_tuning/configs"
CHECKPOINT = "gs://t5-data/pretrained_models/t5x/t5_1_1_lm100k_base/checkpoint_1100000"
DEMO_TASK = {
    "MIXTURE_OR_TASK_NAME": "'taskless_glue_sst2_v200_examples'",
    "MIXTURE_OR_TASK_MODULE": "'prompt_tuning.data.glue'",
    "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 8}",
    "USE_CACHED_TASKS": "False",
}
DEMO_TRAIN = {
    **DEMO_TASK,
    "CLASS_LABELS": "['positive', 'negative']",
    "MODEL_DIR": "'/runs/sst2'",
    "INITIAL_CHECKPOINT_PATH": f"'{CHECKPOINT}'",
    "TRAIN_STEPS": "1_150_000",
}
DEMO_EVAL = {
    **DEMO_TASK,
    "CHECKPOINT_PATH": f"'{CHECKPOINT}'",
    "EVAL_OUTPUT_DIR": "'/runs/eval'",
    "utils.DatasetConfig.split": "'validation'",
    "utils.DatasetConfig.batch_size": "128",
    "PROMPT_FILE": "'/prompts/sst2.npy'",
}
DEMO_INFER = {
    "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 8}",
    "CHECKPOINT_PATH": "'/runs/sst2/checkpoint_30000'",
    "INFER_OUTPUT_DIR": "'/runs/infer'",
    "INFER_INPUT_FILE": "'/data/questions.jsonl'",
}
TRAIN_FILES = (
    f"{CONFIGS}/models/t5_1_1_base_prompt.gin",
    f"{CONFIGS}/prompts/from_class_labels.gin",
    f"{CONFIGS}/runs/prompt_finetune.gin",
)
EVAL_FILES = (f"{CONFIGS}/models/t5_1_1_base_prompt.gin", f"{CONFIGS}/runs/prompt_eval.gin")
INFER_FILES = (f"{CONFIGS}/models/t5_1_1_base_prompt.gin", f"{CONFIGS}/runs/prompt_infer.gin")
DEMOS = {
    "train": (TRAIN_FILES, DEMO_TRAIN),
    "eval": (EVAL_FILES, DEMO_EVAL),
    "infer": (INFER_FILES, DEMO_INFER),
}


def fake_train(
    *,
    model=None,
    model_dir=None,
    train_dataset_cfg=None,
    train_eval_dataset_cfg=None,
    infer_eval_dataset_cfg=None,
    checkpoint_cfg=None,
    partitioner=None,
    trainer=None,
    evaluator=None,
    total_steps=None,
    relative_steps=None,
    eval_steps=20,
    eval_period=1000,
    random_seed=None,
    trainable_regex=(".*",),
    initialize_from_scratch=False,
    config_text="",
):
    return {name: value for name, value in locals().items() if value is not None}


def fake_evaluate(
    *,
    model,
    dataset_cfg,
    restore_checkpoint_cfg,
    partitioner,
    output_dir,
    evaluator,
    config_text="",
):
    return dict(locals())


def fake_infer(
    *,
    model,
    dataset_cfg,
    restore_checkpoint_cfg,
    partitioner,
    output_dir,
    mode="predict",
    input_file=None,
    num_shards=1,
    shard_id=0,
    checkpoint_period=100,
    prompts=None,
    config_text="",
):
    return dict(locals())


RUNNABLES = {"train": fake_train, "eval": fake_evaluate, "infer": fake_infer}


def flags(settings):
    """Bindings as `cli` hands them over."""
    return [(f"{name} = {value}", f"--gin.{name}={value}") for name, value in settings.items()]


def resolve(files=(), settings=None, command="train", search_paths=()):
    parsed = config_files.read([str(f) for f in files], flags(settings or {}), search_paths)
    return config.resolve(parsed, RUNNABLES[command], command=command)


def resolve_demo(command, *more_files, **more):
    files, settings = DEMOS[command]
    return resolve([*files, *more_files], {**settings, **more}, command)


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return path


def strip(text):
    return [line for line in text.splitlines() if not line.startswith("#")]
