"""Stimuli: what they yield, that blocks do not matter, and what is refused."""

from __future__ import annotations

import math
import re
import tracemalloc

import numpy as np
import pytest

from spyke_numba.inputs import stimuli
from spyke_numba.inputs.stimuli import Constant, Noise, Poisson, Ramp, Step, Sum, parse

EXAMPLES = (
    "constant:5",
    "step:5,start=100ms,stop=0.2,base=-1",
    "ramp:10,first=2,start=0.05",
    "poisson:rate=50,weight=2",
    "poisson:rate=3000,weight=0.5",
    "poisson:rate=20000",
    "noise:mean=2,sd=0.5",
    "noise:sd=1,tau=5ms",
)


def test_every_kind_has_an_example():
    assert {text.partition(":")[0] for text in EXAMPLES} == set(stimuli.KINDS)


@pytest.mark.parametrize("text", EXAMPLES)
@pytest.mark.parametrize("block_steps", [1, 7, 128, 1000])
def test_blocks_equal_one_piece(text, block_steps):
    stimulus = parse(text)
    options = {"steps": 300, "ts": 0.001, "seed": 5}
    whole = stimulus.array((2, 3, 5), **options, block_steps=300)
    blocks = list(stimulus.blocks((2, 3, 5), **options, block_steps=block_steps))
    assert [len(block) for block in blocks[:-1]] == [min(block_steps, 300)] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate(blocks), whole)
    assert whole.shape == (300, 2, 3, 5)


@pytest.mark.parametrize("text", EXAMPLES)
def test_dtype_and_seed(text):
    stimulus = parse(text)
    single = stimulus.array((1, 50), steps=60, seed=1)
    double = stimulus.array((1, 50), steps=60, seed=1, dtype="float64")
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert np.array_equal(single, double.astype(np.float32))
    other = stimulus.array((1, 50), steps=60, seed=2)
    assert np.array_equal(single, other) == (not text.startswith(("poisson", "noise")))


def test_deterministic_kinds():
    assert (Constant(5).array((1, 4), steps=3) == 5).all()
    step = Step(5, start=0.002, stop=0.004, base=-1).array((1, 2), steps=6)[:, 0]
    assert step.tolist() == [[-1, -1], [-1, -1], [5, 5], [5, 5], [-1, -1], [-1, -1]]
    open_end = Step(5, start=0.002).array((1, 1), steps=4)
    assert open_end.ravel().tolist() == [0, 0, 5, 5]
    ramp = Ramp(10, first=2, start=0.002, stop=0.006).array((1, 1), steps=8, dtype="float64")
    assert np.allclose(ramp.ravel(), [2, 2, 2, 4, 6, 8, 10, 10])
    to_the_end = Ramp(8).array((1, 1), steps=4, dtype="float64")
    assert np.allclose(to_the_end.ravel(), [0, 2, 4, 6])


@pytest.mark.parametrize("ts", [0.001, 0.0001])
def test_times_are_seconds_whatever_the_time_step(ts):
    on = Step(1, start=0.01, stop=0.03).array((1, 1), steps=round(0.05 / ts), ts=ts).ravel()
    assert on.sum() * ts == pytest.approx(0.02)
    assert np.flatnonzero(on)[0] * ts == pytest.approx(0.01)


@pytest.mark.parametrize("rate", [0.0, 50.0, 3000.0, 9999.0, 20000.0])
def test_poisson_counts_have_the_poisson_distribution(rate):
    counts = Poisson(rate, weight=2).array((1, 500), steps=400, seed=3) / 2
    mean, size = rate * 0.001, counts.size
    assert np.array_equal(counts, np.round(counts))
    for n in range(math.ceil(mean + 5 * math.sqrt(mean)) + 2):
        chance = math.exp(-mean + n * math.log(mean) - math.lgamma(n + 1)) if mean else float(n == 0)
        spread = 5 * math.sqrt(size * chance * (1 - chance)) + 1e-3 * size * chance * (1 - chance) + 1
        assert abs((counts == n).sum() - size * chance) <= spread, f"{n} events"


