"""Which cases run by default and with --exhaustive, on one process and on several, and that they hold everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from cases import INHIBITIONS, is_typical
from sampling import covering

from spyke_numba import backends, models

TESTS = Path(__file__).parent
PROBE = """
import pytest

@pytest.mark.exhaustive
def test_later():
    pass

@pytest.mark.exhaustive(but=lambda b: b == "y")
@pytest.mark.parametrize("b", "xyz")
@pytest.mark.parametrize("a", [1, 2])
def test_all_but(a, b):
    assert a and b

@pytest.mark.sampled("a c")
@pytest.mark.parametrize("c", [[5], [6]])
@pytest.mark.parametrize("b", "xyz")
@pytest.mark.parametrize("a", [1, 2])
def test_sampled(a, b, c):
    assert a and b and c

@pytest.mark.gpu
def test_on_a_gpu(gpu):
    pass

def test_plain():
    pass
"""


def test_a_few_cases_hold_every_value() -> None:
    cases = [{"a": a, "b": b, "c": c} for a, b, c in product((0, 1), "xyz", (True, False))]
    chosen = [cases[i] for i in covering(cases)]
    assert len(chosen) == 3
    assert all({case[name] for case in chosen} == {case[name] for case in cases} for name in "abc")


def test_what_stands_together_is_held_in_every_combination() -> None:
    cases = [{"a": a, "b": b, "c": c} for a, b, c in product((0, 1), "xyz", (True, False))]
    # combinations that do not occur are not asked for
    cases = [case for case in cases if (case["a"], case["b"]) != (1, "z")]
    chosen = [cases[i] for i in covering(cases, ["a b"])]
    assert len(chosen) == 5 == len({(case["a"], case["b"]) for case in chosen})
    assert {case["c"] for case in chosen} == {True, False}
    assert covering([]) == []


def test_the_typical_programs_hold_every_model_and_every_scope() -> None:
    every = product(models.names(), ("float32", "float64"), INHIBITIONS, (False, True))
    typical = [case for case in every if is_typical(*case)]
    assert {name for name, _, scope, _ in typical if scope == "none"} == set(models.names())
    assert {(dtype, scope) for _, dtype, scope, _ in typical} == set(
        product(("float32", "float64"), INHIBITIONS)
    )


@pytest.mark.parametrize(
    ("options", "passed", "later"),
    [(["-n", "2"], 1 + 2 + 4, 1 + 4 + 8), (["-n", "0", "--exhaustive"], 1 + 1 + 6 + 12, None)],
    ids=["sample", "exhaustive"],
)
def test_what_runs_and_what_is_said(
    options: list[str], passed: int, later: int | None, tmp_path: Path
) -> None:
    (tmp_path / "test_probe.py").write_text(PROBE)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        tmp_path,
        "-p",
        "conftest",
    ]
    done = subprocess.run(
        [*command, *options, tmp_path], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    has_gpu = backends.get("cuda").unavailable() is None
    assert re.search(rf"^{passed + has_gpu} passed", done.stdout, re.MULTILINE), done.stdout
    said = re.findall(r"^left out: (\d+) cases that (only a GPU|--exhaustive)", done.stdout, re.MULTILINE)
    expected = [] if has_gpu else [("1", "only a GPU")]
    assert said == expected + ([] if later is None else [(str(later), "--exhaustive")])
