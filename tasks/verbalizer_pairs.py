"""SST-2 under several pairs of answer words: can one prompt follow a phrase that names the pair?

For each row of `PAIRS`:

- `sst2_{pair}_with_phrase`: `answer yes or no: <sentence>`; the phrase says which words to answer with.
- `sst2_{pair}`: `sentence: <sentence>`, as in `taskless_glue_sst2_v200`; nothing names the pair.

The mixture `sst2_verbalizer_pairs` holds all tasks with phrase in equal shares, and is meant for training.
"""

from prompt_tuning.data.benchmarks.data_sets import classification, register
from prompt_tuning.data.benchmarks.local_files import LocalFormat
from prompt_tuning.data.preprocessors import phrased_text
from prompt_tuning.data.registry import register_mixture

# Name of the pair -> (word for positive, word for negative).
PAIRS = {
    "great_terrible": ("great", "terrible"),
    "yes_no": ("yes", "no"),
    "up_down": ("up", "down"),
}
MIXTURE = "sst2_verbalizer_pairs"
_LOCAL = LocalFormat("SST-2", ".tsv", ("sentence",), ("negative", "positive"))
_TFDS_NAME = "glue/sst2:2.0.0"

for _pair, (_positive, _negative) in PAIRS.items():
    _verbalizers = (_negative, _positive)
    _data = classification(f"sst2_{_pair}", _LOCAL, _verbalizers)
    register(
        _data,
        f"sst2_{_pair}_with_phrase",
        tfds_name=_TFDS_NAME,
        to_text=phrased_text(
            field="sentence",
            verbalizers=_verbalizers,
            phrase=f"answer {_positive} or {_negative}:",
        ),
    )
    register(_data, f"sst2_{_pair}", tfds_name=_TFDS_NAME, to_text=_data.text(""))

register_mixture(MIXTURE, [f"sst2_{_pair}_with_phrase" for _pair in PAIRS])
