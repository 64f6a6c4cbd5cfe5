"""What is served: weights in Hugging Face's form, prompts in both programs' forms, and what is asked."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from prompt_tuning import ladder
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.launch.benchmarks import load_memory, measuring, random_checkpoints
from prompt_tuning.launch.benchmarks.speed import texts
from prompt_tuning.params.names import EMBEDDING

VOCABULARY = f"{ladder.LADDER}/vocabulary.model"
WEIGHTS, PROMPTS, ADAPTERS = "weights", "prompts", "adapters"
INPUTS, OUTPUTS = 128, 32
# Positions of the shortest and of the longest prompt.
_LENGTHS = {"pico": (3, 8), "mini": (5, 20), "small": (20, 100)}
# To what the server pads inputs; of the one for tests there is less to compile.
_WIDTHS = {"pico": (INPUTS,), "mini": (64, INPUTS), "small": (64, INPUTS)}
SIZES = tuple(_LENGTHS)
_RANDOM = "small"


@dataclasses.dataclass(frozen=True)
class Ask:
    """One question.

    Attributes:
      model: The prompt's name.
      prompt: The text.
      max_tokens: Tokens of the longest answer.
    """

    model: str
    prompt: str
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """A folder with everything.

    Attributes:
      folder: The folder.
      size: A rung of the ladder, with its own weights, or "small", with random ones.
      names: Of the prompts, which lie at `prompts/NAME.npy`.
    """

    folder: pathlib.Path
    size: str
    names: tuple[str, ...]

    @property
    def flags(self) -> list[str]:
        """Which model it is, and where its weights are, for any command."""
        shared = [f"--gin.CHECKPOINT_PATH={str(self.folder / WEIGHTS)!r}"]
        shared += ["--gin.utils.RestoreCheckpointConfig.dtype='float32'"]
        if self.size != _RANDOM:
            return [f"--gin_file=prompt_tuning/configs/ladder/{self.size}.gin", *shared]
        vocabulary = "seqio.SentencePieceVocabulary.sentencepiece_model_file"
        return [
            "--gin_file=prompt_tuning/configs/models/t5_1_1_small_prompt.gin",
            f"--gin.{vocabulary}={VOCABULARY!r}",
            "--gin.ACTIVATION_DTYPE='float32'",
            *shared,
        ]

    def sizes(self, resident_prompts: int) -> list[str]:
        """Returns the sizes of the server's engine, as flags."""
        sizes = {
            "resident_prompts": resident_prompts,
            "input_lengths": _WIDTHS[self.size],
            "output_length": OUTPUTS,
            "prompt_length": max(_LENGTHS[self.size]),
        }
        return [f"--gin.serve.Engine.{name}={value!r}" for name, value in sizes.items()]

    def path(self, name: str) -> pathlib.Path:
        """Where a prompt is."""
        return self.folder / PROMPTS / f"{name}.npy"

    def prompts(self, names: Sequence[str] = ()) -> str:
        """Returns the flag that names prompts; all by default."""
        return f"--prompts={','.join(f'{name}={self.path(name)}' for name in names or self.names)}"


def make(folder: pathlib.Path, size: str, num_prompts: int, num_adapters: int) -> Subject:
    """Writes weights, and prompts whose rows are those of random words.

    Args:
      folder: An empty folder.
      size: One of `SIZES`.
      num_prompts: How many; of several lengths.
      num_adapters: How many of the first ones are written as PEFT's adapters too.
    """
    config = measuring.config_of(size)
    read = None
    if size != _RANDOM:
        rung = f"{ladder.LADDER}/{size}/adapted/checkpoint_1200"
        read = open_source(ladder.locate(rung)).read
    shapes = load_memory.param_shapes(config)
    random_checkpoints.write_huggingface(folder / WEIGHTS, config, shapes, read)
    rng = np.random.default_rng(0)
    table = open_source(folder / WEIGHTS).read(EMBEDDING).astype(np.float32)
    low, high = _LENGTHS[size]
    names = tuple(f"p{number}" for number in range(num_prompts))
    for number, name in enumerate(names):
        # The longest of them is among the first, since all are as wide as it where they lie in one table.
        length = high if number == 0 else int(rng.integers(low, high + 1))
        rows = table[rng.integers(3, len(table), length)]
        path = folder / PROMPTS / f"{name}.npy"
        write.write_prompt(path, rows, {}, file_format="npy")
        if number < num_adapters:
            adapter = folder / ADAPTERS / name
            write.write_prompt(
                adapter, rows, {}, file_format="peft", base_model=str(folder / WEIGHTS)
            )
    return Subject(folder, size, names)


def questions(number: int, names: Sequence[str], seed: int = 0) -> list[Ask]:
    """Returns different texts of RTE's lengths, for prompts in turn, to be answered in 4 to 32 tokens.

    Args:
      number: How many.
      names: Of prompts.
      seed: Other seeds have other texts.
    """
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor()
    pieces.Load(ladder.locate(VOCABULARY))
    words = [pieces.IdToPiece(i) for i in range(pieces.vocab_size())]
    words = [word[1:] for word in words if word[0] == "▁" and len(word) > 3 and word[1:].isalpha()]
    words = [word for word in words if len(pieces.EncodeAsIds(word)) == 1]
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(texts.lengths("rte", number, INPUTS))
    return [
        Ask(
            names[i % len(names)],
            " ".join(rng.choice(words, n - 1)),
            int(rng.choice([4, 8, 16, OUTPUTS])),
        )
        for i, n in enumerate(lengths)
    ]
