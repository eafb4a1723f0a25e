"""The interface of SpykeTorch's neurons: constructors, attributes, texts, subclasses, and networks that use them so."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from spyke_numba import functional, neurons

SHAPE = (1, 3, 4, 4)
REQUIRED = inspect.Parameter.empty
COMMON = {"threshold": REQUIRED, "tau_rc": 0.02, "ts": 0.001}
HOLD = {"resting_potential": 0.0, "refractory_timesteps": 2}
SOFT = {"delta_t": 0.5, "theta_rh": None}
RANGE = {"threshold": REQUIRED, "tau_range": REQUIRED, "ts": 0.001}
EXPONENTIAL = {**COMMON, **SOFT, **HOLD, "C": 0.281, "v_reset": None}

#: Every class's arguments by position, and their defaults.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Neuron": {
        "ts": 0.01,
        "resting_potential": 0.0,
        "v_reset": None,
        "threshold": None,
        "refractory_timesteps": 0,
        "inhibition_mode": "feature",
    },
    "IF": {**COMMON, **HOLD, "C": 0.281},
    "LIF": {**COMMON, **HOLD, "C": 0.281, "per_neuron_thresh": None},
    "LIF_ode": {**COMMON, **HOLD, "C": 0.281, "per_neuron_thresh": None},
    "LIF_Simple": {**COMMON, **HOLD, "per_neuron_threshold": None},
    "EIF": EXPONENTIAL,
    "EIF_Simple": {**COMMON, **SOFT, **HOLD, "v_reset": None, "per_neuron_threshold": None},
    "AdEx": {**EXPONENTIAL, "a": 0.6, "b": 0.7, "tau_w": 1},
    "QIF": {**COMMON, "u_c": None, "a": 0.001, **HOLD, "C": 0.281, "v_reset": None},
    "Izhikevich": {
        **COMMON,
        "a": 0.02,
        "b": 0.2,
        "c": 0.0,
        "d": 8.0,
        **HOLD,
        "C": 0.281,
        "v_reset": None,
    },
    "HeterogeneousNeuron": {"conv": REQUIRED},
    "UniformLIF": {**RANGE, **HOLD, "C": 0.281, "per_neuron_thresh": None},
    "UniformEIF": {**RANGE, **SOFT, **HOLD, "C": 0.281, "v_reset": None},
    "UniformQIF": {**RANGE, "u_c": None, "a": 0.001, **HOLD, "C": 0.281, "v_reset": None},
}
#: Values that differ from each default and from each other.
OTHERS = {
    "threshold": 12.0,
    "tau_rc": 0.03,
    "ts": 0.002,
    "resting_potential": -1.0,
    "refractory_timesteps": 4,
    "C": 0.5,
    "per_neuron_thresh": torch.full(SHAPE, 11.0),
    "per_neuron_threshold": torch.full(SHAPE, 11.0),
    "delta_t": 0.7,
    "theta_rh": 8.0,
    "u_c": 6.0,
    "v_reset": -2.0,
    "a": 0.04,
    "b": 0.3,
    "c": -60.0,
    "d": 7.0,
    "tau_w": 0.4,
    "tau_range": [0.02, 0.04],
    "inhibition_mode": "location",
    "conv": torch.nn.Conv2d(1, 2, 3),
}
BASE = {
    "_threshold",
    "resting_potential",
    "previous_state",
    "_per_neuron_thresh",
    "refractory_timestes",
    "ts",
    "refractoriness",
    "refractory_periods",
    "v_reset",
    "inhibition_mode",
}
LEAKY = {"tau_rc", "ts_over_tau", "exp_term", "refractory_timesteps", "C"}
SIMPLE = {"refractory_timesteps", "tau_rc", "decay"}
UPSWING = {"tau_rc", "refractory_timesteps", "C", "delta_t", "theta_rh"}
DRAWN = {"tau_range", "taus"}
#: What get_params has beside the base's.
PARAMS = {
    "Neuron": set(),
    "HeterogeneousNeuron": {"conv"},
    "IF": LEAKY,
    "LIF": LEAKY,
    "LIF_ode": LEAKY,
    "UniformLIF": LEAKY | DRAWN,
    "LIF_Simple": SIMPLE,
    "EIF_Simple": SIMPLE | {"delta_t", "theta_rh"},
    "EIF": UPSWING,
    "UniformEIF": UPSWING | DRAWN,
    "AdEx": UPSWING | {"R", "a", "b", "tau_w"},
    "QIF": {"tau_rc", "u_c", "a", "refractory_timesteps", "C"},
    "UniformQIF": {"tau_rc", "u_c", "a", "refractory_timesteps", "C"} | DRAWN,
    "Izhikevich": {"tau_rc", "refractory_timesteps", "C", "R", "a", "b", "d", "c"},
}
TEXTS = {
    "Neuron": "Spiking_Neuron_Base_Class",
    "HeterogeneousNeuron": "Spiking_Neuron_Base_Class",
    "UniformLIF": "LIF_Neuron_rt2_C0.281",
    "UniformEIF": "EIF_Neuron_rt2_C0.281",
    "UniformQIF": "QIF_Neuron_rt2_C0.281",
    "LIF_Simple": "LIF_Simple_RT2_tau0.02",
    "EIF_Simple": "EIF_Simple_RT2_tau0.02",
    **{
        name: f"{name}_Neuron_rt2_C0.281"
        for name in ("IF", "LIF", "LIF_ode", "EIF", "QIF", "AdEx", "Izhikevich")
    },
}


def plain(name: str, **more: Any) -> Any:
    """Return a neuron of a class with what it requires."""
    required = {key: OTHERS[key] for key, default in ARGUMENTS[name].items() if default is REQUIRED}
    return getattr(neurons, name)(**{**required, "backend": "torch", **more})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_by_position_and_by_name(name: str) -> None:
    expected = {key: OTHERS[key] for key in ARGUMENTS[name]}
    cls = getattr(neurons, name)
    for neuron in (cls(*expected.values()), cls(**expected)):
        for key, value in expected.items():
            got = getattr(neuron, key)
            assert got is value or got == value, key
    defaults = plain(name)
    for key, value in ARGUMENTS[name].items():
        if value is not REQUIRED and value is not None:
            assert getattr(defaults, key) == value, key
    parameters = list(inspect.signature(cls).parameters.values())
    assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    assert [p.name for p in parameters[:-1]] == list(expected)
    with pytest.raises(TypeError, match="positional"):
        cls(*expected.values(), 1.0)


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "HeterogeneousNeuron"])
def test_other_arguments_by_name(name: str) -> None:
    more = {"dtype": "float64", "seed": 3, "inhibition_radius": 1, "exact_order": True, "v_reset": -2.0}
    for level in ("per_neuron_thresh", "per_neuron_threshold"):
        neuron = plain(name, **more, inhibition_scope="location", **{level: torch.full(SHAPE, 7.0)})
        assert neuron.per_neuron_thresh.unique().tolist() == [7.0] and neuron.v_reset == -2.0
    with pytest.raises(TypeError, match="has no parameter 'tau'"):
        plain(name, tau=0.02)
    if name.startswith("Uniform"):
        with pytest.raises(TypeError, match="tau_rc"):
            plain(name, tau_rc=0.02)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_texts_and_parameters(name: str) -> None:
    neuron = plain(name)
    assert str(neuron) == TEXTS[name]
    params = neuron.get_params()
    assert set(params) == BASE | PARAMS[name]
    for key, value in params.items():
        if key not in ("tau_rc", "taus", "ts_over_tau", "exp_term"):
            assert value is getattr(neuron, key) or value == getattr(neuron, key)
    assert params["previous_state"] is params["refractory_periods"] is params["_per_neuron_thresh"] is None
    steps = ARGUMENTS[name].get("refractory_timesteps", 0)
    assert params["refractory_timestes"] == steps and type(params["refractoriness"]) is float
    assert params["refractoriness"] == pytest.approx(steps * params["ts"])
    if name in ("Neuron", "HeterogeneousNeuron"):
        return
    neuron(torch.zeros(SHAPE))
    now = set(neuron.get_params())
    tensors = {"previous_state", "refractory_periods", "_per_neuron_thresh"}
    if name.startswith("Uniform"):
        tensors |= {"tau_rc", "taus", "ts_over_tau", "exp_term"}
    assert now == (BASE | PARAMS[name]) - tensors


def test_numbers_that_follow_from_others() -> None:
    lif, simple = plain("LIF", tau_rc=0.04), plain("EIF_Simple", tau_rc=0.04)
    assert lif.ts_over_tau == 0.001 / 0.04 and lif.exp_term == pytest.approx(np.exp(-0.025))
    assert simple.decay == 1 - 0.001 / 0.04
    lif.tau_rc = 0.05
    assert lif.ts_over_tau == 0.001 / 0.05
    for name in ("AdEx", "Izhikevich"):
        assert plain(name, tau_rc=0.04).R == 0.04 / 0.281
    with pytest.raises(AttributeError, match="decay follows from ts and tau_rc: set these instead"):
        simple.decay = 0.9
    for name in ("EIF", "EIF_Simple", "AdEx", "UniformEIF"):
        assert plain(name, threshold=-40.0, resting_potential=-70.0).theta_rh == -50.0
    for name in ("QIF", "UniformQIF"):
        neuron = plain(name, threshold=10)
        assert neuron.u_c == 7.5
        neuron.u_c = 3.0
        neuron.threshold = 20.0
        assert neuron.u_c == 3.0
    assert plain("Izhikevich", c=None, v_reset=-50.0).c == -50.0
    # the number follows from the threshold's, also where each neuron has one of its own
    neuron = neurons.EIF_Simple(
        8.0, per_neuron_threshold=torch.full(SHAPE, 100.0), delta_t=1.0, backend="torch"
    )
    assert neuron.theta_rh == 6.0
    assert neuron(torch.zeros(SHAPE))[1].unique().tolist() == pytest.approx([np.exp(-6.0)])


def test_heterogeneous_neurons() -> None:
    assert issubclass(neurons.UniformLIF, neurons.LIF)
    given = [0.01, 0.02]
    neuron = neurons.UniformLIF(10.0, given, backend="torch", seed=3)
    assert neuron.tau_range is given and neuron.taus is None and neuron.ts_over_tau is None
    neuron(torch.zeros(SHAPE))
    assert neuron.taus.shape == (1, 3, 1, 1) and len(neuron.taus.unique()) == 3
    assert torch.equal(neuron.taus[0].expand(3, 4, 4), neuron.tau_rc)
    assert torch.equal(neuron.ts_over_tau, 0.001 / neuron.tau_rc)
    assert torch.equal(neuron.exp_term, torch.exp(-0.001 / neuron.tau_rc))
    neuron.tau_range = (0.05, 0.06)
    assert neuron.tau_range == (0.05, 0.06) and neuron.taus.min() >= 0.05
    with pytest.raises(ValueError, match="give two numbers of seconds"):
        neuron.tau_range = 0.1
    assert neuron.tau_range == (0.05, 0.06)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spike_is_one_over_ts_divided_in_the_dtype(dtype: torch.dtype) -> None:
    for ts in (0.001, 0.003, 1 / 3000):
        expected = torch.ones((), dtype=dtype) / torch.tensor(ts, dtype=dtype)
        neuron = plain("LIF", ts=ts)
        assert neuron(torch.full(SHAPE, 1e6, dtype=dtype))[0].unique().tolist() == [expected.item()]
        neuron.ts = 0.002
        neuron.refractory_periods = torch.zeros(SHAPE)
        expected = torch.ones((), dtype=dtype) / torch.tensor(0.002, dtype=dtype)
        assert neuron(torch.full(SHAPE, 1e6, dtype=dtype))[0].unique().tolist() == [expected.item()]
    assert plain("LIF")(torch.full(SHAPE, 1e6))[0].max().item() == np.float32(999.99994)


def test_refractoriness_is_in_seconds() -> None:
    neuron = plain("LIF_Simple", refractoriness=0.0012)
    assert (neuron.refractoriness, neuron.refractory_timesteps, neuron.refractory_timestes) == (0.0012, 2, 2)
    neuron.refractory_timesteps = 5
    assert neuron.refractoriness == pytest.approx(0.005)
    for bad, kind in (
        (-0.001, ValueError),
        ("long", ValueError),
        (float("nan"), ValueError),
        (True, ValueError),
    ):
        with pytest.raises(kind, match=r"refractoriness is .*: give seconds, 0 or more"):
            neuron.refractoriness = bad
    for bad in (-1, 2.5):
        with pytest.raises(ValueError, match="refractory_timesteps of LIF_Simple is"):
            neuron.refractory_timesteps = bad
        with pytest.raises(ValueError, match="refractory_timesteps of LIF_Simple is"):
            plain("LIF_Simple", refractory_timesteps=bad)
    assert neuron.refractory_timesteps == 5
    with pytest.raises(ValueError, match="ts of LIF is 0"):
        neurons.LIF(10.0, ts=0.0)


@pytest.mark.parametrize("name", ["LIF_Simple", "AdEx"])
def test_without_winners(name: str) -> None:
    neuron = plain(name, threshold=1.0)
    x = torch.full((2, *SHAPE[1:]), 1e5)
    spikes, state, winners, winning = neuron(x, n_winners=0, return_winning_spikes=True)
    assert winners == [[], []] and spikes.all() and not state.any() and not winning.any()
    assert not neuron.refractory_periods.any()
    neuron.reset()
    assert neuron(x[:1], n_winners=0)[-1] == []
    # who was held before stays so
    neuron.reset()
    neuron(x[:1] * torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1))
    held = neuron.refractory_periods > 0
    assert neuron(x[:1], n_winners=0)[-1] == []
    assert torch.equal(neuron.refractory_periods > 0, held)


def test_names_for_star_imports() -> None:
    names: dict[str, Any] = {}
    exec("from spyke_numba.neurons import *", names)
    assert set(neurons.CLASSES) == set(ARGUMENTS) and set(ARGUMENTS) <= set(names)
    assert isinstance(names["DEVICE"], torch.device)
    assert neurons.LIF(10.0)(torch.zeros(SHAPE).to(names["DEVICE"]))[0].device.type == names["DEVICE"].type


# -- classes of the user's own


class Adaptive(neurons.Neuron):
    """A leaky neuron of the user's own, whose threshold of the next step rises with each spike."""

    def __init__(self, threshold: float, gain: float = 0.5, **more: Any):
        super().__init__(0.001, threshold=threshold, refractory_timesteps=2, **more)
        self.gain = gain
        self.tau_rc = 0.02
        self.trace: torch.Tensor | None = None

    def _f_ode(self, x: Any, I: Any = 0) -> Any:
        return (self.resting_potential - x) / self.tau_rc + I

    def __call__(self, potentials: torch.Tensor, **flags: Any) -> Any:
        if self.previous_state is None:
            self.previous_state = torch.full_like(potentials, self.resting_potential)
            self.trace = torch.zeros_like(potentials)
        state = self.previous_state + self.ts * self._f_ode(self.previous_state, potentials)
        results = self.finalize_state_update(state, **flags)
        self.trace += results[0] > 0
        self.per_neuron_thresh = self.threshold_of(self.trace)
        return results

    def threshold_of(self, trace: torch.Tensor) -> torch.Tensor:
        return 1.0 + self.gain * trace

    def reset(self) -> None:
        self.previous_state = None
        self.refractory_periods = None
        self.trace = None


