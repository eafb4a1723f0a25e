"""The smallest point of every benchmark runs, and its results, bars and figures say what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from spyke_numba import KWTA, Layer, models
from spyke_numba.benchmarks import against_peers, bars, cases, dropin, floor, gpu, peers, plots, running
from spyke_numba.benchmarks.cases import DRIVEN, Case, busy_threshold, measure, uniform
from spyke_numba.benchmarks.measuring import interleaved, processors
from spyke_numba.cli.benching import BENCHMARKS
from spyke_numba.cli.main import main
from spyke_numba.compile.program import Program
from spyke_numba.compile.step import operations_of

MEASURED = [name for name in BENCHMARKS if name not in ("report", "peers")]


def bench(*arguments: Any) -> str:
    done = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def results(tmp_path_factory, request) -> dict[str, dict[str, Any]]:
    """Results of the smallest point of every benchmark, by name; of the peers, those without a compiler's help."""
    folder = tmp_path_factory.mktemp("results")
    compared = list(dropin.MODELS) if request.config.getoption("--exhaustive") else ["AdEx"]
    for name in MEASURED:
        # without a GPU, the cpu backend shows that the benchmark itself works
        options = ["--backend", "cpu"] if name == "gpu" else []
        bench(name, "--smallest", *options, "--out", folder / f"{name}.json")
    bench("peers", "--smallest", "--peers", "plain_numpy", "--out", folder / "peers.json")
    for name, backend in (("dropin", "cpu"), ("dropin_torch", "torch")):
        options = [
            "--smallest",
            "--seconds",
            "0.1",
            "--backends",
            backend,
            "--json",
            str(folder / f"{name}.json"),
        ]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(dropin, "MODELS", compared)
            done = CliRunner().invoke(dropin.main, options)
        assert done.exit_code == 0, done.output
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ every benchmark


@pytest.mark.parametrize("name", [*MEASURED, "peers", "dropin", "dropin_torch"])
def test_results_say_where_and_with_what(name, results):
    about = results[name]["machine"]
    assert results[name]["benchmark"] == name
    assert about["processor"] and about["cores"] >= 1 and about["date"] and about["commit"]
    assert about["versions"]["numba"][0].isdigit()
    assert results[name]["rows"]


@pytest.mark.parametrize("name", ["scaling", "kwta", "peers", "gpu"])
def test_two_to_five_percent_of_all_neuron_steps_spike(name, results):
    assert all(0.02 <= row["spiking"] <= 0.05 for row in results[name]["rows"])


def test_times_are_held_against_the_floor_of_the_same_run(results):
    for row in results["scaling"]["rows"] + results["kwta"]["rows"]:
        assert row["repeats"] >= 3
        assert row["ns"] > 0 and row["floor_ns"] > 0
        assert row["over_floor"] == pytest.approx(row["ns"] / row["floor_ns"])


def test_winners_are_held_against_the_run_without_them(results):
    free, competing = results["kwta"]["rows"]
    assert free["k"] == 0 and competing["k"] == 5 and competing["radius"] == 2
    assert competing["over_free"] == pytest.approx(competing["ns"] / free["ns"])
    times = competing["handover_ns"]
    assert len(times) == (2 if processors() > 1 else 0) and all(1 < time < 1e6 for time in times)


def test_start(results):
    steps = [row for row in results["startup"]["rows"] if row["kind"] == "step"]
    (process,) = (row for row in results["startup"]["rows"] if row["kind"] == "process")
    assert {row["scope"] for row in steps} == {None, "feature"} and all(row["step_us"] > 0 for row in steps)
    # a process that finds the code is quicker than the one that compiled it
    assert 0 < process["first_run_s"] < process["compile_s"]
    assert process["warm_beyond_numba_s"] == pytest.approx(process["import_s"] + process["first_run_s"])


def test_a_gpu_is_held_against_its_copy_and_the_cpus_spikes(results):
    free, competing = results["gpu"]["rows"][:3], results["gpu"]["rows"][3:]
    assert [row["model"] for row in free] == list(bars.GPU_MODELS) and {row["k"] for row in free} == {0}
    assert [(row["k"], row["scope"], row["radius"]) for row in competing[1:3]] == [
        (5, "feature", 0),
        (5, "feature", 2),
    ]
    assert {row["same_spikes"] for row in free + competing} == {1.0}
    for row in competing[1:]:
        assert row["over_free"] == pytest.approx(row["ns"] / competing[0]["ns"])


def test_other_spikes_than_the_cpus_are_counted(monkeypatch):
    x = uniform((20, 1, 100))
    case = Case("LIF", (100,), steps=20, threshold=9.0)
    other = replace(case, threshold=11.0)
    monkeypatch.setattr(gpu, "replace", lambda case, **changes: other)
    (row,) = gpu.measured(x, [case], 0.0)
    expected = np.mean(case.layer().run(x).spikes == other.layer().run(x).spikes)
    assert row["same_spikes"] == expected < 1


