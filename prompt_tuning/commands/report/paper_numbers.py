"""The numbers that were published: the paper's own, and other people's where the paper prints a plot only.

The paper is Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691v2. Where
it has a misprint, `value` is right and `printed` is what the paper has. SPoT is Vu et al. 2022, arXiv 2110.07904v2: the
same lab and code base; its Table 4 has the numbers of a plot like the paper's Figure 1.
"""

from dataclasses import dataclass

PAPER = "Lester et al. 2021, arXiv 2104.08691v2"
SPOT = "Vu et al. 2022 (SPoT), arXiv 2110.07904v2"

SIZES = ("small", "base", "large", "xl", "xxl")
SIZE_LABELS = {"small": "Small", "base": "Base", "large": "Large", "xl": "XL", "xxl": "XXL"}
# Parameters of T5 1.1 without a prompt: the totals of Table 4 less their prompts.
FROZEN_PARAMS = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}


@dataclass(frozen=True)
class Number:
    """A published number.

    Args:
      value: The number, right also where the source misprints it.
      sd: Standard deviation over runs; None where none was published.
      printed: What the source prints in place of `value`, if that is a misprint.
      note: What one has to know to read it.
    """

    value: float
    sd: float | None = None
    printed: str = ""
    note: str = ""


def _row(*cells: tuple[float, float]) -> dict[str, Number]:
    """A row of (mean, standard deviation) for the five sizes."""
    return {size: Number(*cell) for size, cell in zip(SIZES, cells, strict=True)}


_AMBIGUOUS = "the text this was read from leaves open which of XL's two rows has 0.5 and which 0.9"

# SuperGLUE dev, mean and standard deviation of 3 runs, T5 1.1. Source: SPoT, Table 4.
FIGURE_1 = {
    "prompt": {
        **_row((59.8, 0.8), (63.1, 1.1), (74.5, 2.2), (79.2, 0.9), (88.8, 0.2)),
        "xl": Number(79.2, 0.9, note=_AMBIGUOUS),
    },
    "model": _row((62.8, 0.8), (73.7, 0.6), (81.3, 0.6), (83.1, 0.2), (89.9, 0.2)),
    "multitask": {
        **_row((64.6, 0.2), (79.2, 0.3), (84.5, 0.1), (88.0, 0.5), (90.1, 0.2)),
        "xl": Number(88.0, 0.5, note=_AMBIGUOUS),
    },
    "spot": _row((64.5, 0.3), (73.2, 0.3), (82.7, 0.2), (88.7, 0.3), (91.2, 0.1)),
}
# The paper's own average over five prompts for XXL. Source: Table 3.
FIGURE_1_PAPER_XXL = Number(90.5, note="average of five prompts in the paper's Table 3")
# GPT-3 with a text prompt at five sizes, which the source does not name. Source: SPoT, Table 4.
PROMPT_DESIGN = (40.6, 43.4, 45.1, 47.8, 52.8)
FIGURE_1_REMARKS = (
    "The paper prints Figure 1 as a plot without numbers. The stand-in is SPoT's Table 4, whose rows had to be told"
    " apart again after text recognition; it agrees with SPoT's Table 1 for Base.",
    "Its multi-task row is SPoT's variant (tuned on GLUE, then on each task), not the paper's joint SuperGLUE mixture.",
    "For XXL prompt tuning the paper's Table 3 averages 90.5 over five prompts and SPoT has 88.8: take it as a range.",
    "The GPT-3 row is five model sizes that the source does not name, so it is in the table only.",
)
# Sections 1, 3 and 3.2 of the paper; it prints Figure 3 as plots without numbers.
FIGURE_STATEMENTS = {
    "figure_1": (
        "Prompt-tuned T5-Small is about as good as GPT-3 XL, which is over 16 times larger.",
        "Prompt-tuned T5-Large beats GPT-3 175B, which is over 220 times larger.",
        "For XXL, prompt tuning matches multi-task model tuning with over 20,000 times fewer parameters per task.",
    ),
    "figure_3a": (
        "Lengths 1, 5, 20, 100, 150. More than one token is critical for most sizes.",
        "Beyond 20 tokens there are only marginal gains; beyond 100 it is mildly detrimental for larger models.",
        "XXL does well with a single token.",
    ),
    "figure_3b": (
        "Random uniform in [-0.5, 0.5], sampled from the 5,000 most common tokens, or class labels.",
        "Class labels are best; the gaps are large for small models and gone for XXL.",
    ),
    "figure_3c": (
        "LM adaptation is best at every size; a sentinel before the targets helps little.",
        "With span corruption Small beats Base, Large and XL, which often never give a legal label (0 %).",
        "XXL works with any of the three.",
    ),
    "figure_3d": (
        "Adaptation for 0, 10K, 50K and 100K steps: longer is better up to 100K (10 % of the pre-training steps).",
        "For XXL the gains are modest.",
    ),
}

