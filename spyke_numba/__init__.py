"""Spiking-neuron layers: written once as specifications, compiled for CPU, CUDA and torch, the same spikes on each."""

from __future__ import annotations

import sys
from pathlib import Path

# in a checkout the sub-packages backends, cli and benchmarks lie beside this folder, not in it
if not (Path(__file__).parent / "backends").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

from spyke_numba import backends, models
from spyke_numba._moved import MovedModules
from spyke_numba.layer import Layer
from spyke_numba.layer.recording import Recording
from spyke_numba.model.distributions import LogNormal, Normal, Uniform
from spyke_numba.model.kwta import KWTA
from spyke_numba.model.spec import Neuron, NeuronSpec, Param, Requirement, State

sys.meta_path.append(MovedModules())

__version__ = "0.1.0"

__all__ = [
    "KWTA",
    "Layer",
    "LogNormal",
    "Neuron",
    "NeuronSpec",
    "Normal",
    "Param",
    "Recording",
    "Requirement",
    "State",
    "Uniform",
    "backends",
    "models",
]
