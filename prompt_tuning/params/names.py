"""The names of the parameters that several rooms look for."""

from prompt_tuning import tree

# Where the prompt is: a matrix [P, H] float32 that Linen names by the modules `encoder`, `prompt` and `prompt`.
PROMPT_PATH = "encoder/prompt/prompt/prompt"
# What `PROMPT_REGEX` in gin files stands for: a prompt, whatever it is in front of.
PROMPT_REGEX = (".*/prompt/.*",)
# How the paths of (IA)3's factors end: [width] of one layer, stacked [width, layers].
IA3_SCALING = "ia3_scaling"
# How the paths of LoRA's two matrices end: [inputs, rank] and [rank, outputs] of one layer, stacked on the second axis.
LORA_A, LORA_B = "lora_a", "lora_b"
# How those of prefixes end: `prefix_key`, `prefix_value` [P, N*D], stacked [P, layers, N*D], or what makes them
# (`params/prefix.py`).
PREFIX = "prefix_[a-z_]+"
# How those of prompts of one layer end: [P, H], stacked [P, layers, H].
DEEP_PROMPT = "deep_prompt"
# Of multitask prompts: each task's part [tasks, n], and a shared part [P, H_s] that is narrower than the model.
TASK_PROMPTS, SHARED_PROMPT = "task_prompts", "shared_prompt"
# Of MPT: columns [tasks, P, rank] and rows [tasks, rank, H].
TASK_COLUMNS, TASK_ROWS = "task_columns", "task_rows"
# Of ATTEMPT: W_down [H, b], W_up [b, H], the norm's scale and bias [H].
ATTEMPT_DOWN, ATTEMPT_UP = "attempt_down", "attempt_up"
ATTEMPT_SCALE, ATTEMPT_BIAS = "attempt_norm_scale", "attempt_norm_bias"
# DePT's: A [inputs, rank], a row for each position of the input, and B [rank, H].
DEPT_A, DEPT_B = "dept_a", "dept_b"
# How the paths end of all that a method (`models/methods/method.py`) adds: regular expressions.
ADDED_NAMES = (
    IA3_SCALING,
    LORA_A,
    LORA_B,
    PREFIX,
    DEEP_PROMPT,
    TASK_PROMPTS,
    SHARED_PROMPT,
    TASK_COLUMNS,
    TASK_ROWS,
    ATTEMPT_DOWN,
    ATTEMPT_UP,
    ATTEMPT_SCALE,
    ATTEMPT_BIAS,
    DEPT_A,
    DEPT_B,
    # `params/residual.py` names them.
    "residual_.*",
)
# What a prompt or a method adds to a model: what no checkpoint of the model has.
ADDED_REGEX = (*PROMPT_REGEX, *(f".*/{name}" for name in ADDED_NAMES))
# The linear maps of a layer by name; `wi` is that of a block without a gate.
LINEAR_MAPS = ("query", "key", "value", "out", "wi", "wi_0", "wi_1", "wo")
# The token embeddings [V, H] of the encoder, and of the decoder where it has no table of its own.
EMBEDDING = "token_embedder/embedding"
# The decoder's own table, in T5Gemma 1, and the one embedding that is not of a table, in T5Gemma 2.
DECODER_EMBEDDING = "decoder_embedder/embedding"
EOI_EMBEDDING = "token_embedder/eoi_embedding"
# How the paths of relative position tables end: [N, buckets] of a stack or of one layer, stacked [N, layers, buckets].
TABLE = "relpos_bias/rel_embedding"

is_prompt = tree.match_any(PROMPT_REGEX)
is_added = tree.match_any(ADDED_REGEX)


def is_method(path: str) -> bool:
    """Returns whether a method added the parameter of this path."""
    return is_added(path) and not is_prompt(path)


def place_of(path: str) -> str:
    """Returns a path inside a layer without its layer: `encoder/attention/query` in either layout."""
    stack, *rest = path.split("/")
    return "/".join((stack, *rest[1:]))
