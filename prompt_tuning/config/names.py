"""The names gin files may bind: T5X's dotted names for this package's classes, and what users' modules add."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import gin
from gin import config as gin_config

from prompt_tuning.config.files import Import
from prompt_tuning.errors import ConfigError

# Command -> the runnable whose parameters its gin files bind.
RUNNABLES = {"train": "train.train", "eval": "evaluate.evaluate", "infer": "infer.infer"}

# Other spellings -> the name they stand for. A spelling may be shortened from the left, as any gin name.
_ALIASES = {
    "prompt_tuning.prompts.from_samples_of_embeddings": "prompts.from_sample_of_embeddings",
    "prompt_tuning.train.train": "train.train",
    "t5x.train.train": "train.train",
    "train_script.train": "train.train",
    "__main__.train": "train.train",
    "prompt_tuning.evaluate.evaluate": "evaluate.evaluate",
    "t5x.eval.evaluate": "evaluate.evaluate",
    "eval_script.evaluate": "evaluate.evaluate",
    "__main__.evaluate": "evaluate.evaluate",
    "prompt_tuning.infer.infer": "infer.infer",
    "t5x.infer.infer": "infer.infer",
    "infer_script.infer": "infer.infer",
    "__main__.infer": "infer.infer",
    "seqio.JSONLogger": "seqio.Evaluator",
    # T5X binds how many sequences are decoded on the method; here the model owns the number.
    "t5x.models.EncoderDecoderModel.predict_batch_with_aux": "models.EncoderDecoderModel",
}
_PARAMETER_ALIASES = {
    ("prompts.from_embedded_list", "texts"): "labels",
    ("seqio.Evaluator", "write_n_results"): "json_write_n_results",
}
# Parameters of T5X that have no counterpart -> what to do instead.
_T5X_PARAMETERS = {
    "train.train.use_hardware_rng": "leave it out; dropout masks follow from RANDOM_SEED alone",
    "train.train.trainer_cls": "bind train.train.trainer = @trainer.Trainer()",
    "train.train.inference_evaluator_cls": "bind train.train.evaluator = @seqio.Evaluator()",
    "train.train.summarize_config_fn": "leave it out; config.gin is always written",
    "train.train.stats_period": "leave it out; summaries are written every 100 updates and at every save",
    "evaluate.evaluate.inference_evaluator_cls": "bind evaluate.evaluate.evaluator = @seqio.Evaluator()",
    "evaluate.evaluate.fallback_init_rng": "leave it out; nothing is initialized at random in evaluation",
    "infer.infer.fallback_init_rng": "leave it out; nothing is initialized at random in inference",
    "utils.SaveCheckpointConfig.dtype": "leave it out; the state is saved as it is trained, in float32",
    "utils.SaveCheckpointConfig.save_dataset": "leave it out; every checkpoint holds its place in the data",
    "utils.SaveCheckpointConfig.checkpointer_cls": "leave it out; a prompt file is written at every save",
    "utils.RestoreCheckpointConfig.fallback_to_scratch": "leave it out; only trainable weights may be missing",
    "utils.RestoreCheckpointConfig.assignment_map": "leave it out; only trainable weights may be missing",
    "utils.DatasetConfig.use_custom_packing_ops": "leave it out",
    "adafactor.Adafactor.logical_factor_rules": "leave it out; dimensions of 128 and more are factored",
    "models.EncoderDecoderModel.return_all_decodes": "leave it out; the best sequence is the result",
    "decoding.temperature_sample.decode_rng": "bind decoding.temperature_sample.seed",
    "models.EncoderDecoderModel.optimizer_def": "bind trainer.Trainer.optimizer = @adafactor.Adafactor()",
}

_shipped: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A name that was found.

    Attributes:
      selector: Complete name in gin's registry; for a runnable, its name in `RUNNABLES`.
      display: Name to show and to save.
      wrapped: The class or function; None for a runnable that is not the command's.
      imported: Module to import before the name exists, where `dynamic_registration` made it.
    """

    selector: str
    display: str
    wrapped: Callable[..., Any] | None
    imported: str | None = None

    @property
    def is_runnable(self) -> bool:
        """Whether this is one of `RUNNABLES`."""
        return self.selector in RUNNABLES.values()

    @property
    def is_ours(self) -> bool:
        """Whether this package registered it."""
        return self.is_runnable or self.selector in _shipped

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Returns the parameters by name; those of a class are its constructor's."""
        assert self.wrapped is not None
        parameters = dict(_signature(self.wrapped).parameters)
        parameters.pop("config_text", None)
        # A Linen module takes two arguments that its parent sets.
        if self.selector.endswith("network.Transformer"):
            parameters = {name: parameters[name] for name in ("config", "prompt")}
        return parameters

    def takes_anything(self) -> bool:
        """Whether any keyword argument is accepted."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters().values())


def add(package: str, name: str, target: Callable[..., Any]) -> None:
    """Registers one configurable with gin; does nothing the second time.

    Args:
      package: What may stand before the name, or "".
      name: Dotted name, as gin files write it.
      target: The class or function.
    """
    selector = f"{package}.{name}" if package else name
    if selector in _shipped:
        return
    module, _, short = selector.rpartition(".")
    gin.external_configurable(target, name=short, module=module)
    _shipped[selector] = name


def register() -> None:
    """Registers what runs are configured with; does nothing the second time.

    The names are T5X's, so that `utils.DatasetConfig`, `DatasetConfig` and `t5x.utils.DatasetConfig` all work.
    """
    if "t5x.utils.DatasetConfig" in _shipped:
        return
    import seqio

    from prompt_tuning import partitioning
    from prompt_tuning.checkpoints import config as checkpoint_config
    from prompt_tuning.config import paths
    from prompt_tuning.data import batches, evaluation, vocabularies
    from prompt_tuning.data.own import file_tasks
    from prompt_tuning.data.text import language_modeling
    from prompt_tuning.decoding import beam_search, sampling
    from prompt_tuning.models import config as model_config
    from prompt_tuning.models import encoder_decoder, t5
    from prompt_tuning.prompts import config as prompt_config
    from prompt_tuning.prompts import initializers
    from prompt_tuning.training import adafactor, schedules, trainer

    for package, name, target in (
        ("t5x", "utils.DatasetConfig", batches.DatasetConfig),
        ("t5x", "utils.CheckpointConfig", checkpoint_config.CheckpointConfig),
        ("t5x", "utils.RestoreCheckpointConfig", checkpoint_config.RestoreCheckpointConfig),
        ("t5x", "utils.SaveCheckpointConfig", checkpoint_config.SaveCheckpointConfig),
        ("t5x", "utils.create_learning_rate_scheduler", schedules.create_learning_rate_scheduler),
        ("t5x", "trainer.Trainer", trainer.Trainer),
        ("t5x", "adafactor.Adafactor", adafactor.Adafactor),
        ("t5x", "partitioning.PjitPartitioner", partitioning.PjitPartitioner),
        (
            "t5x",
            "partitioning.standard_logical_axis_rules",
            partitioning.standard_logical_axis_rules,
        ),
        ("t5x", "models.EncoderDecoderModel", encoder_decoder.EncoderDecoderModel),
        ("t5x", "decoding.beam_search", beam_search.BeamSearch),
        ("t5x", "decoding.temperature_sample", sampling.TemperatureSample),
        ("t5x.examples.t5", "network.T5Config", model_config.T5Config),
        ("t5x.examples.t5", "network.Transformer", t5.T5),
        ("prompt_tuning", "prompts.Prompt", prompt_config.PromptConfig),
        ("prompt_tuning", "prompts.from_embedded_list", initializers.ClassLabels),
        ("prompt_tuning", "prompts.from_sample_of_embeddings", initializers.SampledVocab),
        ("prompt_tuning", "prompts.from_string", initializers.FromText),
        ("prompt_tuning", "prompts.from_file", initializers.FromFile),
        ("prompt_tuning", "prompts.count_tokens", vocabularies.count_tokens),
        ("prompt_tuning", "paths.join", paths.join),
        ("prompt_tuning", "tasks.from_files", file_tasks.from_files),
        ("prompt_tuning", "tasks.from_text_files", language_modeling.from_text_files),
        ("flax", "linen.initializers.uniform", initializers.Uniform),
        ("", "seqio.SentencePieceVocabulary", vocabularies.SentencePieceVocabulary),
        ("", "seqio.ByteVocabulary", seqio.ByteVocabulary),
        ("", "seqio.Evaluator", evaluation.EvaluatorConfig),
    ):
        add(package, name, target)


def import_module(statement: Import) -> Any:
    """Imports what a gin file asks for; for `import a.b` returns `a`, as Python binds it.

    Raises:
      ConfigError: If it cannot be imported.
    """
    # T5X's run files say `import __main__ as train_script`; those names are aliases here.
    if statement.module == "__main__":
        return None
    try:
        module = importlib.import_module(statement.module)
    except ImportError as error:
        raise ConfigError(
            f"{statement.where}: a module cannot be imported ({error})",
            got=statement.module,
            expected="an importable module",
            fix="install it or add its folder to PYTHONPATH",
        ) from error
    if statement.binds_whole_path:
        return importlib.import_module(statement.module.split(".")[0])
    return module


class Names:
    """Looks up names as gin does, and those of files with dynamic registration through their imports.

    Args:
      command: `train`, `eval` or `infer`.
      runnable: The command's function; None where its parameters are not to be checked.
    """

    def __init__(self, command: str, runnable: Callable[..., Any] | None):
        self._command = command
        self._runnable = runnable
        # Source index -> bound name -> (import, module), for files with dynamic registration only.
        self._symbols: dict[int, dict[str, tuple[Import, Any]]] = {}

    def add_import(self, statement: Import) -> None:
        """Imports the module and, with dynamic registration, binds its name in its file."""
        if statement.is_dynamic_registration:
            self._symbols.setdefault(statement.source.index, {})
            return
        module = import_module(statement)
        symbols = self._symbols.get(statement.source.index)
        if symbols is not None and module is not None:
            symbols[statement.bound_name] = (statement, module)

    def find(self, name: str, source_index: int, where: str) -> Configurable:
        """Returns what `name` (without scope) stands for.

        Raises:
          ConfigError: If nothing or more than one thing has that name; lists the closest names.
        """
        target = _alias(name) or name
        command = next(
            (c for c, full in RUNNABLES.items() if target in (full, full.split(".")[1])), None
        )
        if command is not None:
            fn = self._runnable if command == self._command else None
            return Configurable(RUNNABLES[command], RUNNABLES[command], fn)
        found = self._find_imported(target, source_index) or self._find_registered(target, where)
        if found is None:
            raise ConfigError(
                f"{where}: no configurable has this name",
                got=name,
                expected="a name of docs/from_t5x.md, or one that an imported module registers",
                fix="correct the name, or import the module that defines it",
                name=name,
                candidates=self.known(),
            )
        return found

    def known(self) -> list[str]:
        """Returns every name that can be bound, as shown to users."""
        # gin has no public way to list its registry.
        registered = [selector for selector, _ in gin_config._REGISTRY.items()]
        return [*RUNNABLES.values(), *(_display(s) for s in registered if not s.startswith("gin."))]

    def _find_imported(self, name: str, source_index: int) -> Configurable | None:
        """Follows a name through its file's imports, registering what it leads to."""
        symbols = self._symbols.get(source_index, {})
        first, *rest = name.split(".")
        if first not in symbols or not rest:
            return None
        statement, value = symbols[first]
        full = name if statement.binds_whole_path else ".".join([statement.module, *rest])
        if full in _shipped:
            return _from_registry(gin_config._REGISTRY[full])
        for attribute in rest:
            value = getattr(value, attribute, None)
            if value is None:
                return None
        existing = gin_config._inverse_lookup(value)
        if existing is None:
            module, _, short = full.rpartition(".")
            gin.external_configurable(value, name=short, module=module)
            existing = gin_config._REGISTRY[full]
        return Configurable(existing.selector, full, existing.wrapped, imported=statement.module)

    def _find_registered(self, name: str, where: str) -> Configurable | None:
        """Looks a name, perhaps shortened from the left, up in gin's registry."""
        matches = gin_config._REGISTRY.matching_selectors(name)
        if len(matches) > 1:
            raise ConfigError(
                f"{where}: more than one configurable has this name",
                got=name,
                expected=f"one of {', '.join(sorted(matches))}",
                fix="write more of its module",
            )
        return _from_registry(gin_config._REGISTRY[matches[0]]) if matches else None


