"""Names: T5X's, other spellings, and users' own modules."""

import sys

import gin
import pytest

from prompt_tuning.errors import ConfigError
from tests.gin_runs import CONFIGS, DEMO_TRAIN, TRAIN_FILES, resolve, resolve_demo, write

# Names.


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("utils.DatasetConfg.split", "utils.DatasetConfig"),
        ("train/utils.DatasetConfig.batchsize", "batch_size"),
        ("train.train.eval_perod", "eval_period"),
        ("adafactor.Adafactr.decay_rate", "adafactor.Adafactor"),
        ("network.T5Config.dropout", "dropout_rate"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_closest_match(name, closest):
    with pytest.raises(ConfigError, match=f"--gin.{name}.*Closest matches: .*{closest}"):
        resolve_demo("train", **{name: "1"})


def test_an_unknown_reference_is_an_error_with_the_closest_match():
    with pytest.raises(
        ConfigError, match="PROMPT.*prompts.Promt.*Closest matches: .*prompts.Prompt"
    ):
        resolve_demo("train", PROMPT="@prompts.Promt()")


def test_a_parameter_only_t5x_has_says_what_to_do():
    with pytest.raises(ConfigError, match="use_hardware_rng.*leave it out"):
        resolve_demo("train", **{"train.train.use_hardware_rng": "True"})


def test_every_other_spelling_binds_the_same_parameter():
    settings = {
        "train_script.train.eval_steps": "3",
        "t5x.utils.SaveCheckpointConfig.keep": "2",
        "PjitPartitioner.num_partitions": "2",
        "seqio.JSONLogger.write_n_results": "7",
        "prompt_init/prompts.from_embedded_list.texts": "['a', 'b', 'c']",
    }
    resolved = resolve_demo("train", **settings)
    arguments = resolved.arguments()
    assert arguments["eval_steps"] == 3
    assert arguments["checkpoint_cfg"].save.keep == 2
    assert arguments["partitioner"].num_partitions == 2
    assert arguments["evaluator"].json_write_n_results == 7
    assert arguments["model"].prompt.prompt_init.labels == ("a", "b", "c")
    # CLASS_LABELS is what the command line still sets and nothing reads any more.
    assert [w for w in resolved.warnings if "CLASS_LABELS" not in w] == []


def test_the_documented_sampled_vocabulary_binding_works():
    settings = {"prompt_init/prompts.from_samples_of_embeddings.population_size": "77"}
    files = [TRAIN_FILES[0], f"{CONFIGS}/prompts/from_sampled_vocab.gin", TRAIN_FILES[2]]
    without_labels = {k: v for k, v in DEMO_TRAIN.items() if k != "CLASS_LABELS"}
    resolved = resolve(files, {**without_labels, **settings})
    assert resolved.arguments()["model"].prompt.prompt_init.population_size == 77
    assert resolved.warnings == ()


DECODING = f"{CONFIGS}/models/decoding"


@pytest.mark.parametrize("name", ["models.EncoderDecoderModel", "t5x.models.EncoderDecoderModel"])
def test_t5xs_names_of_decoding_choices_work(name):
    settings = {
        f"{name}.predict_batch_with_aux.num_decodes": "2",
        "t5x.decoding.beam_search.alpha": "0.1",
    }
    resolved = resolve_demo("eval", f"{DECODING}/beam_search.gin", **settings)
    decoder = resolved.arguments()["model"].decoder
    assert (decoder.num_decodes, decoder.alpha) == (2, 0.1)
    assert resolved.warnings == ()


def test_a_decoding_function_without_a_call_is_called_as_t5x_does():
    settings = {
        "models.EncoderDecoderModel.decode_fn": "@decoding.temperature_sample",
        "decoding.temperature_sample.topk": "5",
        "decoding.temperature_sample.seed": "3",
    }
    resolved = resolve_demo("eval", **settings)
    decoder = resolved.arguments()["model"].decoder
    assert (decoder.topk, decoder.seed, decoder.num_decodes) == (5, 3, 1)
    assert resolved.warnings == ()


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("decoding.temperature_sample.decode_rng", "bind decoding.temperature_sample.seed"),
        ("models.EncoderDecoderModel.predict_batch_with_aux.return_all_decodes", "best sequence"),
        ("decoding.beam_search.alpa", "Closest matches: alpha"),
    ],
)
def test_decoding_parameters_without_a_counterpart_say_what_to_do(name, fix):
    with pytest.raises(ConfigError, match=f"no parameter of this name.*{fix}"):
        resolve_demo("eval", **{name: "1"})