def test_poisson_trains_are_independent():
    trains = Poisson(200).array((1, 2), steps=20_000, seed=3)[:, 0]
    assert abs(np.corrcoef(trains.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(trains[1:, 0], trains[:-1, 0])[0, 1]) < 0.03


def test_noise_statistics():
    white = Noise(mean=2, sd=0.5).array((1, 200), steps=2000, dtype="float64")[:, 0]
    assert white.mean() == pytest.approx(2, abs=0.005)
    assert white.std() == pytest.approx(0.5, rel=0.01)
    assert abs(((white[1:] - 2) * (white[:-1] - 2)).mean()) < 0.003
    slow = Noise(mean=-1, sd=2, tau=0.005).array((1, 500), steps=2000, dtype="float64")[:, 0] + 1
    assert slow.std(axis=1) == pytest.approx(np.full(2000, 2.0), rel=0.15)  # stationary from the first step
    for lag in (1, 5, 10):
        assert (slow[lag:] * slow[:-lag]).mean() / 4 == pytest.approx(math.exp(-lag / 5), abs=0.03)


def test_sum_adds_and_its_parts_are_independent():
    both = Sum((Constant(3), Step(1, start=0.002))).array((1, 1), steps=4)
    assert both.ravel().tolist() == [3, 3, 4, 4]
    two = Sum((Noise(sd=1), Noise(sd=1))).array((1, 100), steps=1000)
    assert two.std() == pytest.approx(math.sqrt(2), rel=0.02)  # 2 if both drew the same numbers
    with pytest.raises(ValueError, match="at least one"):
        Sum(())


@pytest.mark.parametrize("text", EXAMPLES)
def test_memory_does_not_grow_with_the_length(text):
    def peak(steps):
        tracemalloc.start()
        for _ in parse(text).blocks((1, 1000), steps=steps, block_steps=20):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(2000) < 1.5 * peak(100)


@pytest.mark.parametrize(
    ("text", "stimulus"),
    [
        ("constant:5", Constant(5)),
        ("constant: value = -5e-1", Constant(-0.5)),
        ("STEP:1,0.5", Step(1, start=0.5)),
        ("step:1,start=5ms,stop=2s", Step(1, start=0.005, stop=2)),
        ("ramp:last=3,first=1", Ramp(3, first=1)),
        ("poisson:rate=50", Poisson(50)),
        ("noise:", Noise()),
    ],
)
def test_parse(text, stimulus):
    assert parse(text) == stimulus


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sine:1", "constant:value=…"),
        ("", "allowed are"),
        ("constant:", "lacks value"),
        ("poisson:weight=2", "lacks rate"),
        ("poisson:rate=fast", "not a number"),
        ("constant:5ms", "not a number"),
        ("poisson:rate=1,rat=2", "no 'rat'"),
        ("poisson:rate=1,rate=2", "twice"),
        ("constant:1,2", "too many"),
        ("constant:nan", "finite"),
        ("noise:sd=-1", "negative"),
        ("poisson:rate=-1", "negative"),
        ("step:1,start=2,stop=1", "not after start"),
    ],
)
def test_parse_refuses_in_one_sentence(text, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_bad_values_are_refused():
    with pytest.raises(TypeError, match="not a number"):
        Constant("fast")  # type: ignore[arg-type]
    for bad in ({"steps": 0}, {"steps": 5, "ts": 0.0}, {"steps": 5, "block_steps": 0}):
        with pytest.raises(ValueError, match="give"):
            Constant(1).blocks((1, 1), **bad)
    # refused when asked for, not when the first block is taken
    with pytest.raises(ValueError, match="longer run"):
        Ramp(1, start=1).blocks((1, 1), steps=10)