def test_memory(results):
    run, stream = results["memory"]["rows"]
    assert run["input_mib"] == pytest.approx(20 * 100_000 * 4 / 2**20)
    assert run["outputs_mib"] == pytest.approx(20 * 100_000 / 2**20)
    assert run["peak_mib"] > run["before_mib"] + run["input_mib"]
    assert stream["trace"][-1][0] == stream["shape"][0]


def test_the_report_reads_what_was_written(results, tmp_path):
    for name, read in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(read))
    (tmp_path / "other.json").write_text("{}")
    printed = bench("report", "--results", tmp_path, "--plot", tmp_path / "figures")
    assert "a step above its kernel" in printed and "not measured" in printed
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(plots.FIGURES)


def test_results_are_not_replaced_unasked(tmp_path):
    path = tmp_path / "scaling.json"
    path.write_text("kept")
    done = CliRunner().invoke(main, ["bench", "scaling", "--smallest", "--out", str(path)])
    assert done.exit_code == 2 and "--force" in done.output and path.read_text() == "kept"


def test_outside_a_checkout_results_need_a_file(monkeypatch):
    monkeypatch.setattr(running, "checkout", lambda: None)
    with pytest.raises(ValueError, match=r"--out FILE\.json"):
        running.output("scaling", None, False)


# ------------------------------------------------------------------------------------------------ what is measured


@pytest.mark.parametrize("model", models.names())
def test_every_model_is_driven_to_two_to_five_percent(model):
    assert 0.02 <= Case(model, (5000,)).layer().run(uniform((200, 1, 5000))).spikes.mean() <= 0.05


@pytest.mark.parametrize("scope", ["feature", "location", "global"])
@pytest.mark.parametrize("k", [1, 5, 8])
def test_winners_leave_two_to_five_percent(scope, k):
    x = uniform((200, 1, 30, 28, 28))
    case = busy_threshold(Case("LIF", (30, 28, 28), k=k, scope=scope), x[:50])
    assert 0.02 <= case.layer().run(x).spikes.mean() <= 0.05


def test_copies_read_and_write_everything():
    x = np.random.default_rng(0).random(2 * floor.PIECE + 7, np.float32)
    for threads in {1, processors()}:
        out = np.zeros(x.size, bool)
        assert isinstance(floor.copying(x, out, threads)(), float)
        assert np.array_equal(out, x >= 0.5)


def test_operations_are_those_of_the_equations():
    # u + I gain: 2; held or not: 2; the threshold's comparison, the counter's, both: 3; reset: 1; counter: 3
    count = {name: operations_of(Program.of(models.get(name)(**DRIVEN[name]))) for name in models.names()}
    assert count["IF"] == 11
    assert count["LIF"] == 14
    assert count["AdEx"] > count["EIF"] > 30


def test_equal_inputs_are_measured_in_one_run():
    points = [Case("LIF", (50,), steps=4), Case("IF", (50,), steps=4), Case("LIF", (60,), steps=4)]
    runs = list(measure([*points, points[0]], 0.0))
    assert [[row["model"] for row in rows] for rows in runs] == [["LIF", "IF"], ["LIF"]]


def test_what_does_not_fit_into_memory_is_left_out_visibly(monkeypatch, capsys):
    monkeypatch.setattr(cases, "memory", lambda: 1000.0)
    (rows,) = measure([Case("LIF", (10,), steps=4), Case("LIF", (50,), steps=4)], 0.0)
    assert rows[0]["neurons"] == 10 and "4×1×50 is left out" in capsys.readouterr().out


def test_a_contestant_may_time_itself():
    assert interleaved({"own": lambda: 7.0, "plain": lambda: None}, 0.0)["own"] == 7.0


# ------------------------------------------------------------------------------------------------ bars


def row_at(bar: bars.Bar, value: float) -> dict[str, Any]:
    first = {name: v[0] if isinstance(v, tuple) else v for name, v in bar.where.items()}
    return {**first, bar.column: value}


@pytest.mark.parametrize("bar", bars.BARS, ids=lambda bar: f"{bar.benchmark}, {bar.what}")
def test_a_bar_is_met_or_not_by_the_worst_of_its_rows(bar):
    good, bad = (1.01, 0.99) if bar.at_least else (0.99, 1.01)
    rows = [
        row_at(bar, good * bar.limit),
        {bar.column: bad * bar.limit, "peer": "another", "kind": "another"},
    ]
    if bar.where:
        assert bar.met(bar.measured(rows))
    assert bar.met(bar.measured(rows[:1]))
    assert not bar.met(bar.measured([*rows, row_at(bar, bad * bar.limit)]))
    assert not bar.met(bar.measured([]))


