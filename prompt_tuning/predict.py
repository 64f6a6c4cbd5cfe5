"""A tuned prompt from Python: load a run's folder, predict on strings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.data import home, inference_examples
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.example_tasks import all_names
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.initializers import FromFile
from prompt_tuning.run import checks
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.start import load_for_inference
from prompt_tuning.types import TASK, PyTree


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A frozen model with its tuned prompt.

    Attributes:
      model: The model.
      params: All parameters, the prompt included.
      step: Updates the prompt has had.
      lengths: TASK_FEATURE_LENGTHS, in tokens.
      inference: Compiled predicting and scoring.
      inputs_end: Whether inputs end with EOS, as those of the run's task.
    """

    model: EncoderDecoderModel
    params: PyTree
    step: int
    lengths: dict[str, int]
    inference: Inference
    inputs_end: bool = True

    def predict(self, inputs: Sequence[str], tasks: Sequence[str] | None = None) -> list[str]:
        """Returns the decoded answer to each input.

        Args:
          inputs: Texts in the form the task was trained on, e.g. "sentence: a fine film ".
          tasks: The task of each input, for a run whose method has a prompt for each task.

        Returns:
          One string an input, in order.

        Raises:
          ConfigError: If the run tells tasks apart and these are not named, or the other way round.
        """
        outputs = self.inference.predict(self.params, self._numbered(inputs, None, tasks))
        return [self.model.output_vocabulary.decode(ids) for _, ids in outputs]

    def score(
        self, inputs: Sequence[str], targets: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[float]:
        """Returns the log-likelihood in nats of each target given its input; `tasks` as of `predict`."""
        numbered = self._numbered(inputs, targets, tasks)
        return [score for _, score in self.inference.score(self.params, numbered)]

    def _numbered(
        self, inputs: Sequence[str], targets: Sequence[str] | None, tasks: Sequence[str] | None
    ):
        told_apart = self.model.method.task_names if self.model.method else ()
        known = all_names(told_apart)
        named = tasks or ()
        unknown = [name for name in named if name not in known]
        if unknown or len(named) != (len(inputs) if known else 0):
            raise ConfigError(
                "The tasks of the inputs are not those that the run tells apart",
                got=unknown[:3] or f"{len(named)} tasks of {len(inputs)} inputs",
                expected=f"one of {known} for each input" if known else "none",
                fix="name the task of each input" if known else "leave `tasks` out",
            )
        examples = inference_examples.from_strings(
            inputs,
            targets,
            input_vocabulary=self.model.input_vocabulary,
            output_vocabulary=self.model.output_vocabulary,
            lengths=self.lengths,
            inputs_end=self.inputs_end,
            tasks=tasks,
        )
        if known:
            examples = inference_examples.numbered(examples, told_apart, TASK)
        return list(enumerate(example.features for example in examples))


def load_run(
    model_dir: str,
    *,
    checkpoint: str | None = None,
    initial_checkpoint: str | None = None,
    partitioner: PjitPartitioner | None = None,
    batch_size: int = 8,
    allow_imports: Sequence[str] = (),
) -> LoadedRun:
    """Returns a run's model with its latest prompt, ready to predict.

    Args:
      model_dir: A MODEL_DIR that `prompt-tuning train` left.
      checkpoint: A `checkpoint_{step}` folder instead of the latest in `model_dir`.
      initial_checkpoint: Where the frozen weights are now, if they were moved since the run.
      partitioner: None for the run's own partitioning, or one partition where that does not fit the devices here.
      batch_size: Rows computed at once, rounded up to what divides over the devices.
      allow_imports: Modules that the run's `config.gin` may import; else it may name what this package has.

    Raises:
      ConfigError: The run is not to be read.
      CheckpointError: If there is no checkpoint, or the frozen weights it names are missing or have changed.

    Example:
      >>> from prompt_tuning import predict
      >>> run = predict.load_run("/tmp/boolq")  # doctest: +SKIP
      >>> run.predict(["passage: ... question: ..."])  # doctest: +SKIP
    """
    # Imported here: gin is needed to read a run's config, not to use a loaded one.
    from prompt_tuning.config import queries

    model_dir = home.expand(model_dir)
    run = queries.query_run(model_dir, allow_imports)
    restore = RestoreCheckpointConfig(
        path=home.expand(checkpoint or model_dir),
        mode="specific" if checkpoint else "latest",
        dtype=run.checkpoint_cfg.restore.dtype,
    )
    return _load(
        _as_stored(run.model),
        partitioner or _fitting(run.partitioner),
        restore,
        run.train_dataset_cfg,
        batch_size,
        initial_checkpoint,
    )


def load_model(
    gin_files: Sequence[str], bindings: Mapping[str, Any], *, batch_size: int = 8
) -> LoadedRun:
    """Returns a model that gin files describe, with or without a prompt, ready to predict.

    Args:
      gin_files: Those of `prompt-tuning infer` but `runs/prompt_infer.gin`, which is read behind them.
      bindings: Name -> value, over those: CHECKPOINT_PATH at least; `lengths` is empty without TASK_FEATURE_LENGTHS.
      batch_size: Rows computed at once, rounded up to what divides over the devices.

    Raises:
      ConfigError, CheckpointError: As `prompt-tuning infer`.
    """
    from prompt_tuning.config import files, queries

    texts = [f"{name} = {value!r}" for name, value in bindings.items()]
    parsed = files.read([*gin_files, "runs/prompt_infer.gin"], [(text, text) for text in texts])
    names = ("model", "partitioner", "restore_checkpoint_cfg", "dataset_cfg")
    unused, unset = {"INFER_OUTPUT_DIR": "unused"}, ["TASK_FEATURE_LENGTHS"]
    _, found = queries.query_arguments(parsed, names, unused, unset)
    model, partitioner, restore, cfg = (found[name] for name in names)
    return _load(model, partitioner, restore, cfg, batch_size)


def _load(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    cfg: DatasetConfig,
    batch_size: int,
    initial_checkpoint: str | None = None,
) -> LoadedRun:
    """The model with its parameters; its inputs are as long and end as those of `cfg`."""
    rows = partitioner.mesh.shape["data"]
    batch_size = -(-batch_size // rows) * rows
    checks.check_model(model, partitioner, [batch_size])
    loaded = load_for_inference(model, partitioner, restore, initial_checkpoint=initial_checkpoint)
    inference = Inference(model, partitioner, batch_size)
    lengths = dict(cfg.task_feature_lengths or {})
    inputs_end = inference_examples.inputs_end(cfg.mixture_or_task_name)
    return LoadedRun(model, loaded.params, loaded.step, lengths, inference, inputs_end)


def _as_stored(model: EncoderDecoderModel) -> EncoderDecoderModel:
    """The model, whose prompt and method have to come from the checkpoint whatever the run started them from."""
    prompt = model.prompt and dataclasses.replace(model.prompt, prompt_init=FromFile(None))
    method = model.method and dataclasses.replace(model.method, path=None)
    return dataclasses.replace(model, module=model.module.clone(prompt=prompt, method=method))


def _fitting(partitioner: PjitPartitioner) -> PjitPartitioner:
    """The run's partitioner, or one without model partitions where the devices here are fewer."""
    try:
        partitioner.mesh  # noqa: B018
    except ConfigError:
        return PjitPartitioner()
    return partitioner
