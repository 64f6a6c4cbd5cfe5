"""What a prompt comes from: its run, the frozen weights, the vocabulary, the class labels, and how it started."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning import tree
from prompt_tuning.checkpoints import hub, paths
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import read
from prompt_tuning.checkpoints.source import ParamSource, embedding_scale
from prompt_tuning.config import queries
from prompt_tuning.data import vocabularies
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params import int8
from prompt_tuning.params.names import EMBEDDING, PROMPT_PATH
from prompt_tuning.prompts import initializers
from prompt_tuning.run.start import split_key


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a prompt comes from.

    Attributes:
      info: What is recorded of the prompt.
      model_dir: The run's folder, if there is one.
      description: The run's configuration, if it is there.
    """

    info: Mapping[str, Any]
    model_dir: epath.Path | None
    description: queries.RunDescription | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The class labels that the run started from; empty if it did not."""
        spec = self._spec
        return tuple(spec.labels) if isinstance(spec, initializers.ClassLabels) else ()

    @property
    def _spec(self) -> Any:
        prompt = self.description.model.prompt if self.description else None
        return prompt.prompt_init if prompt else None

    def vocabulary(self, path: str | None, extra_ids: int) -> Any:
        """Returns the SeqIO vocabulary whose tokens the table holds.

        Args:
          path: SentencePiece model to use instead of the run's; None for the run's.
          extra_ids: Sentinels added to the model at `path`.

        Raises:
          ConfigError: If neither is there.
        """
        if path is not None:
            vocabulary = vocabularies.sentencepiece_vocabulary(path, extra_ids)
        elif self.description is not None:
            vocabulary = self.description.model.input_vocabulary
        else:
            raise ConfigError(
                "The vocabulary of the frozen model is not known",
                got="a prompt without the config.gin of its run",
                expected="the folder of a run, or --vocabulary",
                fix="name the SentencePiece model as --vocabulary",
            )
        vocabularies.check_vocabulary(vocabulary)
        return vocabulary

    def saved_prompts(self, width: int) -> dict[int, Float[np.ndarray, "P H"]]:
        """Returns step -> prompt, of all that the run saved.

        Args:
          width: H that they must have.
        """
        if self.model_dir is None:
            return {}
        folder = self.model_dir / read.FOLDER
        return {
            step: read.load_prompt(
                folder / f"{paths.STEP_PREFIX}{step}", setting="RUN_OR_PROMPT", width=width
            )[0]
            for step in paths.steps_in(folder)
        }

    def open_frozen(self, checkpoint: str | None) -> ParamSource:
        """Opens the checkpoint with the frozen weights.

        Args:
          checkpoint: Its path; None goes by what is recorded.

        Raises:
          CheckpointError: If none is recorded, or it is not there.
        """
        if checkpoint is not None:
            return open_source(checkpoint)
        recorded, then = self.info.get("initial_checkpoint_path"), self.info.get("model_dir")
        places = [recorded] if recorded else []
        if recorded and then and self.model_dir:
            # The run was perhaps moved together with what it started from.
            places.append(paths.moved_along(recorded, then, self.model_dir))
        found = next((place for place in places if place and epath.Path(place).exists()), None)
        if found is None:
            raise CheckpointError(
                "The frozen weights that the prompt belongs to are not known, or no longer where they were",
                got=recorded,
                expected="the checkpoint that the run started from",
                fix="name the checkpoint as --checkpoint",
            )
        return open_source(found)

    def start(
        self, table: Float[np.ndarray, "V H"], source: ParamSource, vocabulary: Any
    ) -> Float[np.ndarray, "P H"] | None:
        """Returns the prompt before the first step, made again as the run made it; None if that is not known.

        Args:
          table: [V, H] the frozen embeddings, as they enter the encoder.
          source: The initial checkpoint.
          vocabulary: Of the inputs.

        Raises:
          CheckpointError, ConfigError: If a file that the run started from is gone or has changed.
        """
        if self._spec is None or "seed" not in self.info:
            return None
        if PROMPT_PATH in source.shapes():
            return np.asarray(source.read(PROMPT_PATH), np.float32)
        is_trained = tree.match_any(self.info.get("trainable_regex", ()))(EMBEDDING)
        dtype = "float32" if is_trained else self.info.get("frozen_dtype", "float32")
        # The run rounded the stored rows and scaled what it drew of them.
        scale = np.float32(embedding_scale(source))
        prompt = initializers.build_prompt(
            self._spec,
            length=self.info["prompt_length"],
            embedding_table=jnp.asarray(table / scale, int8.held_dtype(EMBEDDING, dtype)),
            encode_text=lambda text: list(vocabulary.encode(text)),
            rng=split_key(jax.random.key(self.info["seed"]))[1],
            embedding_scale=float(scale),
        )
        return np.asarray(prompt)


def find_origin(
    path: epath.PathLike, info: Mapping[str, Any], allow_imports: Sequence[str] = ()
) -> Origin:
    """Returns where a prompt comes from.

    Args:
      path: What was named: MODEL_DIR, something below it, or a file elsewhere.
      info: What is recorded of the prompt.
      allow_imports: Modules that the run's `config.gin` may import.
    """
    path = paths.absolute(hub.local(path))
    # A file that somebody laid beside a run need not be of that run.
    is_of_run = path.is_dir() or read.FOLDER in path.parts
    places = [path, *list(path.parents)[:3]] if is_of_run else []
    if info.get("model_dir"):
        places.append(epath.Path(info["model_dir"]))
    model_dir = next((p for p in places if (p / read.FOLDER).is_dir()), None)
    if model_dir is None or not (model_dir / "config.gin").is_file():
        return Origin(info, model_dir, None)
    return Origin(info, model_dir, queries.query_run(str(model_dir), allow_imports))
