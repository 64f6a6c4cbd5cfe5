"""Several methods in one model: they act as each does, and none where another acts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning import tree
from prompt_tuning.config import files
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.method import Method
from prompt_tuning.models.methods.prefix import Prefix
from prompt_tuning.models.methods.several import Several
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import ADDED_REGEX, is_method
from tests.helpers import tiny_config

KEYS, QUERIES = IA3(outputs=("key",), inputs=("wo",)), IA3(outputs=("query",), inputs=())


@dataclasses.dataclass(frozen=True)
class Shift(Method):
    """Adds a number to each output of some maps."""

    names: tuple[str, ...] = ("key",)

    def output_of(self, linear, x, y):
        if linear.name not in self.names:
            return y
        width, axis = linear.outputs
        shift = linear.parameter("shift", nn.initializers.zeros, (width,), (axis,), rows=len(x))
        return y + shift.reshape(*shift.shape[:2], *y.shape[2:]).astype(y.dtype)


def _model(method: Method, **config) -> EncoderDecoderModel:
    return EncoderDecoderModel(T5(tiny_config(**config), method=method), None, None)


def _added(method: Method) -> dict[str, tuple[int, ...]]:
    return {p: x.shape for p, x in _model(method).param_shapes.items() if is_method(p)}


def test_together_they_add_and_compute_what_one_of_all_their_settings_does(reference):
    both = Several(methods=(QUERIES, KEYS))
    one = IA3(outputs=("query", "key"), inputs=("wo",))
    assert _added(both) == {**_added(QUERIES), **_added(KEYS)} == _added(one)
    rng = np.random.default_rng(0)
    factors = {
        path: rng.uniform(0.5, 1.5, shape).astype(np.float32) for path, shape in _added(one).items()
    }
    params = tree.unflatten({**reference.frozen, **factors})
    models = [_model(m, dropout_rate=0.0) for m in (both, one)]
    logits = [jax.jit(model.apply)(params, dict(reference.batch)) for model in models]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_each_gets_what_it_made_for_its_layers_to_share():
    prefix = Prefix(length=2, hidden=4)
    assert _added(Several(methods=(QUERIES, prefix))) == {**_added(QUERIES), **_added(prefix)}


@dataclasses.dataclass(frozen=True)
class Penalty(Method):
    """Adds to the loss."""

    term: float = 1.0

    def penalty(self, params, encode_text, embedding_scale):
        return jnp.float32(self.term)


def _encode(text: str) -> list[int]:
    return [len(text)]


def test_losses_add_up_and_of_those_that_add_nothing_there_is_none():
    assert Several(methods=(KEYS, QUERIES)).penalty({}, _encode) is None
    three = Several(methods=(Penalty(), KEYS, Penalty(term=2.0)))
    assert three.penalty({}, _encode) == 3


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("other", [Shift(), IA3(outputs=("key",), inputs=())])
def test_two_that_change_the_same_are_refused_by_name_and_place(other, scan_layers):
    assert len(_model(Several(methods=(KEYS, Shift(names=("query",))))).param_shapes) > 0
    with pytest.raises(ConfigError, match=f"attention/key: got .*'IA3'.*'{type(other).__name__}'"):
        _model(Several(methods=(KEYS, other)), scan_layers=scan_layers).param_shapes  # noqa: B018


def test_every_hook_is_passed_on():
    own = {"path", "describe", "check"}
    hooks = {name for name in vars(Method) if not name.startswith("_")} - own
    assert hooks >= {"input_of", "output_of", "prompt_of"}
    assert hooks <= set(vars(Several))


def test_the_shipped_file_trains_whatever_a_method_adds():
    read = files.read(["prompt_tuning/configs/methods/several.gin"])
    bindings = [s for s in read.statements if isinstance(s, files.Binding)]
    (listed,) = [b.value for b in bindings if b.selector == "ADDED_REGEX"]
    assert listed == list(ADDED_REGEX)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"methods": [KEYS]}, "at least two"),
        ({"methods": ["ia3", "lora"]}, "at least two"),
        ({"methods": None}, "at least two"),
        ({"methods": [KEYS, IA3(path="a.safetensors")]}, "bind METHOD_FILE alone"),
    ],
)
def test_a_list_of_another_form_is_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        Several(**settings)


def test_a_list_is_no_method():
    module = T5(tiny_config(), method=[KEYS, QUERIES])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="several at once are METHODS"):
        EncoderDecoderModel(module, None, None)
