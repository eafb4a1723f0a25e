"""Generated modules are imported once, whole, by however many threads and processes."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from spyke_numba.compile import cache as generated

SLOW = "import time\ntime.sleep(0.05)\nunique = {!r}\nrun = 'ready'\n"


def text() -> str:
    return SLOW.format(uuid.uuid4().hex)


def test_threads_find_a_module_whole() -> None:
    barrier = threading.Barrier(6)
    source = text()

    def load(_: int) -> object:
        barrier.wait()
        return generated.load_module("slow", source, "none"), generated.load_module(
            "slow", source, "none"
        ).run

    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(load, range(6)))
    assert {run for _, run in loaded} == {"ready"}
    assert len({id(module) for module, _ in loaded}) == 1


def test_a_module_that_fails_is_tried_again() -> None:
    source = (
        text() + "import sys\nif not hasattr(sys, 'spyke_tried'):\n    sys.spyke_tried = True\n    1 / 0\n"
    )
    with pytest.raises(ZeroDivisionError):
        generated.load_module("failing", source, "none")
    assert generated.load_module("failing", source, "none").run == "ready"
    del sys.spyke_tried  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_does_not_wait_for_its_parents_import() -> None:
    source, other = text(), text()
    thread = threading.Thread(target=generated.load_module, args=("slow", source, "none"))
    thread.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if generated.load_module("slow", other, "none").run == "ready" else 1)
    thread.join()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits")
    assert status == 0
