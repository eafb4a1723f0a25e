"""How everything here is timed: interleaved repeats, medians, and the machine beside the figures."""

from __future__ import annotations

import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Name = TypeVar("Name")
#: Seconds for which a contestant's turn lasts at least.
TURN = 0.01
PACKAGES = ("numba", "llvmlite", "numpy", "torch", "numba-cuda")


def first_call(run: Callable[[], Any]) -> float:
    """Return the seconds of the first call, which compiles what is not cached yet."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleaved(
    contestants: Mapping[Name, Callable[[], Any]], seconds: float = 2.0, least: int = 5, turn: float = 0.0
) -> dict[Name, float]:
    """Return each contestant's median seconds per call; they take turns, so that a slow spell hits all.

    A contestant that returns a float has timed itself, and says so many seconds.
    """
    return {
        name: statistics.median(times) for name, times in repeats(contestants, seconds, least, turn).items()
    }


def repeats(
    contestants: Mapping[Name, Callable[[], Any]], seconds: float, least: int, turn: float = 0.0
) -> dict[Name, list[float]]:
    """Return the seconds of every call, for at least so many seconds and `least` turns, each in another order.

    A contestant is called again until its turn has lasted `turn` seconds: as in a loop, what it needs may then be in
    the cache.
    """
    times: dict[Name, list[float]] = {name: [] for name in contestants}
    order, shuffled = list(contestants), random.Random(0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[order[0]]) < least:
        shuffled.shuffle(order)
        for name in order:
            until = time.perf_counter() + turn
            while True:
                started = time.perf_counter()
                own = contestants[name]()
                ended = time.perf_counter()
                times[name].append(own if isinstance(own, float) else ended - started)
                if ended >= until:
                    break
    return times


def ready_memory(size: int) -> None:
    """Touch so many bytes and give them back, if they are so many that a free would return them to the system.

    A virtual machine hands back memory that has been free for a while, and gets it again slowly: called before each
    repeat, this lets all find what a call finds that follows another at once.
    """
    if size > 2**24:
        np.empty(size, np.uint8)[::4096] = 1


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> float:
    """Return the bytes of memory of this machine, or infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return processor, cores, versions, commit (marked dirty where files differ from it) and date."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {"python": platform.python_version()}
    for package in (*PACKAGES, *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    commit = "not a checkout"
    if checkout() is not None:
        try:
            commit = subprocess.run(
                ["git", "describe", "--always", "--dirty"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            commit = "unknown"
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return {
        "processor": model,
        "cores": processors(),
        **_gpu(),
        "versions": versions,
        "commit": commit,
        "date": date,
    }


def _gpu() -> dict[str, str]:
    # where torch, which the benchmarks on a GPU need, sees one
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def checkout() -> Path | None:
    """Return the folder of the checkout that this file belongs to, or None when it is installed."""
    return ROOT if (ROOT / "setup.cfg").is_file() else None


def write_json(path: Path, results: Mapping[str, Any], packages: Sequence[str] = ()) -> None:
    """Write results with the machine beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(packages), **results}, indent=1) + "\n", encoding="utf-8")
