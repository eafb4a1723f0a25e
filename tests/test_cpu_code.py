"""What the CPU backend compiles to: vectors, no contraction, a warm second process, and threads that survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import llvmlite.binding
import numba
import numpy as np
import pytest
from cases import assert_same, neuron_of

from spyke_numba import KWTA, Layer, NeuronSpec, backends, models
from spyke_numba.backends.cpu import launch as cpu
from spyke_numba.backends.cpu.memory import address, aligned
from spyke_numba.backends.cpu.parts import (
    WINDOW,
    atomic_add,
    atomic_load,
    first_fired,
    first_place,
    give_way,
)
from spyke_numba.backends.cpu.source import INTERLEAVED
from spyke_numba.backends.cpu.team import LINE, Kernel, Teams
from spyke_numba.benchmarks.cases import DRIVEN
from spyke_numba.compile.program import Program
from spyke_numba.ops import sqrt

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads the names of x86-64 instructions"
)
HAS_FMA = llvmlite.binding.get_host_cpu_features().get("fma")
WITHOUT_FMA = "this processor has no multiply-add"
with_fma = pytest.mark.skipif(not HAS_FMA, reason=WITHOUT_FMA)
#: Floating-point arithmetic on whole vectors.
PACKED = re.compile(r"\bv?(?:add|sub|mul|div|max|min|fmadd\d+)p[sd]\b")
FUSED = re.compile(r"\bvfn?m(?:add|sub)\w*")
ROUNDED = re.compile(r"\bv(?:rndscale|round)[ps][sd]\b")


def assembly_of(source: str) -> str:
    """Return the same of a changed module."""
    namespace: dict[str, object] = {"__name__": "changed"}
    exec(compile(source.replace("cache=True, ", ""), "<changed>", "exec"), namespace)
    return next(iter(namespace["run"].inspect_asm().values()))  # type: ignore[attr-defined]


def source_of(program: Program) -> str:
    """Return a program's module without its test of the input, which is contracted on purpose and changes nothing."""
    return re.sub(r"\n *taint = tainted\(.*", "", backends.get("cpu").emit(program, "source"))


def assembly(program: Program) -> str:
    return assembly_of(source_of(program))


def wrongly_contracted(code: str, source: str) -> int:
    """Return how many multiply-adds there are beside those that each exponential, with its one rounding, asks for."""
    return len(FUSED.findall(code)) - source.count("fma(") * len(ROUNDED.findall(code))


@on_x86
@pytest.mark.exhaustive(but=lambda name: name in ("AdEx", "EIF", "LIF", "QIF"))
@pytest.mark.sampled
@pytest.mark.parametrize("inhibition", [None, "feature"])
@pytest.mark.parametrize("name", models.names())
def test_the_hot_loop_is_vectorised_and_nothing_else_is_contracted(name: str, inhibition: str | None) -> None:
    program = Program.of(
        neuron_of(models.get(name), False), inhibition=inhibition, compact=inhibition is not None
    )
    source = source_of(program)
    if "fma(" in source and not HAS_FMA:
        pytest.skip(WITHOUT_FMA)
    code = assembly(program)
    # a membrane has at least three operations, and an exponential about twenty more
    assert len(PACKED.findall(code)) >= (20 if re.search(r"\bexp2?\(", source) else 3)
    assert wrongly_contracted(code, source) == 0
    assert not re.search(r"\bcallq?\b.*\b(exp2?f?|powf?)\b", code)


def _endless(u, I):
    return sqrt(u * u + I)


@on_x86
def test_the_check_sees_a_loop_without_vectors() -> None:
    program = Program.of(NeuronSpec(name="Rooted", membrane=_endless)(threshold=1.0))
    source = source_of(program)
    serial = source.replace("i_in = x0[j]", "i_in = x0[j] + (row__u[j - 1] if j > 0 else x0[j])")
    assert serial != source
    assert len(PACKED.findall(assembly_of(serial))) < len(PACKED.findall(assembly(program)))


@on_x86
@with_fma
@pytest.mark.exhaustive(but=lambda name: name == "EIF")
@pytest.mark.parametrize("name", ["LIF", "EIF"])
def test_the_check_sees_a_contraction(name: str) -> None:
    source = source_of(Program.of(models.get(name)(threshold=1.0)))
    loose = source.replace("**INNER)\ndef advance", '**INNER, fastmath={"contract"})\ndef advance')
    assert loose != source
    assert wrongly_contracted(assembly_of(loose), source) > 0


