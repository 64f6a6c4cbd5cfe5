"""The names of the parameters that several rooms look for."""

# Where the prompt is: a matrix [P, H] float32 that Linen names by the modules `encoder`, `prompt` and `prompt`.
PROMPT_PATH = "encoder/prompt/prompt/prompt"
# What `PROMPT_REGEX` in gin files stands for: a prompt, whatever it is in front of.
PROMPT_REGEX = (".*/prompt/.*",)
# The token embeddings [V, H], of encoder and decoder alike.
EMBEDDING = "token_embedder/embedding"
# How the paths of relative position tables end: [N, buckets] of a stack or of one layer, stacked [N, layers, buckets].
TABLE = "relpos_bias/rel_embedding"
