"""Several examples in a row, each behind its own copy of the prompt."""

from collections.abc import Mapping, Sequence

import numpy as np

# Which row of the prompt stands at an encoder position, counted from 1; 0 where a token or padding does.
PROMPT_POSITIONS = "encoder_prompt_positions"


def pack(
    batch: Mapping[str, np.ndarray],
    *,
    prompt_length: int,
    width: int,
    target_width: int,
    row_counts: Sequence[int],
) -> dict[str, np.ndarray]:
    """Returns the examples of a batch in as few rows as first fit, longest first, finds.

    In its row an example is a segment: P places for the prompt, which the encoder fills, then its tokens. Segments
    attend to themselves alone and relative positions are differences, so that each example is computed as if alone.

    Args:
      batch: {encoder_input_tokens [B, L], decoder_{input_tokens, target_tokens, loss_weights} [B, T]} int32, with
        padding (0) behind what is real.
      prompt_length: P.
      width: Encoder positions of a row, at least P and the longest inputs.
      target_width: Decoder positions of a row, at least the longest targets.
      row_counts: Numbers of rows to choose from, ascending; the last one is at least B.

    Returns:
      Features [R, width] and [R, target_width] int32: those of the batch, `PROMPT_POSITIONS`, and as SeqIO packs them
      `{encoder, decoder}_segment_ids`, from 1, and `{encoder, decoder}_positions`. Rows that are left over are 0.

    Source: `seqio.trim_and_pack_dataset`. Differs: with prompts; rows are chosen within a batch, so that it holds the
      same examples as without packing, and the stream's position is still the count of examples.
    """
    tokens, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    sizes = np.stack([prompt_length + _lengths(tokens), _lengths(targets)], axis=1)
    rows = _first_fit(sizes, np.array([width, target_width]))
    num_rows = next(count for count in row_counts if count >= len(rows))
    sides = {"encoder": width, "decoder": target_width}
    names = ["segment_ids", "positions"]
    packed = {
        name: np.zeros((num_rows, sides[name.split("_")[0]]), np.int32)
        for name in (*batch, PROMPT_POSITIONS, *(f"{side}_{n}" for side in sides for n in names))
    }
    for row, examples in enumerate(rows):
        ends = np.cumsum(sizes[examples], axis=0)
        for segment, (example, end) in enumerate(zip(examples, ends, strict=True), start=1):
            for side, size, stop in zip(sides, sizes[example], end, strict=True):
                place = slice(stop - size, stop)
                packed[f"{side}_segment_ids"][row, place] = segment
                packed[f"{side}_positions"][row, place] = np.arange(size)
            start, stop = end - sizes[example], end
            first_token = start[0] + prompt_length
            packed[PROMPT_POSITIONS][row, start[0] : first_token] = 1 + np.arange(prompt_length)
            for name, x in batch.items():
                place = slice(start[1], stop[1])
                if name.startswith("encoder_"):
                    place = slice(first_token, stop[0])
                packed[name][row, place] = x[example, : place.stop - place.start]
    return packed


def _lengths(ids: np.ndarray) -> np.ndarray:
    """How many positions of each row are in front of the padding."""
    return np.where(ids > 0, np.arange(1, ids.shape[1] + 1), 0).max(axis=1)


def _first_fit(sizes: np.ndarray, capacity: np.ndarray) -> list[list[int]]:
    """Which examples each row holds: the longest first, each in the first row with room for it on both sides."""
    rows: list[list[int]] = []
    left: list[np.ndarray] = []
    for example in np.argsort(-sizes[:, 0], kind="stable"):
        size = sizes[example]
        fits = (row for row, room in enumerate(left) if (size <= room).all())
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            left.append(capacity.copy())
        rows[row].append(int(example))
        left[row] -= size
    return rows