def test_a_bar_that_is_not_met_is_shown(capsys):
    rows = [{"kind": "run", "beyond_mib": 65.0}, {"kind": "stream", "growth_mib": 1.0}]
    bars.print_table({"memory": {"rows": rows}})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["met", "NO", "yes"]


def test_every_bar_names_columns_that_rows_have(results):
    for bar in bars.BARS:
        assert any(bar.column in row for row in results[bar.benchmark]["rows"]), bar
        names = {name for row in results[bar.benchmark]["rows"] for name in row}
        assert set(bar.where) <= names, bar


def test_every_peer_has_its_bars():
    assert {peers.get(name).NAME for name in peers.names()} == set(bars.PEER_FACTORS)


# ------------------------------------------------------------------------------------------------ peers


@pytest.fixture(params=[0, 5], ids=["free", "k-WTA"])
def work(request) -> peers.Work:
    if request.param:
        return peers.Work(uniform((40, 2, 6, 8, 8)), 0.95, threshold=25.0, k=request.param, hold=2, threads=1)
    return peers.Work(uniform((40, 1, 500)), 0.95, threshold=60.0, k=0, hold=0, threads=1)


def skip_unless_usable(peer: peers.Peer, work: peers.Work) -> None:
    if not peers.installed(peer):
        pytest.skip(f"{peer.PACKAGE} is not installed")
    if work.k and not peer.KWTA:
        pytest.skip(f"{peer.NAME} has no k-winners-take-all")


@pytest.mark.parametrize("name", peers.names())
def test_a_peer_does_the_same_work(name, work, monkeypatch):
    peer = peers.get(name)
    skip_unless_usable(peer, work)
    if name == "torch_compile":
        monkeypatch.setattr("torch.compile", lambda function: function)  # compiling takes many seconds
    (ours, theirs) = against_peers.compare(work, (name,), 0.0)
    if "compiler" in theirs.get("why_not", ""):
        pytest.skip(theirs["why_not"])
    assert theirs["peer"] == peer.NAME and ours["spikes"] > 500
    assert theirs["spikes_agree"], (theirs["spikes"], ours["spikes"])


@pytest.mark.parametrize("name", ["plain_numpy", "eager_torch", "jax_scan"])
def test_winners_are_ours(name, work):
    peer = peers.get(name)
    skip_unless_usable(peer, work)
    if not work.k:
        pytest.skip("a layer without inhibition has no winners")
    spikes, winners = (np.asarray(part) for part in peer.build(work)[0]())
    inhibition = KWTA(k=work.k)
    neuron = models.LIF_Simple(threshold=work.threshold, refractory_timesteps=work.hold)
    layer = Layer(neuron, work.x.shape[2:], work.x.shape[1], inhibition, backend="cpu")
    expected = layer.run(work.x, record=("spikes", "winners"))
    won = expected.winners[..., 0]
    assert (won >= 0).sum() > 50
    assert np.array_equal(winners[..., 0], won)
    assert np.array_equal(
        winners[..., 1], np.where(won < 0, -1, expected.winners[..., 1] * 8 + expected.winners[..., 2])
    )
    assert np.array_equal(spikes, expected.spikes)


def test_other_spikes_are_told(work, monkeypatch, capsys):
    other = replace(work, threshold=work.threshold * 0.9)
    build = peers.get("plain_numpy").build
    monkeypatch.setattr(peers.get("plain_numpy"), "build", lambda _: build(other))
    row = against_peers.compare(work, ("plain_numpy",), 0.0)[1]
    assert not row["spikes_agree"] and "NOT THE SAME WORK" in against_peers.line(row)


def test_a_missing_or_failing_peer_is_a_line(work, monkeypatch):
    def fail(work):
        raise OSError("no compiler")

    monkeypatch.setattr(peers.get("plain_numpy"), "build", fail)
    monkeypatch.setattr(peers.get("jax_scan"), "PACKAGE", "no_such_package")
    rows = against_peers.compare(work, ("plain_numpy", "jax_scan"), 0.0)
    assert [row["ns"] is None for row in rows] == [False, True, True]
    told = {row["peer"]: against_peers.line(row) for row in rows[1:]}
    assert told["numpy"].endswith("fails: OSError: no compiler")
    assert told["JAX (jitted scan)"].endswith("no_such_package is not installed")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("peers --peers nest", "unknown peers ['nest']"),
        ("scaling --threads 4096", "give at most"),
        ("scaling --backends vulkan", "unknown backend 'vulkan'"),
        ("scaling --models lif,nif", "unknown model 'nif'"),
        ("scaling --sizes 1.5", "not a list such as"),
    ],
)
def test_bad_use_is_told_before_anything_is_measured(command, told, tmp_path):
    done = CliRunner().invoke(main, ["bench", *command.split(), "--out", str(tmp_path / "x.json")])
    assert done.exit_code == 2 and told in done.output and not list(tmp_path.iterdir())
