"""Whatever a model calls its states, parameters, local values and itself, its numbers are those of a plain loop."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from written import imported

from spyke_numba import Layer, NeuronSpec, models
from spyke_numba.backends import Backend
from spyke_numba.backends.cpu.source import ModuleSource
from spyke_numba.backends.cuda.source import Form
from spyke_numba.backends.cuda.source import source as cuda_source
from spyke_numba.backends.torch.launch import source as torch_source
from spyke_numba.compile.program import Program
from spyke_numba.compile.writer import mangled, numbered
from spyke_numba.model.spec import SHARED_PARAMS, canonical

STEPS, SHAPE = 6, (2, 1, 3)
#: In so many parts all names are tried: a program of many states takes long to compile.
PARTS = 12
#: Names that a model may not give, which the specification says.
RESERVED = {"u", "u_new", "u_pre", "I", "spikes", "pulses", "thresholded", "winners", "refractory", "events"}
RESERVED |= {"packed_spikes", "description", *SHARED_PARAMS}
RESERVED |= {"abs", "exp", "exp2", "log", "maximum", "minimum", "sqrt", "tanh", "where"}
#: What a recording can do, which is no name of a state.
RECORDING = {"get", "items", "joined", "keys", "names", "values"}


@cache
def generated_names() -> tuple[str, ...]:
    """Return every name of the texts that the backends generate, for all kinds of programs."""
    texts = []
    for inhibition in (None, "feature", "location", "global"):
        for varying in (frozenset(), frozenset({"threshold", "tau_w", "refractory_timesteps"})):
            for compact in (False, True):
                program = Program(
                    models.AdEx,
                    "float32",
                    inhibition,
                    compact,
                    floor=True,
                    varying=varying,
                    records=("spikes", "pulses", "thresholded", "u_pre"),
                )
                texts += [ModuleSource(program).text(), torch_source(program)]
                texts += [cuda_source(program, Form(wide)) for wide in (True, False)]
    names = {name for text in texts for name in re.findall(r"[A-Za-z_]\w*", text)}
    return tuple(sorted(name for name in names if not keyword.iskeyword(name)))


def text_of(states: Sequence[str], params: Sequence[str], local: Sequence[str]) -> str:
    """Return functions of a model that use every name, each parameter for one state."""
    arguments = ", ".join([*states, *params])
    sums = " + ".join(["0.25 * u", "I", *(f"0.125 * {name}" for name in states[:2])])
    text = f"def membrane(u, I, {arguments}):\n    return {sums}\n\n\n"
    text += f"def adaptation(u, I, u_new, {arguments}):\n"
    values = []
    for i, state in enumerate(states):
        value = f"0.5 * {state} + {params[i % len(params)]} * u_new + I"
        if i < len(local):
            text += f"    {local[i]} = {value}\n"
            value = local[i]
        values.append(value)
    text += f"    return {', '.join(values)}{',' * (len(values) == 1)}\n\n\n"
    jumps = ", ".join(f"{state} + {params[i % len(params)]}" for i, state in enumerate(states))
    return text + f"def on_spike({arguments}):\n    return {jumps}{',' * (len(states) == 1)}\n"


def spec_of(
    states: Sequence[str], params: Sequence[str], local: Sequence[str], folder: Path, name: str = "Named"
) -> NeuronSpec:
    module = imported(folder, text_of(states, params, local))
    return NeuronSpec(
        name=name,
        membrane=module.membrane,
        adaptation=module.adaptation,
        on_spike=module.on_spike,
        states={state: 0.01 * i for i, state in enumerate(states)},
        params={param: 0.125 + 0.0625 * i for i, param in enumerate(params)},
    )


def looped(spec: NeuronSpec, x: np.ndarray, varying: np.ndarray) -> dict[str, np.ndarray]:
    """Advance the model without inhibition and refractory periods in a plain loop."""
    states, params = tuple(spec.states), tuple(spec.params)
    values = {name: np.full(SHAPE, param.default) for name, param in spec.params.items()}
    values[params[0]] = varying
    u = np.zeros((1, *SHAPE))
    now = {name: np.full((1, *SHAPE), state.initial) for name, state in spec.states.items()}
    rows: dict[str, list[Any]] = {name: [] for name in ("spikes", "u", "u_pre", *states)}
    for current in x:
        new_u = 0.25 * u + current
        for name in states[:2]:
            new_u = new_u + 0.125 * now[name]
        spiked = new_u >= 1.0
        new = {}
        for i, name in enumerate(states):
            own = values[params[i % len(params)]]
            value = 0.5 * now[name] + own * new_u + current
            new[name] = np.where(spiked, value + own, value)
        u, now = np.where(spiked, 0.0, new_u), new
        for name, value in {"spikes": spiked, "u": u, "u_pre": new_u, **now}.items():
            rows[name].append(value)
    return {name: np.stack(values) for name, values in rows.items()}


def check(spec: NeuronSpec, backend: Any, record: Sequence[str] | None = None, seed: int = 0) -> None:
    """Compare a run of a named model with the plain loop, bit for bit."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 1.2, (STEPS, 1, *SHAPE))
    varying = generator.uniform(0, 0.25, SHAPE)
    first = next(iter(spec.params))
    neuron = spec(**{first: varying, "threshold": 1.0, "refractory_timesteps": 0})
    layer = Layer(neuron, SHAPE, backend=backend, dtype="float64")
    expected = looped(spec, x, varying)
    wanted = tuple(expected) if record is None else tuple(record)
    recording = layer.run(x, wanted)
    assert expected["spikes"].any()
    for name in wanted:
        np.testing.assert_array_equal(recording[name], expected[name], err_msg=name)


