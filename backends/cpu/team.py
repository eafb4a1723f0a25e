"""Threads that run compiled kernels together: they find each other through numbers in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from spyke_numba.backends.cpu.memory import address, aligned
from spyke_numba.compile.cache import load_module

#: Bytes from one counter to the next, each in a cache line of its own.
LINE = 64
#: Looks of a thread without work at the team's call, about 0.1 ms of them, before it sleeps: to wake it takes as long.
_LOOKS = 3000
#: A call, in one number: whether it is open to more threads, how many have joined it, and from this bit on its own
#: number.
_OPEN, _ONE_MORE, _NUMBER = 1, 2, 32
#: Where a thread's line has the file that wakes it, after whether it is asleep and room for the byte that it is sent.
_ALARM = 16

# a thread goes from one call to the next, and sleeps, without Python, whose lock it would have to wait for, and the
# caller for it
_TEAM = f'''\
"""Generated for threads that work together. Do not edit."""

import numpy as np
from numba import njit

from spyke_numba.backends.cpu.parts import (
    INNER,
    array_at,
    atomic_load,
    atomic_replace,
    call,
    give_way,
    pause,
    sleep,
    wait_until,
    wake,
)


@njit(**INNER)
def is_new(call, seen):
    return (call & {_OPEN}) != 0 and call >> {_NUMBER} != seen


@njit("void(int64, int64, int64, int64)", cache=True, nogil=True, _nrt=False)
def begin(team, threads, kernel, table):
    """Open a call of a kernel to the team, by the addresses of the kernel and of what it works on."""
    work = array_at(team + {LINE}, np.int64, (2,))
    work[0], work[1] = kernel, table
    last = atomic_load(team)
    atomic_replace(team, last, (((last >> {_NUMBER}) + 1) << {_NUMBER}) | {_OPEN})
    for i in range(1, threads):
        asleep = team + (1 + i) * {LINE}
        if atomic_replace(asleep, 1, 0):
            # by an alarm of its own: of one for all, a thread that sleeps again at once would take another's, which
            # nobody would ever wake
            wake(team, atomic_load(asleep + {_ALARM}), 1)


@njit("void(int64, int64, int64)", cache=True, nogil=True, _nrt=False)
def serve(team, me, alarm):
    """Take part in calls for ever; without any for a while, sleep until the file of alarms has a byte."""
    asleep, seen, looked = team + (1 + me) * {LINE}, 0, 0
    while True:
        now = atomic_load(team)
        if is_new(now, seen):
            if atomic_replace(team, now, now + {_ONE_MORE}):
                seen, looked = now >> {_NUMBER}, 0
                call(atomic_load(team + {LINE}), atomic_load(team + {LINE + 8}), me)
        elif looked < {_LOOKS}:
            looked += 1
            pause()
        else:
            looked = 0
            atomic_replace(asleep, 0, 1)
            # whoever has seen this thread asleep sends an alarm, which must be taken
            if not is_new(atomic_load(team), seen) or not atomic_replace(asleep, 1, 0):
                sleep(asleep, alarm)
                # the caller goes on first if it was woken in the caller's place
                give_way()


@njit("void(int64, int64)", cache=True, nogil=True, _nrt=False)
def end(team, ended):
    """Close the call, if one is open, and wait until the number at an address counts all who joined it as ended."""
    now = atomic_load(team)
    if not now & {_OPEN}:
        return
    while not atomic_replace(team, now, now & ~{_OPEN}):
        now = atomic_load(team)
    wait_until(ended, (now & {2**_NUMBER - 1}) // {_ONE_MORE})
'''


@cache
def _compiled() -> ModuleType:
    from spyke_numba.backends.cpu.parts import COMPILER

    return load_module("threads", _TEAM, COMPILER)


class _Team:
    """Threads beside the caller's, which stay awake for a moment after each call."""

    def __init__(self, threads: int):
        self._compiled, self._threads = _compiled(), threads
        # what the compiled functions call a team: the call, its kernel and table, and who is asleep
        self._numbers = aligned((1 + threads, LINE // 8), "int64")
        self._numbers[...] = 0
        self._at = address(self._numbers)
        for me in range(1, threads):
            alarm, self._numbers[1 + me, _ALARM // 8] = os.pipe()
            threading.Thread(target=self._serve, args=(me, alarm), name="spyke_numba", daemon=True).start()

    def _serve(self, me: int, alarm: int) -> None:
        # while this goes on there is a reference to the memory
        self._compiled.serve(self._at, me, alarm)

    def run(self, kernel: Kernel, table: int, ended: int) -> None:
        """Do what `Teams.run` says."""
        try:
            self._compiled.begin(self._at, self._threads, kernel.address, table)
            kernel.run(table, 0)
        finally:
            # who comes after this finds no work, so that nobody waits for a thread that still wakes up; all others are
            # waited for, interrupt or not, since they write into memory that may be gone afterwards
            self._compiled.end(self._at, ended)


class Kernel:
    """A compiled function ``run(table, thread)`` of two integers, the first the address of what it works on.

    Threads other than 0 add 1 to a number that is known to it from there when they end.
    """

    def __init__(self, run: Any):
        self.run: Callable[[int, int], None] = run
        (compiled,) = run.overloads.values()
        #: Where other compiled code finds it.
        self.address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


class Teams:
    """Teams of threads, made when needed: callers that run at the same time have one each."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Team]] = {}
        if hasattr(os, "register_at_fork"):
            # a child has no threads but the one that forked
            os.register_at_fork(after_in_child=self._free.clear)

    def run(self, kernel: Kernel, table: int, threads: int, ended: int) -> None:
        """Run a kernel on up to so many threads, this one being 0, and return when all have ended.

        Thread 0 must be able to do all the work, since the others may come late, or when it is done. The number at the
        address `ended`, 0 before, counts the others that have ended.
        """
        free = self._free.setdefault(threads, [])
        try:
            team = free.pop()
        except IndexError:
            team = _Team(threads)
        try:
            team.run(kernel, table, ended)
        finally:
            free.append(team)


TEAMS = Teams()
