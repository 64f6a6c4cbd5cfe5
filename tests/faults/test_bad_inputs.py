"""Whatever is typed or lies in a file: a command does it or says what is wrong, soon and in bounded memory."""

import shutil

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.faults import bad_inputs

# What the libraries hold, and what a command on a tiny model may hold beside.
_MEBIBYTES = 2_500
_SETTINGS = hypothesis.settings(
    database=None,
    derandomize=True,
    deadline=None,
    print_blob=False,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.filter_too_much,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
)
# No argument of a command holds a zero, nor half of a pair.
_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


@pytest.fixture(scope="module")
def names(world, server):
    return bad_inputs.Names(world, server)


def _try(server, world, names, data, *, dry):
    out = world.folder / "out"
    argv = bad_inputs.make(
        world,
        names,
        lambda items: data.draw(st.sampled_from(items)),
        lambda: data.draw(_TEXT),
        out.name,
        dry=dry,
    )
    outcome = server.run(argv, folder=world.folder, seconds=120)
    if outcome.is_hung:
        # A fork may hang on a lock that another thread held at that moment; what hangs by its input hangs again.
        outcome = server.run(argv, folder=world.folder)
    shutil.rmtree(out, ignore_errors=True)
    hypothesis.note(f"{argv}\n{outcome.output}")
    assert outcome.is_told
    assert outcome.mebibytes < _MEBIBYTES


@hypothesis.settings(_SETTINGS, max_examples=30)
@hypothesis.given(data=st.data())
def test_a_command_does_it_or_says_what_is_wrong(server, world, names, data):
    _try(server, world, names, data, dry=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@hypothesis.settings(_SETTINGS, max_examples=40)
@hypothesis.given(data=st.data())
def test_a_run_does_it_or_says_what_is_wrong(server, world, names, data):
    _try(server, world, names, data, dry=False)
