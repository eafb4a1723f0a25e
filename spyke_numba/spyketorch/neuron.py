"""What the drop-in neurons share: attributes that act on a compiled layer, and the classes that users subclass.

`spyke_numba.neurons` has the neurons themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from spyke_numba.layer import Layer
from spyke_numba.layer.recording import Recording
from spyke_numba.model.distributions import Distribution, Uniform
from spyke_numba.model.resolve import call_by_name
from spyke_numba.spyketorch import specs as spyketorch_specs
from spyke_numba.spyketorch.runner import Runner, Traits, seconds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What get_params lists for every class.
_BASE_PARAMS = (
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
)


class Parameter:
    """A parameter as an attribute: what is set holds from the next step on."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, neuron: Neuron | None, owner: type | None = None) -> Any:
        return self if neuron is None else neuron._runner.value(self._name)

    def __set__(self, neuron: Neuron, value: Any) -> None:
        with neuron._runner.changing() as given:
            given[self._name] = value


class TauRange(Parameter):
    """The range from which a time constant for each feature map is drawn, kept as given."""

    def __set__(self, neuron: Neuron, value: Any) -> None:
        drawn = drawn_from(type(neuron).__name__, value)
        with neuron._runner.changing() as given:
            given |= {"tau_range": value, "tau_rc": drawn}


def drawn_from(owner: str, tau_range: Any) -> Uniform:
    if tau_range is None:
        raise TypeError(f"{owner} needs a tau_range: give two numbers of seconds, such as (0.01, 0.03)")
    try:
        low, high = map(float, tau_range)
    except (TypeError, ValueError):
        raise ValueError(
            f"tau_range is {tau_range!r}: give two numbers of seconds, such as (0.01, 0.03)"
        ) from None
    return Uniform(low, high, per="feature")


class Follows:
    """An attribute that follows from parameters, named by the arguments of its rule; None until they are drawn."""

    def __init__(self, rule: Callable[..., Any]):
        self._rule = rule

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, neuron: Neuron | None, owner: type | None = None) -> Any:
        if neuron is None:
            return self
        values = {name: getattr(neuron, name) for name in _arguments(self._rule)}
        drawn = not any(isinstance(value, Distribution) for value in values.values())
        return call_by_name(self._rule, values) if drawn else None

    def __set__(self, neuron: Neuron, value: Any) -> None:
        sources = " and ".join(_arguments(self._rule))
        raise AttributeError(f"{self._name} follows from {sources}: set these instead")


def _arguments(rule: Callable[..., Any]) -> tuple[str, ...]:
    return rule.__code__.co_varnames[: rule.__code__.co_argcount]


class StateTensor:
    """A part of the state as an attribute: a tensor; what is assigned or written into it acts on the next step."""

    def __init__(self, name: str, doc: str):
        self._part, self.__doc__ = name, doc

    def __get__(self, neuron: Neuron | None, owner: type | None = None) -> Any:
        return self if neuron is None else neuron._runner.see(self._part)

    def __set__(self, neuron: Neuron, value: Any) -> None:
        neuron._runner.assign(self._part, value)


class TimeSinceSpike(StateTensor):
    """Seconds since each neuron's last spike, or since the first call, by which it is made; stays after a reset."""

    def __init__(self) -> None:
        super().__init__("time_since_spike", type(self).__doc__ or "")

    def __get__(self, neuron: Neuron | None, owner: type | None = None) -> Any:
        since = super().__get__(neuron, owner)
        if since is None:
            raise AttributeError(f"{type(neuron).__name__!r} has no time_since_spike before its first call")
        return since


