import pytest


@pytest.fixture(scope="module")
def one_thread():
    """One thread in PyTorch: threads that wait for one another are slower, where several workers share the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