@pytest.mark.exhaustive(but=lambda on: on == "torch")
@pytest.mark.parametrize("on", ["cpu", "torch"])
@pytest.mark.parametrize("mode", ["feature", "location", "none"])
def test_a_subclass_of_neuron_with_a_membrane_of_its_own(mode: str, on: str) -> None:
    neuron = Adaptive(1.0, inhibition_mode=mode, backend=on, exact_order=True)
    generator = torch.Generator().manual_seed(2)
    for shape in (SHAPE, (1, 2, 5, 3)):
        u, held, trace = torch.zeros(shape), torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        won = 0
        for _ in range(30):
            x = torch.rand(shape, generator=generator) * 300
            spikes, thresholded, state, dudt, winners = neuron(
                x, return_thresholded_potentials=True, return_dudt=True, n_winners=2
            )
            new = torch.where(held > 0, 0.0, u + 0.001 * (-u / 0.02 + x))
            spiked = (held == 0) & (new >= 1.0 + 0.5 * trace)
            assert torch.equal(spikes > 0, spiked)
            assert torch.equal(thresholded, new * spiked) and torch.equal(dudt, new - u)
            u = torch.where(spiked, 0.0, new)
            assert torch.equal(state, u)
            best = sorted((tuple(at) for at in spiked[0].nonzero().tolist()), key=lambda at: -new[0][at])
            expected: list[tuple[int, ...]] = []
            for at in best:
                if len(expected) < 2 and at[0] not in [f for f, _, _ in expected]:
                    expected.append(at)
            assert winners == expected
            held = (held - 1).clamp(min=0)
            for f, r, c in winners:
                if mode == "feature":
                    held[0, f] = 2
                elif mode == "location":
                    held[0, :, r, c] = 2
                else:
                    held[0, f, r, c] = 2
            assert torch.equal((neuron.refractory_periods / 0.001).round().long(), held)
            trace += spiked
            won += len(winners)
        assert won > 5
        neuron.reset()
        neuron.per_neuron_thresh = None
        assert neuron.previous_state is None and neuron.refractory_periods is None
    assert {"gain", "tau_rc"} <= set(neuron.get_params()) and str(neuron) == "Spiking_Neuron_Base_Class"