class Neuron:
    """What all neurons share; subclass it for a membrane of your own, or use one of its subclasses.

    A subclass has its own ``__call__``, which computes the new potential from `previous_state` and its input and
    returns what `finalize_state_update` makes of it; its own ``reset``, if it keeps more than that; and ``_f_ode(x,
    I=0)``, if `plot_ode` is to draw it.

    Parameters
    ----------
    ts : float
        Time step (s).
    resting_potential : float
    v_reset : float, optional
        The resting potential unless given.
    threshold : float
    refractory_timesteps : int
        Whole steps for which a winner holds its inhibited set at rest.
    inhibition_mode : str
        ``"feature"``: a winner inhibits its feature map; ``"location"``: its location in all maps; anything else: no
        neuron but itself.  AdEx and Izhikevich inhibit the whole layer, whatever it says.  May be set between calls.

    Every class takes by keyword, too:

    per_neuron_thresh, per_neuron_threshold : tensor (1, F, H, W), optional
        A threshold for each neuron, instead of `threshold`.
    refractoriness : float, optional
        Seconds, instead of `refractory_timesteps`.
    inhibition_scope : {"feature", "location", "global"}, optional
        What a winner inhibits (``"global"``: the whole layer), instead of `inhibition_mode`.
    inhibition_radius : int
        Rows and columns around a winner that cannot win in the same step.
    exact_order : bool
        Whether winners are ordered by their potentials as they are, instead of SpykeTorch's rounding of them.
    backend : {"auto", "cpu", "cuda", "torch", "torch_compiled"}
    dtype : {"float32", "float64"} or torch.dtype, optional
        The first input's unless given; float32 for 16-bit input.
    seed : int
        Seed of what is drawn.
    nan : {"raise", "ignore"}, optional
        What to do about NaN and infinity in the input; ``"raise"`` unless given, but ``"ignore"`` for the potentials
        that `finalize_state_update` gets.

    Raises
    ------
    TypeError, ValueError
        One sentence, for a name or a value that is not allowed.

    Notes
    -----
    `previous_state`, `refractory_periods`, `per_neuron_thresh`, `w` and the state that a call returns may be assigned
    and written into, which acts from the next step on.  What is written past torch's count of writes, through
    ``.data`` or a numpy view, is not seen.
    """

    _traits: ClassVar[Traits] = Traits(spyketorch_specs.GIVEN, needs_threshold=False)
    #: What get_params lists beside what every class has.
    _listed: ClassVar[tuple[str, ...]] = ()

    ts = Parameter()
    resting_potential = Parameter()
    v_reset = Parameter()
    previous_state = StateTensor(
        "u", "Potential after the last step's reset, (B, F, H, W); None before the first call."
    )
    refractory_periods = StateTensor(
        "refractory", "Seconds for which each neuron is still held; None before the first call."
    )

    def __init__(
        self,
        ts: float = 0.01,
        resting_potential: float = 0.0,
        v_reset: float | None = None,
        threshold: Any = None,
        refractory_timesteps: int = 0,
        inhibition_mode: Any = "feature",
        **others: Any,
    ):
        self._make(locals())

    def _make(self, arguments: dict[str, Any]) -> None:
        """Take a constructor's arguments, those given by keyword alone under ``"others"``."""
        given = {
            "v_reset": None,
            "refractoriness": None,
            "per_neuron_thresh": None,
            "per_neuron_threshold": None,
            **self._traits.ignored,
            **arguments,
            **arguments["others"],
        }
        del given["self"], given["others"]
        settings = {
            name: given.pop(name, default)
            for name, default in (
                ("inhibition_mode", "feature"),
                ("inhibition_scope", None),
                ("inhibition_radius", 0),
                ("exact_order", False),
                ("backend", "auto"),
                ("dtype", None),
                ("seed", 0),
                ("nan", None),
            )
        }
        name, mode = type(self).__name__, settings["inhibition_mode"]
        if self._traits.whole_layer and mode != "feature":
            raise ValueError(
                f"inhibition_mode is {mode!r}, but {name} inhibits the whole layer whatever it is: "
                "leave it out, or give inhibition_scope="
            )
        levels = given.pop("per_neuron_threshold")
        if given["per_neuron_thresh"] is None:
            given["per_neuron_thresh"] = levels
        self._runner = Runner(name, self._traits, given, **settings)

    # -- attributes

    def __getattr__(self, name: str) -> Any:
        if name == "_runner":
            raise AttributeError(f"{type(self).__name__} is not made yet: call super().__init__(...) first")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def threshold(self) -> Any:
        """The threshold; may be set, for all neurons, and holds from the next step on."""
        return self._runner.given["threshold"]

    @threshold.setter
    def threshold(self, threshold: Any) -> None:
        self._runner.set_threshold(threshold)

    @property
    def per_neuron_thresh(self) -> Any:
        """The threshold of each neuron: None if there was none before the first call, a filled tensor after it.

        May be set and written into, and holds from the next step on.
        """
        return self._runner.per_neuron_thresh()

    @per_neuron_thresh.setter
    def per_neuron_thresh(self, per_neuron_thresh: Any) -> None:
        with self._runner.changing() as given:
            given["per_neuron_thresh"] = per_neuron_thresh

    per_neuron_threshold = _per_neuron_thresh = per_neuron_thresh
    _threshold = threshold

    @property
    def refractoriness(self) -> Any:
        """Seconds for which a winner holds its inhibited set, rounded up to whole steps; may be set."""
        return self._runner.given["refractoriness"]

    @refractoriness.setter
    def refractoriness(self, refractoriness: Any) -> None:
        with self._runner.changing() as given:
            given["refractoriness"] = seconds_of(refractoriness)

    @property
    def refractory_timesteps(self) -> Any:
        """Whole steps for which a winner holds its inhibited set; may be set."""
        return self._runner.refractory_steps

    @refractory_timesteps.setter
    def refractory_timesteps(self, refractory_timesteps: Any) -> None:
        with self._runner.changing() as given:
            given["refractoriness"] = self._runner.hold_for(refractory_timesteps)

    refractory_timestes = refractory_timesteps

    @property
    def inhibition_mode(self) -> Any:
        """What a winner inhibits; may be set, and holds from the next step on."""
        return self._runner.mode

    @inhibition_mode.setter
    def inhibition_mode(self, mode: Any) -> None:
        self._runner.mode = mode
        self._runner.compete()

    def get_params(self) -> dict[str, Any]:
        """Return every attribute that is no tensor."""
        own = {name: value for name, value in vars(self).items() if name != "_runner"}
        attributes = {name: getattr(self, name) for name in (*_BASE_PARAMS, *self._listed)} | own
        return {name: value for name, value in attributes.items() if not isinstance(value, torch.Tensor)}

    def get_thresholded_potentials(self, current_state: torch.Tensor | None = None) -> torch.Tensor | None:
        """Return potentials that reach the threshold, 0 elsewhere: those given, or else the last step's, if any."""
        if current_state is None:
            return self._runner.last_thresholded()
        return self._runner.thresholded(current_state)

    def __str__(self) -> str:
        return "Spiking_Neuron_Base_Class"

    # -- running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Advance by one step; a subclass says how."""
        raise NotImplementedError(
            f"{type(self).__name__} has no __call__: subclass Neuron with one that returns "
            "self.finalize_state_update(new_potential), or use LIF, AdEx or another of its subclasses"
        )

    def reset(self) -> None:
        """Drop the state; the next call makes a new one from its input's shape."""
        self._runner.reset()

    def finalize_state_update(
        self,
        current_state: torch.Tensor,
        return_thresholded_potentials: bool = False,
        return_dudt: bool = False,
        return_winners: bool = True,
        n_winners: int = 1,
        return_winning_spikes: bool = False,
    ) -> tuple[Any, ...]:
        """Do the rest of a step whose new potential, (B, F, H, W), is known.

        Held neurons are put at rest; of the others spike those at or above the threshold; winners are found; those that
        spiked are reset, refractory periods counted, and the state is kept.  Arguments and results are those of a call
        of a neuron such as `LIF`.
        """
        if type(self).get_thresholded_potentials is not Neuron.get_thresholded_potentials:
            raise TypeError(
                f"{type(self).__name__} has a get_thresholded_potentials of its own, which finalize_state_update does "
                "not call: set per_neuron_thresh instead"
            )
        return self._runner.call(
            spyketorch_specs.GIVEN,
            current_state,
            return_thresholded_potentials,
            return_dudt,
            return_winners,
            n_winners,
            return_winning_spikes,
        )

    def _f_ode(self, x: Any, I: Any = 0) -> Any:
        """Return du/dt at potentials and an input, for `plot_ode`; a subclass says what it is."""
        raise NotImplementedError(f"{type(self).__name__} has no _f_ode(x, I=0): give it one to draw it")

    def plot_ode(
        self, figure: Figure | None = None, ax: Axes | None = None, current: float = 0.0
    ) -> tuple[Figure, Axes]:
        """Draw du/dt against u, without and with a constant current; for models of one variable.

        Parameters
        ----------
        figure, ax : optional
            Where to draw; a new figure unless given.
        current : float
            Constant input.
        """
        from spyke_numba.figures.dynamics import new_axes

        rest, threshold = self.resting_potential, self.threshold
        span = abs(threshold - rest) if isinstance(threshold, (int, float)) else 1.0
        u = torch.linspace(rest - 0.3 * span, rest + 1.1 * span, 501)
        figure, ax = new_axes(figure, ax)
        for value in dict.fromkeys((0.0, float(current))):
            ax.plot(u, torch.as_tensor(self._f_ode(u, value)), label=f"I = {value:.4g}")
        ax.axhline(0.0, color="0.7", linewidth=0.8)
        ax.set_xlabel("u")
        ax.set_ylabel("du/dt")
        ax.set_title(type(self).__name__)
        ax.legend()
        return figure, ax