def parameter(configurable: Configurable, name: str, where: str) -> str:
    """Returns the parameter that `name` stands for.

    Raises:
      ConfigError: If there is none; lists the closest ones and, for a parameter of T5X's, what to do instead.
    """
    name = _PARAMETER_ALIASES.get((configurable.display, name), name)
    if configurable.wrapped is None:
        return name
    parameters = configurable.parameters()
    if name in parameters or configurable.takes_anything():
        return name
    full = f"{configurable.display}.{name}"
    raise ConfigError(
        f"{where}: {configurable.display} has no parameter of this name",
        got=name,
        expected=f"one of {', '.join(parameters)}",
        fix=_T5X_PARAMETERS.get(full, "correct the name"),
        name=name,
        candidates=parameters,
    )


# A sweep asks of hundreds of runs.
@functools.cache
def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function or class."""
    return inspect.signature(fn)


def _alias(name: str) -> str | None:
    """Returns the name that `name` is another spelling of."""
    return next(
        (new for old, new in _ALIASES.items() if old == name or old.endswith(f".{name}")), None
    )


def _display(selector: str) -> str:
    """Returns the name to show for a complete selector: T5X's for ours, the whole one otherwise."""
    return _shipped.get(selector, selector)


def _from_registry(entry: Any) -> Configurable:
    """Returns the record of gin's own entry."""
    return Configurable(entry.selector, _display(entry.selector), entry.wrapped)
