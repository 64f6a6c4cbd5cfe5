"""The engine from its settings: weights and prompts are read and checked, and nothing is compiled yet."""

from collections.abc import Mapping

from prompt_tuning import tree
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.engine.settings import EngineSettings
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import layouts
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import checks, many_prompts
from prompt_tuning.run.start import load_for_inference


def build(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    settings: EngineSettings,
    prompts: Mapping[str, str],
) -> Engine:
    """Returns an engine with the weights and the prompts loaded; `warm` comes next.

    Args:
      model: The model of the run.
      partitioner: Mesh and axis rules.
      restore: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run.
      settings: Sizes.
      prompts: Name -> path of what is loaded at the start.

    Raises:
      CheckpointError, ConfigError: As `load_for_inference` and `Engine.load`; before anything compiles.
    """
    checks.check_model(model, partitioner, [])
    many_prompts.check_method(model)
    served = model
    with partitioner.activate():
        if model.decodes_apart(settings.output_length):
            served = model.apart()
    # Read before the weights, so that what is of another model is refused at once.
    sets = {name: many_prompts.read(path, served) for name, path in prompts.items()}
    loaded = load_for_inference(model, partitioner, restore)
    flat = tree.flatten(loaded.params)
    if served is not model:
        # Once, and not for each call as `predict` does it.
        own_parameters = {p: flat.pop(p) for p in list(flat)}
        flat = layouts.take_apart(own_parameters)
    own = many_prompts.own(served, flat, loaded.untuned)
    engine = Engine(served, tree.unflatten(flat), partitioner, settings, own, restore.dtype)
    for name, tuned in sets.items():
        engine.add(name, prompts[name], tuned)
    return engine