@on_x86
@pytest.mark.exhaustive(but=lambda inhibition: inhibition is None)
@pytest.mark.parametrize("inhibition", [None, "feature"])
def test_vectors_go_side_by_side(inhibition: str | None) -> None:
    """The wish reaches LLVM: each operation of the loops stands there once for every vector."""
    program = Program.of(models.get("LIF")(threshold=1.0), inhibition=inhibition, compact=bool(inhibition))
    source = source_of(program)
    asked = f"interleaved({INTERLEAVED})"
    assert asked in source
    alone = assembly_of(source.replace(asked, "interleaved(1)"))
    sums = re.compile(r"\bv?addps\b")
    assert len(sums.findall(assembly(program))) >= 2 * len(sums.findall(alone)) > 0


def test_a_second_process_starts_warm(tmp_path: object) -> None:
    """Its kernel comes from the disk: nothing is compiled."""
    script = (
        "import numpy as np, numba.core.event as event\n"
        "from spyke_numba import Layer, models\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    Layer(models.LIF(threshold=1.0), (5,), backend='cpu').run(np.zeros((3, 1, 5)))\n"
        "print(len(recorder.buffer))\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    def compiled() -> int:
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        )
        return int(run.stdout)

    assert compiled() > 0
    assert compiled() == 0


def _run_in_child(queue: object) -> None:
    x = np.full((40, 2, 20_000), 30.0, np.float32)
    recording = Layer(models.LIF(threshold=1.0), (20_000,), 2, None, "cpu", threads=2).run(x)
    queue.put(int(recording.spikes.sum()))  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_survive_a_fork() -> None:
    x = np.full((40, 2, 20_000), 30.0, np.float32)
    for inhibition in (None, KWTA(2)):
        Layer(models.LIF(threshold=1.0), (20_000,), 2, inhibition, "cpu", threads=2).run(x)
    expected = int(Layer(models.LIF(threshold=1.0), (20_000,), 2, None, "cpu", threads=2).run(x).spikes.sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected > 0
    child.join(timeout=60)
    assert child.exitcode == 0


def test_layers_run_in_several_threads_at_once() -> None:
    x = np.random.default_rng(0).uniform(0, 60, (40, 2, 20_000)).astype(np.float32)

    def run(_: int) -> int:
        return int(Layer(models.LIF(threshold=1.0), (20_000,), 2, None, "cpu", threads=2).run(x).spikes.sum())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(8)))) == 1