class CompiledNeuron(Neuron):
    """A neuron whose membrane is a compiled specification."""

    tau_rc = Parameter()
    C = Parameter()

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if cls.__call__ is CompiledNeuron.__call__:
            for hook in ("finalize_state_update", "get_thresholded_potentials", "_f_ode"):
                if getattr(cls, hook) is not getattr(CompiledNeuron, hook):
                    raise TypeError(
                        f"{cls.__name__} has a {hook} of its own, which compiled neurons do not call: "
                        "give it a __call__ that does, or subclass Neuron"
                    )

    @property
    def layer(self) -> Layer | None:
        """The compiled layer; None before the first call."""
        return self._runner.layer

    def __call__(
        self,
        potentials: torch.Tensor,
        return_thresholded_potentials: bool = False,
        return_dudt: bool = False,
        return_winners: bool = True,
        n_winners: int = 1,
        return_winning_spikes: bool = False,
    ) -> tuple[Any, ...]:
        """Advance by one step.

        Parameters
        ----------
        potentials : tensor (B, F, H, W)
            Input of the step; each sample has its own winners.  If it requires a gradient, the results do not.
        return_thresholded_potentials, return_dudt, return_winners, return_winning_spikes : bool
            What to return beside spikes and state.
        n_winners : int
            k of the winners-take-all; with 0 nobody wins, nor is held.

        Returns
        -------
        tuple
            ``(spikes, [thresholded,] state, [dudt,] [winners,] [winning_spikes])``; winners as a list of
            (feature, row, column), or for B > 1 a list of such lists.  For 16-bit input the tensors are copies of the
            input's dtype.
        """
        return self._runner.call(
            self._traits.spec,
            potentials,
            return_thresholded_potentials,
            return_dudt,
            return_winners,
            n_winners,
            return_winning_spikes,
        )

    def run(
        self, potentials: torch.Tensor, n_winners: int = 1, record: Sequence[str] = ("spikes", "winners")
    ) -> Recording:
        """Advance by T steps in one compiled call; ``potentials`` (T, B, F, H, W), results as of `Layer.run`."""
        return self._runner.run(potentials, n_winners, record)

    def plot_ode(
        self, figure: Figure | None = None, ax: Axes | None = None, current: float = 0.0
    ) -> tuple[Figure, Axes]:
        """Draw du/dt against u, without and with a constant current; for models of one variable.

        Parameters
        ----------
        figure, ax : optional
            Where to draw; a new figure unless given.
        current : float
            Constant input.
        """
        from spyke_numba.figures.dynamics import plot_ode

        return plot_ode(self._runner.neuron(self._traits.spec), figure, ax, current)

    def __str__(self) -> str:
        name = self._traits.spec.name
        if self._traits.unit_spikes:
            return f"{name}_RT{self.refractory_timesteps}_tau{self.tau_rc}"
        return f"{name}_Neuron_rt{self.refractory_timesteps}_C{self.C}"