def test_what_is_not_finite() -> None:
    x = torch.full(SHAPE, 1.0)
    x[0, 0, 0, 0] = float("inf")
    neuron = plain("LIF_Simple")
    with pytest.raises(ValueError, match="the input is inf at b = 0, f = 0, r = 0, c = 0"):
        neuron(x)
    neuron.reset()
    assert neuron(torch.ones(SHAPE))[1].unique().tolist() == [1.0]
    assert plain("LIF_Simple", nan="ignore")(x)[-1] == [(0, 0, 0)]
    with pytest.raises(ValueError, match="nan is 'skip'"):
        plain("LIF_Simple", nan="skip")
    own = Adaptive(1.0, backend="torch")
    assert own(x)[-1] == [(0, 0, 0)] and own.previous_state[0, 0, 0, 0] == 0.0
    assert own(torch.ones(SHAPE), n_winners=0)[-1] == []


def test_a_subclass_is_drawn_by_its_own_equation() -> None:
    figure, ax = Adaptive(1.0).plot_ode(current=3.0)
    u, change = ax.lines[1].get_data()
    np.testing.assert_allclose(change, -np.asarray(u) / 0.02 + 3.0, rtol=1e-5, atol=1e-5)
    assert Adaptive(1.0).plot_ode(figure, ax)[1] is ax
    with pytest.raises(NotImplementedError, match="_f_ode"):
        neurons.Neuron(threshold=1.0).plot_ode()