@pytest.mark.exhaustive(but=lambda part, backend: backend != "cpu" or part == 0)
@pytest.mark.parametrize("part", range(PARTS))
def test_names_of_generated_code_are_names_for_models(part: int, backend: Backend, tmp_path: Path) -> None:
    """Each name of the generated texts once as a state, as a parameter and as a local value."""
    free = [name for name in generated_names() if name not in RESERVED | RECORDING and "__" not in name]
    assert len(free) > 250 and {"x", "r", "t", "b", "lo", "hi", "new_u", "i_in", "taint"} <= set(free)
    chunk = free[part::PARTS]
    third = -(-len(chunk) // 3)
    for turn in range(3):
        states, params, local = (
            chunk[third * ((turn + i) % 3) : third * ((turn + i) % 3) + third] for i in range(3)
        )
        if backend.name == "cpu" and turn != part % 3:
            continue  # a compilation of seconds each: a third of the roles there, all of them elsewhere
        check(spec_of(states, params, local, tmp_path), backend)


def test_the_reported_names(backend: Backend, tmp_path: Path) -> None:
    """A state called x froze the input, one called r the refractory counters, a_1 met a neighbour's a."""
    check(
        spec_of(["x", "r", "a", "a_1"], ["p", "p_1", "p_0", "s"], ["i_in", "K0", "where_", "now"], tmp_path),
        backend,
    )


identifiers = st.one_of(
    st.sampled_from([name for name in generated_names() if "__" not in name]),
    st.from_regex(r"[a-zA-Z_µλ][a-zA-Z_0-9é]{0,6}", fullmatch=True),
    st.sampled_from(["s__u", "p__threshold", "out__u", "g__r", "__class__", "_", "__", "a__b", "µ", "µ"]),
).filter(lambda name: name.isidentifier() and not keyword.iskeyword(name))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_names(data: st.DataObject, tmp_path: Path) -> None:
    """Hypothesis draws names and records; the backends that compile nothing run each of them."""
    names = data.draw(st.lists(identifiers, min_size=6, max_size=9, unique=True))
    # of one name that Python reads twice, the file would not even be one
    names = [name for name in dict.fromkeys(map(canonical, names)) if name not in ("u", "I", "u_new")]
    assume(len(names) > 5)
    cut = data.draw(st.integers(1, 3))
    states, params, local = names[:cut], names[cut : cut + 2], names[cut + 2 :]
    try:
        spec = spec_of(
            states, params, local, tmp_path, data.draw(st.sampled_from(["Named", "run", "µ" * 200]))
        )
    except ValueError as refusal:
        if not re.search("name of the engine|also a|twice|another name|not known there", str(refusal)):
            raise
        return
    possible = ["spikes", "u", "u_pre", *spec.states]
    record = data.draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    check(spec, "torch", record)
    from emulated import emulated_cuda

    if emulated_cuda().unavailable() is None:
        check(spec, emulated_cuda(), record)


def test_any_names_on_the_cpu(tmp_path: Path) -> None:
    check(
        spec_of(["s__u", "__w", "µ"], ["p__threshold", "__class__"], ["g__r", "__", "λ"], tmp_path, "Größe"),
        "cpu",
        ("__w", "s__u", "spikes"),
    )


@pytest.mark.parametrize("name", sorted(RESERVED | RECORDING | {"lambda", "not a name"}))
def test_reserved_names_are_refused(name: str, tmp_path: Path) -> None:
    module = imported(tmp_path, text_of(["w"], ["p"], []))
    functions = {"membrane": module.membrane, "adaptation": module.adaptation, "params": {"p": 1.0}}
    with pytest.raises(ValueError, match=r"rename|another") as caught:
        NeuronSpec(name="Wrong", states={"w": 0.0, name: 0.0}, **functions)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_parameter_may_be_called_self(tmp_path: Path) -> None:
    spec = spec_of(["w"], ["self"], [], tmp_path)
    layer = Layer(spec(self=0.5, threshold=1.0), (2,), backend="cpu")
    layer.set(self=0.25)
    assert layer.parameters["self"] == 0.25


def test_the_mangler_keeps_names_apart() -> None:
    """Kinds without two underscores and any names give as many different results, and numbers keep them apart."""
    kinds = ("p", "s", "row", "row_p", "p_1")
    names = ("a", "a_1", "_a", "__a", "a__b", "p__a", "1", "_1__a")
    every = [mangled(kind, name) for kind in kinds for name in names]
    assert len(set(every)) == len(kinds) * len(names)
    lanes = [numbered(mangled("p", name), i) for name in names for i in range(3)]
    assert len(set(lanes)) == len(lanes) and not set(lanes) & {mangled("p", name) for name in names}


def test_no_name_of_the_codes_own_holds_two_underscores() -> None:
    functions = models.AdEx.functions.values()
    known = {*models.AdEx.all_params, *models.AdEx.derived, *models.AdEx.states, "u"}
    known |= {name for function in functions for name, _ in function.assignments}
    for name in generated_names():
        _, mark, own = name.partition("__")
        assert not mark or own in known or name == "__name__", name
