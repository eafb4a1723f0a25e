"""k-winners-take-all inhibition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spyke_numba.model.checks import whole_number

Scope = Literal["feature", "location", "global"]

#: The scopes, in the order of their codes in generated kernels.
SCOPES: tuple[str, ...] = get_args(Scope)


@dataclass(frozen=True)
class KWTA:
    """k-winners-take-all: up to `k` neurons per sample and step win, and each holds its inhibited set at rest.

    Of the neurons that spike, the one with the largest potential wins first (ties: the lowest flat index); its feature
    map, and with a radius every neuron of all maps within that many rows and columns, is then out of this step's
    competition.  The set that a winner inhibits for its refractory period is its feature map (``"feature"``), its
    location in all maps (``"location"``) or the sample's whole layer (``"global"``).  Losers are reset, too, but
    inhibit nothing.

    Parameters
    ----------
    k : int
        Winners per sample and step, at least 1.
    scope : {"feature", "location", "global"}
    radius : int
        Rows and columns around a winner that cannot win in the same step, at least 0.
    exact_order : bool
        Whether potentials are compared as they are.  If not, they are compared as SpykeTorch does, whose rounding lets
        neighbouring potentials tie: with the spike amplitude ``s``, the potential ``u`` of each neuron that spiked and
        the largest of them ``m``, all in the layer's dtype, by ``fma(s, s * m, s * u)``, every operation rounded once
        and what lies below the smallest finite number counted as that.  The amplitude must then be one number above 0
        for the whole layer; the backends cpu, torch and torch_compiled know this order.

    Examples
    --------
    >>> KWTA(k=5, radius=2)
    KWTA(k=5, scope='feature', radius=2)
    >>> KWTA(k=5, exact_order=False)
    KWTA(k=5, scope='feature', radius=0, exact_order=False)
    """

    k: int = 1
    scope: Scope = "feature"
    radius: int = 0
    exact_order: bool = True

    def most(self, F: int, H: int, W: int) -> int:
        """Return how many neurons of F maps of H rows and W columns can win in a step: not always k.

        Two winners are in two maps, and with a radius further apart than it in rows or in columns: of each square of
        ``radius + 1`` rows and columns one can win.
        """
        apart = -(-H // (self.radius + 1)) * -(-W // (self.radius + 1)) if self.radius else F
        return min(self.k, F, apart)

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("radius", 0)):
            whole = whole_number(f"{name} of KWTA", getattr(self, name), least)
            if whole >= 2**31:
                raise ValueError(f"{name} of KWTA is {whole}: it must be below 2**31")
            object.__setattr__(self, name, whole)
        if self.scope not in SCOPES:
            raise ValueError(f"scope of KWTA is {self.scope!r}: allowed are {', '.join(map(repr, SCOPES))}")
        if not isinstance(self.exact_order, (bool, np.bool_)):
            raise TypeError(f"exact_order of KWTA is {self.exact_order!r}: give True or False")
        object.__setattr__(self, "exact_order", bool(self.exact_order))

    def __repr__(self) -> str:
        order = "" if self.exact_order else ", exact_order=False"
        return f"KWTA(k={self.k}, scope={self.scope!r}, radius={self.radius}{order})"