_LOST = "prompt tuning minus the printed difference: the column was not legible"
# Trained and selected on SQuAD; F1, mean and standard deviation of 3 runs: domain, model tuning, prompt tuning,
# difference. Source: the paper, Table 1, which names no model size; 94.9 on SQuAD suggests XXL.
TABLE_1 = {
    "SQuAD": ("Wiki", Number(94.9, 0.2), Number(94.8, 0.1), -0.1),
    "TextbookQA": ("Book", Number(54.3, note=_LOST), Number(66.8, 2.9), 12.5),
    "BioASQ": ("Bio", Number(77.9, note=_LOST), Number(79.1, 0.3), 1.2),
    "RACE": ("Exam", Number(59.8, note=_LOST), Number(60.7, 0.5), 0.9),
    "RE": ("Wiki", Number(88.4, note=_LOST), Number(88.8, 0.2), 0.4),
    "DuoRC": ("Movie", Number(68.9, note=_LOST), Number(67.7, 1.1), -1.2),
    "DROP": ("Wiki", Number(68.9, note=_LOST), Number(67.1, 1.9), -1.8),
}
# (trained on, evaluated on, tuning): accuracy, F1. Source: the paper, Table 2.
TABLE_2 = {
    ("QQP", "MRPC", "model"): (Number(73.1, 0.9), Number(81.2, 2.1)),
    ("QQP", "MRPC", "prompt"): (Number(76.3, 0.1), Number(84.3, 0.3)),
    ("MRPC", "QQP", "model"): (Number(74.9, 1.3), Number(70.9, 1.2)),
    ("MRPC", "QQP", "prompt"): (Number(75.4, 0.8), Number(69.7, 0.3)),
}
# Five prompts, one frozen XXL: metric, average, best, ensemble; tasks with two metrics have two values.
# Source: the paper, Table 3.
TABLE_3 = {
    "BoolQ": ("accuracy", (91.1,), (91.3,), (91.7,)),
    "CB": ("accuracy / F1", (99.3, 99.0), (100.0, 100.0), (100.0, 100.0)),
    "COPA": ("accuracy", (98.8,), (100.0,), (100.0,)),
    "MultiRC": ("EM / F1a", (65.7, 88.7), (66.3, 89.0), (67.1, 89.4)),
    "ReCoRD": ("EM / F1", (92.7, 93.4), (92.9, 93.5), (93.2, 93.9)),
    "RTE": ("accuracy", (92.6,), (93.5,), (93.5,)),
    "WiC": ("accuracy", (76.2,), (76.6,), (77.4,)),
    "WSC": ("accuracy", (95.8,), (96.2,), (96.2,)),
    "SuperGLUE (dev)": ("mean", (90.5,), (91.0,), (91.3,)),
}