def test_threads_take_part_at_once_and_after_a_sleep() -> None:
    @numba.njit("void(int64, int64)", nogil=True)
    def meet(table, me):
        if me > 0:
            atomic_add(table, 1)
            atomic_add(table + LINE, 1)
            return
        for _ in range(1_000_000):
            if atomic_load(table) == 2:
                break
            give_way()

    kernel, teams = Kernel(meet), Teams()
    for pause in (0.0, 0.0, 0.05, 0.05, 0.0):
        time.sleep(pause)
        met = aligned((2, LINE // 8), "int64")
        met[...] = 0
        teams.run(kernel, address(met), 3, address(met) + LINE)
        assert met[:, 0].tolist() == [2, 2]


def test_a_call_that_fails_leaves_its_threads_for_the_next() -> None:
    """As one that is interrupted does, before it has begun or after."""

    @numba.njit("void(int64, int64)", nogil=True)
    def count(table, me):
        atomic_add(table, 1)
        if me > 0:
            atomic_add(table + LINE, 1)

    class Failing:
        run = staticmethod(lambda table, me: 1 // me)

    failing, teams = Failing(), Teams()
    met = aligned((2, LINE // 8), "int64")
    for error in (AttributeError, ZeroDivisionError):
        if error is ZeroDivisionError:
            failing.address = Kernel(count).address
        met[...] = 0
        with pytest.raises(error):
            teams.run(failing, address(met), 2, address(met) + LINE)
        assert met[0, 0] == met[1, 0]
        met[...] = 0
        teams.run(Kernel(count), address(met), 2, address(met) + LINE)
        assert met[0, 0] == met[1, 0] + 1


def test_programs_differ_in_what_is_compiled_only() -> None:
    program = Program.of(models.get("LIF")(threshold=1.0))
    assert backends.get("cpu").kernel(program) is backends.get("cpu").kernel(replace(program))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_threads_have_as_many_tiles_each(batch: int, threads: int) -> None:
    for neurons in (3, 20_000, 100_000, 150_000, 300_000, 1_000_001):
        tile = cpu._tile(batch, neurons, threads, 200)
        tiles = batch * -(-neurons // tile)
        few = tiles < 8 * threads and neurons > 2 * cpu.SMALLEST_TILE * threads
        assert tiles % threads == 0 or not few


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(30, 6, 5), (9, 12, 15), (2, 30, 40)])
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
def test_input_that_is_asked_for_ahead_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, scope: str, shape: tuple[int, ...], threads: int
) -> None:
    """Maps of a part of a block, of several, and longer ones; few and all of them held; a step ahead, or a row."""
    monkeypatch.setattr(cpu, "PARALLEL_NEURON_STEPS", 0)
    monkeypatch.setattr(cpu, "PARALLEL_NEURONS", 0)
    x = np.random.default_rng(4).uniform(0, 20, (25, 1, *shape)).astype(np.float32)
    for k, period in ((2, 3), (shape[0], 5)):
        runs = []
        for least, few_winners in ((0, 0), (0, shape[0] + 1), (2**60, 0)):
            monkeypatch.setattr(cpu, "FETCHED", least)
            monkeypatch.setattr(cpu, "FEW_WINNERS", few_winners)
            neuron = models.LIF(threshold=2.0, C=0.016, refractory_timesteps=period)
            layer = Layer(neuron, shape, 1, KWTA(k=k, scope=scope), "cpu", threads=threads)
            runs.append(layer.run(x, ("spikes", "winners", "u")))
        assert runs[0].spikes.any()
        for run in runs[1:]:
            assert_same(runs[0], run)


@pytest.mark.sampled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["LIF", "AdEx"])
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
def test_maps_in_groups_equal_maps_alone(
    monkeypatch: pytest.MonkeyPatch, scope: str, name: str, threads: int
) -> None:
    monkeypatch.setattr(cpu, "PARALLEL_NEURON_STEPS", 0)
    monkeypatch.setattr(cpu, "PARALLEL_NEURONS", 0)
    # of few values, so that there are ties
    x = np.random.default_rng(5).integers(0, 9, (40, 1, 24, 12, 15)).astype(np.float32) * 50
    runs = []
    for smallest in (0, x.size):
        monkeypatch.setattr(cpu, "SMALLEST_ALONE", smallest)
        monkeypatch.setattr(cpu, "SMALLEST_ALONE_IF_COSTLY", smallest)
        inhibition = KWTA(k=4, scope=scope, radius=1)
        layer = Layer(models.get(name)(threshold=1.0), x.shape[2:], 1, inhibition, "cpu", threads=threads)
        runs.append(layer.run(x, ("spikes", "winners", "u")))
    assert (runs[0].winners >= 0).any()
    assert_same(*runs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_key_is_found_at_its_first_place(dtype: str) -> None:
    """Among vectors and what is left at the end of them; where a threshold is above the key, the search goes on."""

    @numba.njit
    def places(u, key, threshold):
        return first_place(u, key, None, None, key), first_fired(u, key, threshold)

    generator = np.random.default_rng(6)
    for size in range(150):
        for values in (3, 40, 1000):
            u = generator.integers(0, values, size).astype(dtype)
            threshold = generator.integers(0, values, size).astype(dtype)
            key = u.dtype.type(generator.integers(0, values))
            wanted = [np.flatnonzero(where) for where in (u == key, (u == key) & (key >= threshold))]
            assert places(u, key, threshold) == tuple(where[0] if where.size else -1 for where in wanted)
            # one threshold of all is below every key that is looked for
            assert places(u, key, key) == (places(u, key, threshold)[0],) * 2


@pytest.mark.parametrize("neurons", [1, 7, 63, 64, 65, 128, 200])
def test_spikes_are_listed(neurons: int) -> None:
    """Blocks of 64 neurons, and what is left at the end of a row, before the next row's spikes."""
    generator = np.random.default_rng(9)
    for density in (0.0, 0.03, 0.6, 1.0):
        for steps, batch in ((0, 2), (1, 1), (5, 3)):
            spikes = generator.random((steps, batch, neurons)) < density
            listed = cpu.events(spikes.reshape(steps, batch, 1, neurons), batch, 10)
            np.testing.assert_array_equal(listed, np.argwhere(spikes) + [10, 0, 0])
            assert listed.dtype == np.int64


@pytest.mark.sampled
@pytest.mark.parametrize("periods", ["one", "each"])
@pytest.mark.parametrize("name", models.names())
def test_steps_together_and_holds_over_windows_equal_single_steps(name: str, periods: str) -> None:
    """Several steps go together; holds that end in a window, with it, after it, or span several."""
    longest = WINDOW
    each = np.resize([0, 1, 2, longest - 1, longest, longest + 1, 254, 255, 256, 700], 40)
    x = np.random.default_rng(3).uniform(0, 60, (2 * longest + 7, 2, 40)).astype(np.float32)
    for period in [each] if periods == "each" else [3, longest + 1, 300]:
        neuron = models.get(name)(
            **neuron_of(models.get(name), False).given | {"refractory_timesteps": period}
        )
        together, single = (Layer(neuron, (40,), 2, backend="cpu") for _ in range(2))
        # a hold from before, which ends in a later window
        held = {**single.state, "refractory": np.resize([0, 1, longest, longest + 5, 1000], (2, 40))}
        together.state = single.state = held
        run = together.run(x, ("spikes",))
        steps = [single.step(one, ("spikes", "refractory")) for one in x]
        np.testing.assert_array_equal(run.spikes, np.stack([step.spikes for step in steps]))
        assert run.spikes.any()
        for state, value in single.state.items():
            np.testing.assert_array_equal(together.state[state], value, state)
        # the counters that a run records are those of the steps
        together.state = held
        recorded = together.run(x, ("refractory",)).refractory
        np.testing.assert_array_equal(recorded, np.stack([step.refractory for step in steps]))


def test_a_hold_lasts_its_period() -> None:
    """Counters after a spike, and the step of the next one, for periods around a window's end and a byte's."""
    for period in (0, 1, 118, 119, 120, 121, 239, 240, 254, 255, 256, 1000):
        layer = Layer(models.LIF_Simple(threshold=1.0, refractory_timesteps=period), (1,), backend="cpu")
        layer.run(np.zeros((7, 1, 1)))
        run = layer.run(np.full((period + 2, 1, 1), 2.0), ("spikes", "refractory"))
        assert run.spikes[:, 0, 0].nonzero()[0].tolist() == [0, period + 1]
        assert run.refractory[: period + 1, 0, 0].tolist() == list(range(period, -1, -1))


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize(
    ("shape", "k", "radius"),
    [((300, 3, 3), 6, 1), ((700, 3, 3), 9, 1), ((300, 4, 4), 3, 2), ((700,), 300, 0), ((600, 1, 2), 40, 0)],
    ids=str,
)
def test_winners_among_many_maps(shape: tuple[int, ...], k: int, radius: int, levels: int) -> None:
    """Keys in blocks, and maps rejected one after the other."""
    x = np.random.default_rng(7).integers(0, levels, (6, 2, *shape)) * (3.0 / levels)
    record = ("spikes", "winners", "refractory", "u")
    cpu, other = (
        Layer(models.LIF_Simple(threshold=1.0), shape, 2, KWTA(k, radius=radius), backend).run(x, record)
        for backend in ("cpu", "torch")
    )
    assert cpu.spikes.mean() > 0.1
    assert (cpu.winners[..., 0] >= 0).any()
    assert_same(cpu, other)


@pytest.mark.exhaustive(but=lambda name: name in ("LIF", "Izhikevich"))
@pytest.mark.parametrize("period", [1, 5])
@pytest.mark.parametrize("name", models.names())
def test_neurons_of_a_population_are_held_beside_others(name: str, period: int) -> None:
    """Each is a map of its own; groups of 4096 with all held, some, or none, from one step to the next."""
    x = np.random.default_rng(8).integers(0, 9, (25, 1, 9000)).astype(np.float32) * 50
    # all of the first group win at once, and nobody else
    x[:4] = 0
    x[4] = np.where(np.arange(9000) < 4096, 1e6, 0)
    neuron = models.get(name)(**{**DRIVEN[name], "refractory_timesteps": period})
    first, later = 4096, 30
    record = ("spikes", "refractory", *neuron.spec.states)
    runs = []
    for backend in ("cpu", "torch"):
        layer = Layer(neuron, x.shape[2:], 1, KWTA(first), backend)
        runs.append([layer.run(x[:5], record), layer.run(x[5:], record, inhibition=KWTA(later))])
    assert ((runs[0][0].refractory[-1, 0] > 0) == (np.arange(9000) < 4096)).all()
    assert runs[0][1].spikes[:, 0, 4096:].any(axis=0).all()
    for own, other in zip(*runs, strict=True):
        assert_same(own, other)