def test_a_subclass_of_a_model_keeps_its_calls() -> None:
    class Noted(neurons.LIF_Simple):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.note = "mine"

        def __call__(self, potentials: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(potentials * 2, *args, **kwargs)

    noted, single = Noted(10.0, 0.03, backend="torch"), neurons.LIF_Simple(10.0, 0.03, backend="torch")
    x = torch.full(SHAPE, 2.0)
    for _ in range(8):
        assert torch.equal(noted(x)[1], single(x * 2)[1])
    assert str(noted) == "LIF_Simple_RT2_tau0.03" and noted.get_params()["note"] == "mine"

    class Own(neurons.LIF_Simple):
        def __call__(self, potentials: torch.Tensor, **flags: Any) -> Any:
            return self.finalize_state_update(potentials + 1.0, **flags)

    own = Own(10.0, backend="torch")
    assert own(x)[1].unique().tolist() == [3.0] and own(x * 10)[0].all()


def test_what_a_subclass_overrides_in_vain_is_refused() -> None:
    for hook in ("_f_ode", "finalize_state_update", "get_thresholded_potentials"):
        with pytest.raises(TypeError, match=f"Mine has a {hook} of its own"):
            type("Mine", (neurons.LIF,), {hook: lambda self, *given: None})

    class Other(neurons.Neuron):
        def get_thresholded_potentials(self, current_state: Any = None) -> Any:
            return current_state

    with pytest.raises(TypeError, match="does not call"):
        Other(threshold=1.0).finalize_state_update(torch.zeros(SHAPE))

    class Early(neurons.LIF):
        def __init__(self) -> None:
            self.tau_rc = 0.03

    with pytest.raises(AttributeError, match=r"Early is not made yet: call super\(\).__init__"):
        Early()
    with pytest.raises(TypeError, match="Neuron needs a threshold"):
        neurons.Neuron().finalize_state_update(torch.zeros(SHAPE))


# -- networks


def test_a_network_written_by_position_is_the_one_written_by_name() -> None:
    """Two layers with weights that require gradients, and a mode set later, as networks for SpykeTorch have them."""
    generator = torch.Generator().manual_seed(0)
    convolutions = [torch.nn.Conv2d(2, 8, 5, bias=False), torch.nn.Conv2d(8, 12, 3, bias=False)]
    for convolution in convolutions:
        convolution.weight.data.normal_(0.8, 0.05, generator=generator)
    wave = (torch.rand(15, 2, 20, 20, generator=generator) < 0.12).float()

    def forward(first: Any, second: Any) -> tuple[list[Any], torch.Tensor]:
        first.reset()
        second.reset()
        won, state = [], torch.empty(0)
        for t in range(15):
            spikes, _, one = first(
                convolutions[0](functional.pad(wave[t : t + 1], (2, 2, 2, 2))), n_winners=5
            )
            pooled = functional.pooling(spikes * first.ts, 2, 2)
            _, state, _, other = second(convolutions[1](pooled), return_dudt=True, n_winners=3)
            won += [one, other]
        return won, state

    layers = neurons.LIF(10.0, 0.02, 0.001, 0.0, 15, 0.001), neurons.LIF_Simple(6.0, 0.02, 0.001, 0.0, 15)
    layers[0].inhibition_mode = "location"
    named = (
        neurons.LIF(threshold=10.0, refractory_timesteps=15, C=0.001, inhibition_mode="location"),
        neurons.LIF_Simple(threshold=6.0, refractory_timesteps=15),
    )
    won, state = forward(*layers)
    assert sum(map(len, won[0::2])) > 4 and sum(map(len, won[1::2])) > 1 and not state.requires_grad
    with torch.no_grad():
        again = forward(*named)
    assert again[0] == won and torch.equal(again[1], state)


def test_the_models_upswing_is_the_originals_without_bounds() -> None:
    """EIF and AdEx as the original has them, far beyond the threshold, in plain numpy."""
    for name in ("EIF", "AdEx", "UniformEIF"):
        more = {"tau_range": (0.02, 0.02)} if name == "UniformEIF" else {}
        neuron = getattr(neurons, name)(
            10.0, **more, delta_t=2.0, theta_rh=-10.0, backend="torch", dtype="float64"
        )
        thresholded = neuron(torch.full(SHAPE, 20.0 * 0.281 / 0.001, dtype=torch.float64), True)[1]
        u = 0.05 * 2.0 * np.exp(5.0) + 20.0
        assert thresholded.unique().tolist() == pytest.approx([u])
        if name == "AdEx":
            assert neuron.w.unique().tolist() == pytest.approx([0.6 * u * 0.001 + 0.7])
            neuron.previous_state = torch.full(SHAPE, 60.0, dtype=torch.float64)
            neuron.refractory_periods = None
            neuron(torch.zeros(SHAPE))
            assert neuron.w.max() > 0.6 * 0.001 * 0.1 * np.exp(35.0)