def test_decoding_numbers_that_cannot_be_are_refused_by_name():
    settings = {"decoding.temperature_sample.topk": "3"}
    resolved = resolve_demo("eval", f"{DECODING}/nucleus_sampling.gin", **settings)
    with pytest.raises(ConfigError, match="topk and topp"):
        resolved.arguments()


# Users' own modules.

STATIC_MODULE = """
import gin

@gin.configurable
def my_rate(value=0.1, power=1):
    return lambda step: value ** power

@gin.configurable
def unused(x=1):
    return x
"""
DYNAMIC_MODULE = """
class Rates:
    pass

def fixed(value=0.1):
    return lambda step: value
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_a_users_registered_function_is_bound_called_and_saved(user_module, tmp_path):
    user_module("my_static_rates", STATIC_MODULE)
    text = """\
        import my_static_rates
        RATE = 0.5
        trainer.Trainer.learning_rate_fn = @my_rate()
        my_static_rates.my_rate:
          value = %RATE
          power = 2
        unused.x = 3
        """
    first = resolve_demo("train", write(tmp_path / "mine.gin", text))
    assert first.warnings == ()
    assert first.arguments()["trainer"].learning_rate_fn(0) == 0.25
    second = resolve([write(tmp_path / "config.gin", first.text)])
    assert second.arguments()["trainer"].learning_rate_fn(0) == 0.25
    assert "import my_static_rates" in second.text
    assert "my_static_rates.unused.x = 3" in second.text


def test_a_users_plain_function_is_bound_under_dynamic_registration(user_module, tmp_path):
    user_module("my_plain_rates", DYNAMIC_MODULE)
    text = """\
        from __gin__ import dynamic_registration
        import my_plain_rates as rates
        trainer.Trainer.learning_rate_fn = @rates.fixed()
        rates.fixed.value = 0.75
        """
    first = resolve_demo("train", write(tmp_path / "mine.gin", text))
    assert first.arguments()["trainer"].learning_rate_fn(0) == 0.75
    assert first.text.count("from __gin__ import dynamic_registration") == 1
    second = resolve([write(tmp_path / "config.gin", first.text)])
    assert second.arguments()["trainer"].learning_rate_fn(0) == 0.75
    with pytest.raises(ConfigError, match="no parameter of this name.*valu"):
        resolve_demo("train", tmp_path / "config.gin", **{"my_plain_rates.fixed.valu": "1"})


def test_a_module_that_cannot_be_imported_names_the_line(tmp_path):
    path = write(tmp_path / "mine.gin", "X = 1\nimport no_such_module_here\n")
    with pytest.raises(ConfigError, match=r"mine.gin:2: a module cannot be imported"):
        resolve_demo("train", path)


def test_a_users_constant_is_a_macro(tmp_path):
    gin.constant("my_constants.SEVEN", 7)
    # Constants are registered once for the process.
    resolved = resolve_demo("train", EVAL_STEPS="%my_constants.SEVEN")
    assert resolved.arguments()["eval_steps"] == 7


def test_an_error_of_our_own_inside_gin_keeps_its_text_clean():
    resolved = resolve_demo("train", **{"utils.RestoreCheckpointConfig.mode": "'lastest'"})
    with pytest.raises(ConfigError) as error:
        resolved.arguments()
    assert "Closest matches: latest" in str(error.value)
    assert "In call to configurable" not in str(error.value)


def test_an_error_of_others_inside_gin_keeps_its_type(user_module, tmp_path):
    user_module("my_broken_rates", "def broken():\n    raise ZeroDivisionError('by me')\n")
    text = """\
        from __gin__ import dynamic_registration
        import my_broken_rates
        trainer.Trainer.learning_rate_fn = @my_broken_rates.broken()
        """
    resolved = resolve_demo("train", write(tmp_path / "mine.gin", text))
    with pytest.raises(ZeroDivisionError, match="by me"):
        resolved.arguments()
