"""Threads that run compiled kernels together: they find each other through counters in memory, within microseconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from types import ModuleType

import numpy as np

from spyke_numba.buffers import address
from spyke_numba.generated import load_module

#: Bytes from one counter to the next, each in a cache line of its own.
LINE = 64
#: Looks of a thread without work at the counter, about 0.1 ms of them, before it sleeps: to wake it takes as long.
_LOOKS = 3000

_IDLE = '''\
"""Generated for threads without work. Do not edit."""

from numba import njit

from spyke_numba.backends._cpu_parts import atomic_load, pause, wait_until


@njit("boolean(int64, int64, int64)", cache=True, nogil=True, _nrt=False)
def changes(counter, value, looks):
    """Look at the number at an address until it is another, and return whether it is."""
    for _ in range(looks):
        if atomic_load(counter) != value:
            return True
        pause()
    return False


@njit("void(int64, int64)", cache=True, nogil=True, _nrt=False)
def wait(counter, least):
    """Wait until the number at the address is at least so large."""
    wait_until(counter, least)
'''


@cache
def _idle() -> ModuleType:
    from spyke_numba.backends._cpu_parts import COMPILER

    return load_module("threads", _IDLE, COMPILER)


class _Team:
    """Threads beside the caller's, which stay awake for a moment after each call."""

    def __init__(self, threads: int):
        self._idle = _idle()
        self._lock = threading.Lock()
        self._calls = np.zeros(1, np.int64)
        self._work: Callable[[int], None] | None = None
        self._begun = 0
        self._asleep = [False] * (threads - 1)
        self._alarms: list[SimpleQueue[None]] = [SimpleQueue() for _ in self._asleep]
        for i in range(threads - 1):
            threading.Thread(target=self._serve, args=(i,), name="spyke_numba", daemon=True).start()

    def run(self, work: Callable[[int], None], ended: int) -> None:
        """Do what `Teams.run` says."""
        with self._lock:
            self._work, self._begun = work, 0
            self._calls[0] += 1
        try:
            for asleep, alarm in zip(self._asleep, self._alarms, strict=True):
                if asleep:
                    alarm.put(None)
            work(0)
        finally:
            # who comes after this finds no work, so that nobody waits for a thread that still wakes up; all others are
            # waited for, interrupt or not, since they write into memory that may be gone afterwards
            with self._lock:
                self._work, begun = None, self._begun
            if begun:
                self._idle.wait(ended, begun)

    def _serve(self, i: int) -> None:
        counter, seen = address(self._calls), 0
        while True:
            if not self._idle.changes(counter, seen, _LOOKS):
                self._asleep[i] = True
                # an alarm may be left from a call that was seen without it
                while self._calls[0] == seen:
                    self._alarms[i].get()
                self._asleep[i] = False
            with self._lock:
                seen, work = int(self._calls[0]), self._work
                self._begun += work is not None
            if work is not None:
                work(i + 1)
            del work


class Teams:
    """Teams of threads, made when needed: callers that run at the same time have one each."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Team]] = {}
        if hasattr(os, "register_at_fork"):
            # a child has no threads but the one that forked
            os.register_at_fork(after_in_child=self._free.clear)

    def run(self, work: Callable[[int], None], threads: int, ended: int) -> None:
        """Call ``work(thread)`` on up to so many threads, this one being 0, and return when all have ended.

        Thread 0 must be able to do all the work, since the others may come late, or when it is done; each of them adds
        1 to the number at the address `ended`, 0 before, when it ends.
        """
        free = self._free.setdefault(threads, [])
        try:
            team = free.pop()
        except IndexError:
            team = _Team(threads)
        team.run(work, ended)
        free.append(team)


TEAMS = Teams()
