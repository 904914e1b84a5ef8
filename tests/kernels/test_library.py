"""Products of PyTorch's library: the same bits each time, and the process's settings left alone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cnndsl.rt.conv_library import conv_product_gradients, deterministic

from .regions import conv_geometry


@pytest.fixture(params=[False, True], autouse=True)
def chosen(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Say what the user has chosen."""
    before = torch.backends.cudnn.deterministic
    torch._C._set_cudnn_deterministic(request.param)
    yield request.param
    torch._C._set_cudnn_deterministic(before)


def gradients(*_: object) -> None:
    x, dz, weight = torch.randn(1, 8, 24, 24), torch.randn(1, 8, 24, 24), torch.randn(8, 8, 1, 1)
    conv_product_gradients(conv_geometry(8, 8, 1), dz, x, weight, (1, 24, 24), (True, True))


def test_gradients_of_threads_leave_the_setting_as_it_was(chosen: bool) -> None:
    for _ in range(40):
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(gradients, range(9)))
        assert torch.backends.cudnn.deterministic == chosen


def test_threads_on_a_gpu_take_turns(chosen: bool) -> None:
    alone = threading.Semaphore(1)

    def launch() -> bool:
        assert alone.acquire(blocking=False)
        gradients()
        alone.release()
        return torch.backends.cudnn.deterministic

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(lambda _: deterministic(launch), range(300)))
    assert torch.backends.cudnn.deterministic == chosen


def test_an_error_leaves_the_setting_as_it_was(chosen: bool) -> None:
    for _ in range(2):  # nobody waits for the one that failed
        with pytest.raises(ZeroDivisionError):
            deterministic(divmod, 1, 0)
    assert torch.backends.cudnn.deterministic == chosen


def test_settings_that_may_no_longer_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after torch.backends.disable_global_flags()."""
    settings = torch.backends.flags_frozen.__globals__
    monkeypatch.setitem(settings, "__allow_nonbracketed_mutation_flag", False)
    with pytest.raises(RuntimeError, match="disable_global_flags"):
        torch.backends.cudnn.deterministic = True
    gradients()
    deterministic(gradients)