TABLE_4_LENGTHS = (1, 5, 20, 50, 100, 150)
# Trainable parameters by prompt length. Source: the paper, Table 4.
_TRAINABLE = {
    "small": (512, 2_560, 10_240, 25_600, 51_200, 76_800),
    "base": (768, 3_840, 15_360, 38_400, 76_800, 115_200),
    "large": (1_024, 5_120, 20_480, 51_200, 102_400, 153_600),
    "xl": (2_048, 10_240, 40_960, 102_400, 204_800, 307_200),
    "xxl": (4_096, 20_480, 81_920, 204_800, 409_600, 614_400),
}
# (size, length, column): what the paper prints there.
_MISPRINTS = {
    ("small", 20, "trainable"): "10,420",
    ("small", 20, "total"): "76,971,572",
    ("large", 100, "percent"): "0.01907",
    ("xxl", 50, "total"): "11,137,380,352",
}
_TRUNCATED = {("xl", 20, "percent"), ("xl", 100, "percent")}


def table_4(size: str, length: int) -> dict[str, Number]:
    """Returns the paper's Table 4 for one model and one prompt length, misprints corrected.

    Args:
      size: One of `SIZES`.
      length: One of `TABLE_4_LENGTHS`. Unit: tokens.

    Returns:
      `trainable` and `total` parameters, and `percent`, the share of the trainable in the total.
    """
    trainable = _TRAINABLE[size][TABLE_4_LENGTHS.index(length)]
    total = FROZEN_PARAMS[size] + trainable
    values = {"trainable": trainable, "total": total, "percent": 100 * trainable / total}
    return {
        column: Number(
            value,
            printed=_MISPRINTS.get((size, length, column), ""),
            note="the paper cuts the digits off here and rounds elsewhere"
            if (size, length, column) in _TRUNCATED
            else "",
        )
        for column, value in values.items()
    }


def _seconds(text: str) -> int:
    """Reads h:mm:ss or mm:ss."""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


# (size, prompt length): seconds until BoolQ is within 1 % of its mean score. Small and Base on 4 TPU v2 chips, the
# others on 16 TPU v3 chips. Source: the paper, Table 5, which has no more cells.
TABLE_5 = {
    (size, length): _seconds(text)
    for length, row in {
        100: ("16:25", "29:57", "1:23:36", "3:35:00", "3:51:15"),
        50: ("9:05", "55:01", "1:14:16", "2:30:10", "3:13:13"),
        20: (None, None, None, "49:08", "53:03"),
        1: (None, None, "3:17", "3:37", "21:23"),
    }.items()
    for size, text in zip(SIZES, row, strict=True)
    if text is not None
}

# What was searched: hyperparameter, values as printed, value of the recipe, note.
# Source: the paper, Table 6; the recipe: section 3.
SEARCH_SPACE = (
    ("Learning rate", "0.001 to 0.5", "0.3", ""),
    ("Parameter scaling", "on, off", "off", ""),
    ("Batch size", "32, 64, 126, 256, 512", "32", "126 as printed, 128 to be expected"),
    ("Steps", "10,000, 20,000, 30,000", "30,000", ""),
    ("Warm-up steps", "off, 2,000, 3,000", "off", ""),
    ("Decay factor", "off, 0.1, 0.5", "off", ""),
    ("Steps per decay", "off, 4,000, 6,000, 8,000", "off", ""),
)

# Prompt tuning of T5 1.1 Base on the tasks of the sweep `real_data`: score, what it is, source, and what always
# answering the most frequent label scores by the paper's Tables 8 to 16 (none for SST-2).
REAL_DATA = {
    "SST-2": (
        Number(95.07),
        "prompt the authors released, accuracy",
        "google-research/prompt-tuning",
        None,
    ),
    "CB": (Number(92.7, 1.9), "100K steps, mean of accuracy and F1", f"{SPOT}, Table 6", 50.0),
    "RTE": (Number(68.7, 1.2), "100K steps, accuracy", f"{SPOT}, Table 6", 52.7),
    "WiC": (Number(63.6, 1.6), "100K steps, accuracy", f"{SPOT}, Table 6", 50.0),
}
