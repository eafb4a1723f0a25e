"""The recorded trajectories of `golden/`, for whatever must reproduce them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
#: Relative tolerance of potentials: 1e-9, but for the two models that golden/README.md explains.
TOLERANCES = {"IF": 1e-5, "Izhikevich": 1e-4}


@dataclass(frozen=True)
class Golden:
    """One recording: how the layer was built, what it was given, what it answered."""

    model: str
    params: dict[str, Any]
    n_winners: int
    inhibition_mode: str
    arrays: dict[str, np.ndarray]

    @property
    def tolerance(self) -> float:
        return TOLERANCES.get(self.model, 1e-9)

    @property
    def input(self) -> np.ndarray:
        """(T, 1, F, H, W)."""
        return self.arrays["input"]

    @property
    def threshold_map(self) -> np.ndarray | None:
        """(1, F, H, W) where each neuron has its own threshold."""
        return self.arrays.get("threshold_map")

    def winners(self, step: int) -> list[tuple[int, int, int]]:
        """Return the step's winners in the order they were picked."""
        rows = self.arrays["winners"]
        return [tuple(row) for row in rows[rows[:, 0] == step, 1:].tolist()]


def load(name: str) -> Golden:
    """Return a recording by the name of its file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    return Golden(meta["model"], meta["params"], meta["n_winners"], meta["inhibition_mode"], arrays)
