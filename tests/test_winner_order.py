"""SpykeTorch's order of winners, against its definition in exact arithmetic."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cases import assert_same
from emulated import emulated_cuda
from reference import choose_winners, inhibited_set

from spyke_numba import KWTA, Layer, NeuronSpec, Uniform, backends, models
from spyke_numba.backends.cpu.launch import ranks
from spyke_numba.backends.cpu.memory import address

RECORD = ("spikes", "u_pre", "winners", "refractory")
KNOWING = [name for name in backends.names() if backends.get(name).any_order]
#: Of the drop-in, as SpykeTorch divides it in each type.
AMPLITUDES = {"float32": float(np.float32(1) / np.float32(0.001)), "float64": 1 / 0.001}


def rounded(exact: Fraction, dtype: str) -> Any:
    """The nearest number of a type, of two the one whose last bit is 0: a way through float64 would round twice."""
    real = np.dtype(dtype).type
    try:
        near = real(float(exact))
    except OverflowError:
        return real(np.inf if exact > 0 else -np.inf)
    if not np.isfinite(near):
        return near
    around = [near, np.nextafter(near, real(-np.inf)), np.nextafter(near, real(np.inf))]
    bits = {"float32": np.int32, "float64": np.int64}[dtype]
    finite = [one for one in around if np.isfinite(one)]
    return min(finite, key=lambda one: (abs(Fraction(float(one)) - exact), int(one.view(bits)) & 1))


def fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return a * b + c
    return rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)), a.dtype.name)


def sums_of(u: np.ndarray, spiked: np.ndarray, amplitude: float) -> np.ndarray:
    """What SpykeTorch orders the neurons of one sample by in one step, where they spiked."""
    s = u.dtype.type(amplitude)
    sums = np.full_like(u, -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        largest = s * u[spiked].max(initial=-np.inf)
        for place in zip(*np.nonzero(spiked), strict=True):
            # the drop-in's potentials may be all negative: the original has no winners then
            total = fused(s, largest, s * u[place])
            sums[place] = total if total > np.finfo(u.dtype).min else np.finfo(u.dtype).min
    return sums


def in_flat_maps(array: np.ndarray) -> np.ndarray:
    """(T, B, F, H, W) of this, or of a population (T, B, N)."""
    return array if array.ndim == 5 else array[..., None, None]


def check(run: Any, inhibition: KWTA, amplitude: float, periods: np.ndarray | int) -> list[int]:
    """Assert that winners and counters are those of the definition, and return in how many steps of how many they are
    others than those of the exact order."""
    spikes, u, won, counters = (
        in_flat_maps(np.asarray(run[n])) for n in ("spikes", "u_pre", "winners", "refractory")
    )
    won = np.asarray(run["winners"])
    different = [0, 0]
    periods = np.broadcast_to(periods, u.shape[2:])
    for t, b in np.ndindex(u.shape[:2]):
        spiked = spikes[t, b]
        keys = u[t, b] if inhibition.exact_order else sums_of(u[t, b], spiked, amplitude)
        expected = choose_winners(spiked, keys, inhibition.k, inhibition.radius)
        got = [tuple(map(int, winner)) for winner in won[t, b] if winner[0] >= 0]
        assert got == expected, f"step {t}, sample {b}"
        assert (won[t, b, len(got) :] == -1).all()
        exact = choose_winners(spiked, u[t, b], inhibition.k, inhibition.radius)
        different[0] += exact != expected
        different[1] += bool(expected)
        counter = np.maximum(counters[t - 1, b] - 1, 0) if t else np.zeros(u.shape[2:], int)
        longest = np.full(u.shape[2:], -1)
        for winner in expected:
            members = inhibited_set(winner, inhibition.scope, u.shape[2:])
            longest[members] = np.maximum(longest[members], periods[winner])
        assert (counters[t, b] == np.where(longest >= 0, longest, counter)).all()
    return different


def near_ties(
    seed: int, T: int, B: int, shape: tuple[int, ...], dtype: str, kind: str = "convolved"
) -> np.ndarray:
    """Inputs (T, B, *shape) of which many are almost equal."""
    generator = np.random.default_rng(seed)
    if kind == "convolved":
        # of waves of 0 and 1 with weights that are alike, as a network's are before it has learnt
        F, H, W = shape if len(shape) == 3 else (shape[0], 1, 1)
        spread = 1e-3 if dtype == "float32" else 2e-12
        waves = generator.random((T, B, 4, H + 2, W + 2)) < 0.4
        weights = generator.normal(0.8, spread, (F, 4, 3, 3)).astype(dtype)
        windows = np.lib.stride_tricks.sliding_window_view(waves, (3, 3), axis=(3, 4))
        return np.einsum("tbchwij,fcij->tbfhw", windows.astype(dtype), weights).reshape(T, B, *shape)
    # a few levels, and numbers a few roundings from them
    levels = generator.uniform([5, 12, 12, 12], [10, 13, 15, 15]).astype(dtype)
    bits = levels.view({"float32": np.int32, "float64": np.int64}[dtype])
    place = (T, B, *shape)
    return (bits[generator.integers(0, 4, place)] + generator.integers(-2000, 2000, place, bits.dtype)).view(
        dtype
    )


def neuron_of(dtype: str, threshold: Any = 11.0, **more: Any) -> Any:
    """One whose potential is its input in the step after a reset, and leaks."""
    given = {"refractory_timesteps": 1, "spike_amplitude": AMPLITUDES[dtype], **more}
    return models.LIF_Simple(threshold=threshold, **given)


@pytest.mark.exhaustive(but=lambda scope: scope != "global")
@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["convolved", "levels"])
@pytest.mark.parametrize("scope", ["feature", "location", "global"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_winners_are_those_of_the_definition(dtype: str, scope: Any, kind: str) -> None:
    """Every backend that knows the order, radius and several k, in batches; some in both orders."""
    differ, same = np.zeros((2, 2)), 0
    for i, (shape, B, k, radius) in enumerate(
        [
            ((5, 6, 7), 3, 1, 0),
            ((12, 5, 6), 2, 8, 0),
            ((8, 7, 9), 1, 5, 1),
            ((8, 7, 9), 2, 8, 2),
            ((6, 9, 5), 1, 4, 3),
            ((60,), 2, 5, 0),
        ]
    ):
        x = near_ties(i, 12, B, shape, dtype, kind)
        for exact in (False, True):
            inhibition = KWTA(k, scope, radius, exact_order=exact)
            runs = [
                Layer(neuron_of(dtype), shape, B, inhibition, name, dtype).run(x, RECORD)
                for name in ("cpu", "torch")
            ]
            assert_same(*runs)
            changed, steps = check(runs[0], inhibition, AMPLITUDES[dtype], 1)
            if exact:
                assert changed == 0
                same += steps
            else:
                differ[:, int(radius > 0)] += changed, steps
    assert same > 40, differ
    # else this test could not fail
    assert (differ[0] > 0.05 * differ[1]).all(), differ


@pytest.mark.parametrize(
    ("shape", "k", "radius"),
    [((6, 15, 15), 4, 2), ((3, 70, 65), 3, 3), ((400, 3, 2), 8, 1), ((900,), 8, 0), ((600, 1, 3), 8, 0)],
    ids=str,
)
def test_maps_alone_in_rows_and_in_blocks(shape: tuple[int, ...], k: int, radius: int) -> None:
    """Maps that are advanced alone, those that are longer than a row, and more of them than a block has keys."""
    x = near_ties(1, 5, 2, shape, "float32", "levels")
    # few of the others spike: what is almost equal lies far apart
    x[np.random.default_rng(2).random(x.shape) < 1 - 300 / np.prod(shape)] *= 0.5
    inhibition = KWTA(k, "feature", radius, exact_order=False)
    runs = [
        Layer(neuron_of("float32"), shape, 2, inhibition, name).run(x, RECORD) for name in ("cpu", "torch")
    ]
    assert_same(*runs)
    assert check(runs[0], inhibition, AMPLITUDES["float32"], 1)[0] >= 3


@pytest.mark.sampled
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("B", [1, 4])
def test_threads_that_share_a_sample_and_those_that_do_not(B: int, threads: int) -> None:
    shape, k = (30, 25, 25), 8
    x = near_ties(3, 24 // B, B, shape, "float32", "levels")
    x[np.random.default_rng(4).random(x.shape) < 0.98] = 5.0
    inhibition = KWTA(k, "feature", 3, exact_order=False)
    run = Layer(neuron_of("float32"), shape, B, inhibition, "cpu", threads=threads).run(x, RECORD)
    assert check(run, inhibition, AMPLITUDES["float32"], 1)[0] > 12


def test_thresholds_and_periods_of_each_neuron() -> None:
    """A neuron below its own threshold ties with none, however near it is to a winner."""
    shape = (7, 5, 6)
    x = near_ties(5, 20, 2, shape, "float32", "levels")
    neuron = neuron_of(
        "float32", Uniform(11.9, 15.1, per="neuron"), refractory_timesteps=np.arange(7).reshape(7, 1, 1) % 3
    )
    for radius in (0, 1):
        inhibition = KWTA(4, "location", radius, exact_order=False)
        runs = [Layer(neuron, shape, 2, inhibition, name).run(x, RECORD) for name in ("cpu", "torch")]
        assert_same(*runs)
        periods = np.arange(7).reshape(7, 1, 1) % 3
        assert check(runs[0], inhibition, AMPLITUDES["float32"], periods)[0] > 10


@pytest.mark.parametrize("most_sorted", [0, 2048])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_gpu_is_given(monkeypatch: pytest.MonkeyPatch, dtype: str, most_sorted: int) -> None:
    """Operations on tensors instead of a compiled loop."""
    pytest.importorskip("torch", reason="torch is not installed")
    backend = importlib.import_module("spyke_numba.backends.torch.launch")
    winners = importlib.import_module("spyke_numba.backends.torch.winners")
    monkeypatch.setattr(winners, "MOST_SORTED", most_sorted)
    for module in (backend, winners):
        monkeypatch.setattr(module, "on_cpu", lambda array: False)
    for kind in ("convolved", "levels"):
        x = near_ties(6, 12, 2, (8, 7, 9), dtype, kind)
        for radius in (0, 2):
            inhibition = KWTA(4, "feature", radius, exact_order=False)
            run = Layer(neuron_of(dtype), x.shape[2:], 2, inhibition, backend.TorchBackend(), dtype).run(
                x, RECORD
            )
            assert check(run, inhibition, AMPLITUDES[dtype], 1)[0] > 3


@pytest.mark.parametrize("name", KNOWING)
def test_steps_and_runs_and_orders_in_turn(name: str) -> None:
    """Every backend; a layer may change its order from call to call."""
    backend = backends.get(name)
    if backend.unavailable() is not None:
        pytest.skip(f"backend {name!r}: {backend.unavailable()}")
    shape, rounds = (8, 7, 9), KWTA(4, radius=1, exact_order=False)
    exact = dataclasses.replace(rounds, exact_order=True)
    x = near_ties(7, 18, 1, shape, "float32")
    orders = [rounds, exact, exact, rounds, rounds, exact]
    whole, single = (Layer(neuron_of("float32"), shape, 1, backend=backend) for _ in range(2))
    changed = 0
    for i, order in enumerate(orders):
        block = x[3 * i : 3 * i + 3]
        run = whole.run(block, ("spikes", "u_pre", "winners"), inhibition=order)
        single.inhibition = order
        steps = [single.step(one, ("spikes", "u_pre", "winners")) for one in block]
        assert all(
            (np.stack([np.asarray(s[n]) for s in steps]) == np.asarray(run[n])).all() for n in run.names
        )
        for t in range(3):
            spiked, u = np.asarray(run.spikes)[t, 0], np.asarray(run.u_pre)[t, 0]
            expected = [
                choose_winners(spiked, keys, 4, 1) for keys in (u, sums_of(u, spiked, AMPLITUDES["float32"]))
            ]
            winners = [tuple(map(int, one)) for one in np.asarray(run.winners)[t, 0] if one[0] >= 0]
            assert winners == expected[not order.exact_order]
            changed += expected[0] != expected[1]
    assert changed > 3


def _as_given(I):
    return 1024.0 * I


@pytest.mark.exhaustive(but=lambda backend_name, dtype: backend_name == "torch" or dtype == "float32")
@pytest.mark.parametrize("backend_name", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_potentials(dtype: str, backend_name: str) -> None:
    """Infinite, huge and negative ones: sums that overflow tie, and a sum of infinities is the least."""
    largest = float(np.finfo(dtype).max)
    potentials = [
        [10.0, 30.0, np.inf, 20.0, np.inf],
        [largest / 2, largest / 3, largest / 4, 1.0, largest],
        [-50.0, -49.99999, -50.00001, -49.99999, -60.0],
        [-largest / 2, -largest / 3, -largest / 4, -largest / 5, -largest / 4],
        [largest / 2, -largest / 2, -largest / 3, 0.0, -1.0],
        [1e-30, 3e-30, 2e-30, 0.0, 0.0],
        [np.inf, -largest / 2, -largest / 3, -largest / 4, 0.0],
    ]
    inhibition, spec = KWTA(5, exact_order=False), NeuronSpec(name="AsGiven", membrane=_as_given)
    for amplitude in (1.0, AMPLITUDES[dtype]):
        neuron = spec(
            threshold=-0.9 * largest,
            resting_potential=-largest,
            refractory_timesteps=0,
            spike_amplitude=amplitude,
        )
        layer = Layer(neuron, (5,), 1, inhibition, backend_name, dtype)
        # an input is finite
        run = layer.run(np.where(np.isinf(potentials), largest, np.divide(potentials, 1024))[:, None], RECORD)
        assert run.spikes.all()
        np.testing.assert_array_equal(run.u_pre[:, 0], np.array(potentials, dtype))
        check(run, inhibition, amplitude, 0)
    assert run.winners[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4]
    # -50 and -49.99999 tie in float32
    assert run.winners[2, 0, 0, 0] == (0 if dtype == "float32" else 1)


def test_the_first_of_a_few_that_tie() -> None:
    """1000 * 10 + 1000 * 10 * 1000 has no bits for a difference of 1e-5; another map's larger potential is not seen."""
    x = np.full((1, 1, 3, 2, 2), 9.0, np.float32)
    x[0, 0, 1, 1, 0] = 10.00001
    x[0, 0, 1, 0, 1] = 10.0
    x[0, 0, 2, 0, 0] = 10.00002
    for name in ("cpu", "torch"):
        for exact, expected in ((False, [1, 0, 1]), (True, [2, 0, 0])):
            layer = Layer(neuron_of("float32", 5.0), x.shape[2:], 1, KWTA(1, exact_order=exact), name)
            assert layer.run(x, ("winners",)).winners[0, 0].tolist() == [expected]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_rounded_once(dtype: str) -> None:
    """The compiled loop, and what tensors have instead of a multiply-add, against fractions."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    fma = importlib.import_module("spyke_numba.backends.torch.fma").fma
    generator = np.random.default_rng(8)
    u = (10 ** generator.uniform(-3, 3, (4, 700)) * generator.choice([-1, 1], (4, 700))).astype(dtype)
    u[:, ::50] = -np.inf
    s = u.dtype.type(AMPLITUDES[dtype])
    given, out = np.array([s, *u.max(1)]), np.empty_like(u)
    ranks(dtype)(address(u), address(out), *u.shape, address(given))
    expected = np.array([sums_of(row, row > -np.inf, float(s)) for row in u])
    np.testing.assert_array_equal(out, expected)
    tensors = [
        torch.from_numpy(np.ascontiguousarray(np.broadcast_to(a, u.shape)))
        for a in (s, s * u.max(1)[:, None])
    ]
    finite = u > -np.inf
    got = fma(*tensors, torch.from_numpy(s * u)).numpy()
    np.testing.assert_array_equal(got[finite], expected[finite])
    # products that cancel, those that are small beside what is added, and those in the middle between two numbers
    a, b = generator.normal(size=(2, 3000)).astype(dtype)
    c = (-a * b * (1 + generator.normal(size=3000) * 1e-6)).astype(dtype)
    c[::3] = np.ldexp(c[::3], generator.integers(20, 60, c[::3].size))
    a[:6], b[:6] = (1 + 2.0**-12, 1 + 2.0**-12) if dtype == "float32" else (1 + 2.0**-26, 1 + 2.0**-27)
    a[2:4] *= -1
    c[:6] = np.array([1, -1, 1, -1, 0, 0]) * 2.0**-120
    exact = np.array([fused(*three) for three in zip(a, b, c, strict=True)])
    got = fma(*map(torch.from_numpy, (a, b, c))).numpy()
    np.testing.assert_array_equal(got, exact)
    twice = (a.astype(float) * b + c).astype(dtype)
    assert (twice != exact).any()


def test_refused_in_a_sentence() -> None:
    rounds, neuron = KWTA(2, exact_order=False), neuron_of("float32")
    for backend in ("cuda", emulated_cuda()):
        if backend == "cuda" and backends.get("cuda").unavailable() is not None:
            continue
        with pytest.raises(ValueError, match="know the exact order of winners alone: give exact_order=True"):
            Layer(neuron, (4, 2, 2), inhibition=rounds, backend=backend)
        layer = Layer(neuron, (4, 2, 2), 1, KWTA(2), backend)
        with pytest.raises(ValueError, match="give exact_order=True"):
            layer.inhibition = rounds
        assert layer.inhibition == KWTA(2)
        with pytest.raises(ValueError, match="give exact_order=True"):
            layer.run(np.ones((1, 1, 4, 2, 2)), inhibition=rounds)
    x = np.full((2, 1, 4, 2, 2), 20.0, np.float32)
    for amplitude, given in (
        (0.0, "is 0.0"),
        (-1.0, "is -1.0"),
        (1e-60, "is 1e-60"),
        (Uniform(1.0, 2.0), "differs"),
    ):
        for name in ("cpu", "torch"):
            layer = Layer(neuron, (4, 2, 2), 1, rounds, name)
            before = layer.run(x, ("spikes", "u", "winners"))
            state = {n: np.array(value) for n, value in layer.state.items()}
            layer.set(spike_amplitude=amplitude)
            with pytest.raises(ValueError, match=rf"spike_amplitude {given}.*one number above 0"):
                layer.run(x)
            assert all((np.asarray(layer.state[n]) == value).all() for n, value in state.items())
            layer.set(spike_amplitude=AMPLITUDES["float32"])
            layer.reset()
            assert_same(layer.run(x, ("spikes", "u", "winners")), before)
    for value in ("no", 1, None):
        with pytest.raises(TypeError, match=r"exact_order of KWTA is .*: give True or False"):
            KWTA(exact_order=value)


def test_inhibitions_of_before_are_exact() -> None:
    """A pickle that was made before there was another order, and what is written and compared."""
    old = object.__new__(KWTA)
    vars(old).update(k=3, scope="global", radius=1)
    for inhibition in (pickle.loads(pickle.dumps(old)), KWTA(3, "global", 1), KWTA(3, "global", 1, np.True_)):
        assert inhibition == KWTA(3, "global", 1, exact_order=True)
        assert hash(inhibition) == hash(KWTA(3, "global", 1))
        assert repr(inhibition) == "KWTA(k=3, scope='global', radius=1)"
    rounds = pickle.loads(pickle.dumps(KWTA(3, exact_order=False)))
    assert rounds != KWTA(3) and eval(repr(rounds)) == rounds
    layer = Layer(neuron_of("float32"), (4, 3, 3), 1, rounds, "cpu")
    x = near_ties(9, 6, 1, (4, 3, 3), "float32", "levels")
    twin = pickle.loads(pickle.dumps(layer))
    assert_same(layer.run(x, RECORD), twin.run(x, RECORD))
    assert "exact_order=False" in repr(twin)
