"""What is made once for all tests of this folder."""

import shutil

import pytest

from tests import tiny_run
from tests.faults.forks import Server
from tests.faults.kites import Kites
from tests.faults.world import World


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory):
    """A run of two steps that has ended."""
    kites = Kites.make(tmp_path_factory.mktemp("trained"), inputs)
    kites.train()
    return kites


@pytest.fixture
def kites(trained, tmp_path):
    """A copy of the run, for a test to harm."""
    folder = shutil.copytree(trained.folder, tmp_path / "kites")
    return Kites(folder, trained.inputs)


@pytest.fixture(scope="session")
def server():
    """Where commands run in processes of their own."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def world(server, tmp_path_factory):
    """What they work on."""
    return World.make(tmp_path_factory.mktemp("world"), server)
