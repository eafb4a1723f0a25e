"""The command line, as a user meets it."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner
from PIL import Image

import spyke_numba
from spyke_numba import KWTA, Layer, Uniform, backends, models
from spyke_numba.cli import job as job_module
from spyke_numba.cli import simulating
from spyke_numba.cli.main import main
from spyke_numba.inputs import stimuli
from spyke_numba.inputs.encoding import difference_of_gaussians, latency_code, rate_code, resample, spread
from spyke_numba.inputs.files import load_image, load_recording, sample
from spyke_numba.results.runfile import load_run

README = Path(__file__).parent.parent / "README.md"
# a process of its own finds the package that is tested, installed or not, from any folder
SEARCHED = os.pathsep.join(
    filter(None, [str(Path(spyke_numba.__file__).parent.parent), os.environ.get("PYTHONPATH")])
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": SEARCHED}
LIF = ["simulate", "LIF", "--param", "threshold=1", "--backend", "cpu"]
SMALL = [*LIF, "--shape", "20", "--steps", "50", "--stimulus", "poisson:rate=200,weight=100"]

USER_MODEL = """
from spyke_numba import NeuronSpec, Param, State

print("loading")


def membrane(u, I, w, ts):
    return u + ts * (u - u * u * u / 3.0 - w + I)


def adaptation(u, w, ts, eps):
    return w + ts * eps * (u + 0.7 - 0.8 * w)


FitzHughNagumo = NeuronSpec(
    name="FitzHughNagumo",
    membrane=membrane,
    adaptation=adaptation,
    params={"eps": Param(0.08, "", "recovery's speed")},
    states={"w": State(0.0, "recovery")},
)
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(USER_MODEL)


def call(*arguments):
    """Run the command and return its outcome; an error that is no sentence fails the test here."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="spyke-numba")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report(*arguments):
    """Run a command with --json and return its one object."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def refused(*arguments):
    """Return the sentence with which a command is refused."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("spyke-numba: ")
    return result.stderr.strip()


# the main job


def documented():
    """Return the arguments of each simulate command in the README."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^|&& )spyke-numba (simulate .*?)(?=$| &&)", text, flags=re.MULTILINE)
    return [shlex.split(command) for command in commands]


def without(arguments, *options):
    """Return arguments without these options and their values."""
    kept = iter(arguments)
    return [part for part in kept if part not in options or not next(kept)]


@pytest.mark.parametrize("name", ["grace_hopper.jpg", "eeg.dat"])
def test_main_job_has_the_same_spikes_on_cpu_and_torch(name):
    pytest.importorskip("torch")
    (command,) = [c for c in documented() if f"sample:{name}" in c]
    command = without(command, "--plot", "--out", "--backend")
    record = ["--record", "spikes,u" + (",winners" if "--k" in command else "")]
    runs = {}
    for chosen in ("cpu", "torch"):
        out = f"{chosen}.npz"
        said = report(*command, *record, "--backend", chosen, "--out", out, "--plot", f"{chosen}.png")
        assert said["backend"] == chosen
        runs[chosen], description = load_run(out)
        assert runs[chosen]["spikes"].sum() == said["spikes"] > 1000
        assert description["result"]["spikes_sha256"] == said["spikes_sha256"]
        with Image.open(f"{chosen}.png") as image:
            assert image.size[0] > 800
    assert runs["cpu"].keys() == runs["torch"].keys()
    for array in runs["cpu"]:
        assert np.array_equal(runs["cpu"][array], runs["torch"][array]), array


def test_every_documented_command_runs():
    commands = documented()
    assert len(commands) >= 2
    for command in commands:
        assert call(*command, "--force").exit_code == 0


# simulate against the library


def test_array_input_equals_the_library(tmp_path):
    x = np.random.default_rng(0).normal(2, 6, (40, 2, 3, 6, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    options = ["--k", "2", "--scope", "location", "--radius", "1", "--param", "refractory_timesteps=3"]
    options += ["--param", "tau_rc=uniform(0.01,0.03,per=feature)", "--seed", "9", "--weight", "20"]
    options += ["--record", "spikes,u,u_pre,winners,refractory", "--out", "run.npz"]
    said = report(*LIF, "--input", "x.npy", *options)
    neuron = models.LIF(threshold=1.0, refractory_timesteps=3, tau_rc=Uniform(0.01, 0.03, per="feature"))
    layer = Layer(neuron, batch=2, inhibition=KWTA(2, "location", 1), backend="cpu", seed=9)
    expected = layer.run(x * np.float32(20), record=("spikes", "u", "u_pre", "winners", "refractory"))
    arrays, description = load_run("run.npz")
    assert set(arrays) == set(expected.names)
    for name in expected.names:
        assert np.array_equal(arrays[name], expected[name]), name
    assert said["spikes"] == expected.spikes.sum() > 0
    assert said["winners"] == (expected.winners[..., 0] >= 0).sum() > 0
    assert said["rate_hz"] == pytest.approx(expected.spikes.mean() / 0.001)
    assert (said["shape"], said["batch"], said["steps"]) == ([3, 6, 5], 2, 40)
    assert said["inhibition"] == {"k": 2, "scope": "location", "radius": 1, "exact_order": True}
    assert description["parameters"]["tau_rc"] == "varies"
    assert description["parameters"]["threshold"] == 1.0


@pytest.mark.parametrize(
    ("options", "wave"),
    [
        (["--steps", "30"], {}),
        (
            ["--steps", "30", "--wave", "cumulative", "--order", "linear"],
            {"wave": "cumulative", "order": "linear"},
        ),
    ],
)
def test_pictures_are_latency_coded(options, wave):
    report(
        *LIF,
        "--input",
        "sample:grace_hopper.jpg",
        "--longest",
        "40",
        "--weight",
        "300",
        *options,
        "--out",
        "run.npz",
    )
    image = load_image(sample("grace_hopper.jpg"), longest=40)
    code = latency_code(difference_of_gaussians(image, threshold=0.05), 30, dtype="float32", **wave)
    expected = Layer(models.LIF(threshold=1.0), backend="cpu").run(code[:, None] * np.float32(300)).spikes
    assert np.array_equal(load_run("run.npz")[0]["spikes"], expected)
    assert expected.any()


def test_pictures_are_rate_coded():
    picture = ["--input", "sample:grace_hopper.jpg", "--shape", "4,12,10", "--dog", "1,2", "--dog", "0.5,1"]
    options = ["--encode", "rate", "--rate", "400", "--contrast", "0.1", "--weight", "300", "--steps", "500"]
    said = report(
        *LIF, *picture, *options, "--param", "refractory_timesteps=0", "--batch", "2", "--seed", "4"
    )
    assert (said["shape"], said["batch"]) == ([4, 12, 10], 2)
    image = load_image(sample("grace_hopper.jpg"), size=(12, 10))
    values = difference_of_gaussians(image, sigmas=((1, 2), (0.5, 1)), threshold=0.1)
    # an input of 300 is above threshold at once, so spikes are those of the code
    code = rate_code(
        np.broadcast_to(values, (2, 4, 12, 10)), 500, rate=400.0, seed=np.random.default_rng([4, 1])
    )
    assert said["spikes"] == code.sum() > 1000


def test_recordings_drive_groups_of_neurons():
    neuron = ["simulate", "IF", "--param", "threshold=1", "--backend", "cpu", "--shape", "10"]
    drive = [
        "--input",
        "sample:eeg.dat",
        "--weight",
        "30",
        "--stimulus",
        "constant:20",
        "--stimulus",
        "step:9,start=1",
    ]
    report(*neuron, *drive, "--duration", "2", "--out", "run.npz")
    table = resample(load_recording(sample("eeg.dat"), channels=4), sample_rate=80.0, ts=0.001, steps=2000)
    x = np.float32(20) + np.where(np.arange(2000) >= 1000, 9, 0).astype(np.float32)[:, None, None]
    x = x + spread(table, (10,)).astype(np.float32)[:, None] * np.float32(30)
    expected = Layer(models.IF(threshold=1.0), backend="cpu").run(x).spikes
    found = load_run("run.npz")[0]["spikes"]
    assert found.shape == (2000, 1, 10)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.01)  # the order of the sum is the command's own
    assert np.array_equal(found[:, 0, 0], found[:, 0, 2])  # channel 0
    assert not np.array_equal(found[:, 0, 2], found[:, 0, 3])  # channel 1


def test_recordings_from_files(tmp_path):
    table = np.random.default_rng(0).normal(30, 10, (50, 2))
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", fmt="%.17g")
    table.tofile(tmp_path / "a.dat")
    np.savez(tmp_path / "a.npz", table)
    digests = set()
    for name, options in (("a.csv", []), ("a.dat", ["--channels", "2"]), ("a.npz", [])):
        said = report(*LIF, "--input", name, *options, "--shape", "6")
        assert (said["shape"], said["steps"]) == ([6], 50)
        digests.add(said["spikes_sha256"])
    assert len(digests) == 1
    assert report(*LIF, "--input", "a.csv")["shape"] == [2]
    slow = report(*LIF, "--input", "a.csv", "--sample-rate", "100")
    assert slow["steps"] == 500


def test_blocks_do_not_matter(monkeypatch):
    options = [
        "--param",
        "tau_rc=normal(0.02,0.001)",
        "--stimulus",
        "noise:sd=30,tau=5ms",
        "--record",
        "spikes,u",
    ]
    options += ["--k", "2", "--steps", "300"]
    picture = [
        *LIF,
        "--input",
        "sample:grace_hopper.jpg",
        "--longest",
        "16",
        "--encode",
        "rate",
        "--weight",
        "90",
    ]
    outcomes = []
    for size in (stimuli.BLOCK_BYTES, 7 * 20 * 4):
        monkeypatch.setattr(stimuli, "BLOCK_BYTES", size)
        said = report(*SMALL, *without(options, "--steps"), "--out", f"{size}.npz")
        arrays, _ = load_run(f"{size}.npz")
        outcomes.append(
            (said["spikes"], said["spikes_sha256"], said["winners"], report(*picture)["spikes_sha256"])
        )
        outcomes[-1] += (arrays["u"].tobytes(), arrays["spikes"].tobytes())
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] > 0


def test_seed_dtype_and_initial_state():
    said = [report(*SMALL, "--seed", seed)["spikes_sha256"] for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    report(*SMALL, "--dtype", "float64", "--initial", "u=0.5", "--record", "u", "--out", "run.npz")
    u = load_run("run.npz")[0]["u"]
    assert u.dtype == np.float64
    first = load_run("run.npz")[0]["u"][0]
    assert first[first > 0].min() == pytest.approx(0.5 * np.exp(-0.001 / 0.02))


def test_parameters_from_files_and_by_distribution(tmp_path):
    np.save(tmp_path / "thresholds.npy", np.linspace(0.5, 50, 20))
    options = ["--steps", "100", "--stimulus", "constant:400", "--backend", "cpu", "--shape", "20"]
    report("simulate", "IF", "--param", "threshold=@thresholds.npy", *options, "--out", "run.npz")
    counts = load_run("run.npz")[0]["spikes"].sum(axis=(0, 1))
    assert counts[0] > counts[10] > counts[19] > 0
    for text in ("uniform(2,4)", "normal(3,0.1)", "lognormal(1,0.1)", "Uniform(low=2, high=4, per=neuron)"):
        report("simulate", "IF", "--param", f"threshold={text}", *options, "--out", "run.npz", "--force")
        assert len(set(load_run("run.npz")[0]["spikes"].sum(axis=(0, 1)))) > 1, text


def test_a_model_of_the_users_own():
    options = [
        "--param",
        "threshold=1.5",
        "--param",
        "ts=0.1",
        "--param",
        "refractory_timesteps=0",
        "--backend",
        "cpu",
    ]
    options += ["--stimulus", "constant:0.8", "--steps", "2000", "--shape", "3", "--record", "spikes,w"]
    result = call("simulate", "mine.py", *options, "--out", "run.npz", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)  # what the file prints does not get in between
    assert result.stderr == "loading\n"
    assert said["model"] == "FitzHughNagumo"
    assert said["spikes"] > 3
    assert call("models", "show", "mine.py:FitzHughNagumo").exit_code == 0
    assert "no model 'Other'" in call("simulate", "mine.py:Other", *options).stderr


# results


def test_summary_table():
    result = call(*SMALL, "--k", "2", "--out", "run.npz")
    assert result.exit_code == 0
    said = report(*SMALL, "--k", "2")
    rows = {re.split(r"\s{2,}", line)[0]: line for line in result.stdout.splitlines()}
    for name in (
        "model",
        "backend",
        "rate",
        "winners",
        "run",
        "speed",
        "compile and first call",
        "recorded in",
    ):
        assert name in rows
    assert f"{said['spikes']:,}" in rows["spikes"]
    assert f"{said['winners']:,}" in rows["winners"]
    assert said["neuron_steps_per_second"] > 0


def test_a_run_is_repeated():
    options = [
        "--param",
        "tau_rc=uniform(0.01,0.03)",
        "--k",
        "3",
        "--radius",
        "2",
        "--scope",
        "global",
        "--seed",
        "8",
    ]
    picture = [
        "--input",
        "sample:grace_hopper.jpg",
        "--longest",
        "24",
        "--weight",
        "200",
        "--dog",
        "1,2",
        "--dog",
        "1,3",
    ]
    first = report(
        *LIF, *picture, *options, "--stimulus", "noise:sd=9", "--record", "spikes,u", "--out", "run.npz"
    )
    again = report("repeat", "run.npz", "--out", "again.npz")
    assert again["same_spikes"] is True
    assert first["spikes"] == again["spikes"] > 0
    arrays, description = load_run("run.npz")
    repeated, _ = load_run("again.npz")
    assert all(np.array_equal(arrays[name], repeated[name]) for name in ("spikes", "u"))
    assert description["versions"].keys() >= {"spyke_numba", "numpy", "numba"}


def test_a_repeated_run_that_differs_is_noticed(tmp_path):
    np.save(tmp_path / "x.npy", np.full((30, 4), 100.0))
    report(*LIF, "--input", "x.npy", "--out", "run.npz")
    np.save(tmp_path / "x.npy", np.full((30, 4), 200.0))
    assert "has changed" in refused("repeat", "run.npz")
    np.save(tmp_path / "x.npy", np.full((30, 4), 100.0))
    assert report("repeat", "run.npz")["same_spikes"] is True
    with np.load("run.npz") as archive:
        description = json.loads(archive["description"].tobytes())
    description["job"]["weight"] = 2.0
    np.savez("altered.npz", description=np.frombuffer(json.dumps(description).encode(), np.uint8))
    result = call("repeat", "altered.npz", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["same_spikes"] is False
    assert "NO" in call("repeat", "altered.npz").stdout
    description["job"]["colour"] = "red"
    np.savez("unknown.npz", description=np.frombuffer(json.dumps(description).encode(), np.uint8))
    assert "colour" in refused("repeat", "unknown.npz")
    np.savez("empty.npz", description=np.frombuffer(b"{}", np.uint8))
    assert "does not describe a run" in refused("repeat", "empty.npz")


def test_outputs_are_checked_before_the_run_and_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "run.npz").write_bytes(b"old")
    (tmp_path / "run.png").write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr(job_module, "prepare", lambda job: pytest.fail("the run was begun"))
        for option in (["--out", "run.npz"], ["--plot", "run.png"]):
            assert "exists already" in refused(*SMALL, *option)
        for option in (["--out", "none/run.npz"], ["--out", "run.txt"], ["--plot", "run.gif"]):
            refused(*SMALL, *option)
    assert (tmp_path / "run.npz").read_bytes() == (tmp_path / "run.png").read_bytes() == b"old"
    assert call(*SMALL, "--out", "run.npz", "--plot", "run.png", "--force").exit_code == 0
    assert load_run("run.npz")[0]["spikes"].any()
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_fails_on_its_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(stimuli, "BLOCK_BYTES", 400)
    x = np.full((100, 10), 50.0)
    x[90, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "run.npz").write_bytes(b"old")
    before = sorted(os.listdir(tmp_path))
    assert "NaN" in refused(*LIF, "--input", "x.npy", "--out", "run.npz", "--plot", "run.png", "--force")
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "run.npz").read_bytes() == b"old"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("spyke_numba.figures.run.RunSummary.add", interrupted)
    result = call(*SMALL, "--out", "run.npz")
    assert (result.exit_code, result.stderr.strip()) == (130, "spyke-numba: interrupted")
    assert sorted(os.listdir(tmp_path)) == before


def test_progress_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    for after, shown in ((0.0, True), (60.0, False)):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(simulating, "SHOW_PROGRESS_AFTER", after)
        with simulating.progress_bar(1000, hidden=False) as advance:
            for _ in range(4):
                advance(250)
        assert ("of 1,000 steps" in screen.getvalue()) is shown
    with simulating.progress_bar(1000, hidden=True) as advance:
        advance(250)
    assert screen.getvalue() == ""


# what is refused

CONSTANT = [*LIF, "--stimulus", "constant:1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate"], "MODEL"),
        (["simulat"], "simulat"),
        (["simulate", "LIFF", "--stimulus", "constant:1"], "did you mean 'LIF'"),
        (["simulate", "none.py", "--stimulus", "constant:1"], "none.py"),
        (["simulate", "LIF", "--stimulus", "constant:1"], "threshold"),
        (LIF, "--stimulus"),
        ([*LIF, "--stimulus", "sine:1"], "poisson:rate="),
        ([*LIF, "--stimulus", "ramp:1,start=5"], "longer run"),
        ([*CONSTANT, "--colour", "red"], "--colour"),
        ([*CONSTANT, "--param", "threshhold=2"], "did you mean 'threshold'"),
        ([*CONSTANT, "--param", "tau_rc"], "name=value"),
        ([*CONSTANT, "--param", "threshold=2"], "twice"),
        ([*CONSTANT, "--param", "tau_rc=fast"], "finite number"),
        ([*CONSTANT, "--param", "tau_rc=nan"], "finite number"),
        ([*CONSTANT, "--param", "tau_rc=-1"], "above 0"),
        ([*CONSTANT, "--param", "tau_rc=uniform(1)"], "two numbers"),
        ([*CONSTANT, "--param", "tau_rc=uniform(1,2,per=day)"], "'feature'"),
        ([*CONSTANT, "--param", "tau_rc=@none.npy"], "none.npy"),
        ([*CONSTANT, "--param", "resting_potential=5"], "threshold"),
        ([*CONSTANT, "--param", "ts=uniform(0.001,0.002)"], "one time step"),
        ([*CONSTANT, "--param", "refractory_timesteps=-1"], "at least 0"),
        (
            [
                "simulate",
                "LIF_Simple",
                "--param",
                "threshold=1",
                "--param",
                "tau_rc=0.002",
                "--stimulus",
                "constant:1",
            ],
            "3 ts",
        ),
        ([*CONSTANT, "--initial", "v=1"], "'v'"),
        ([*CONSTANT, "--initial", "u=uniform(0,1)"], "number"),
        ([*CONSTANT, "--shape", "3,4"], "F,H,W"),
        ([*CONSTANT, "--shape", "a"], "F,H,W"),
        ([*CONSTANT, "--shape", "0"], "1 or more"),
        ([*CONSTANT, "--batch", "0"], "1 or more"),
        ([*CONSTANT, "--steps", "0"], "1 or more"),
        ([*CONSTANT, "--duration", "-1"], "above 0"),
        ([*CONSTANT, "--steps", "5", "--duration", "1"], "one of them"),
        ([*CONSTANT, "--dtype", "float16"], "float32"),
        ([*CONSTANT, "--backend", "tpu"], "cuda"),
        ([*CONSTANT, "--threads", "0"], "at least 1"),
        ([*CONSTANT, "--k", "0"], "at least 1"),
        ([*CONSTANT, "--k", "1", "--radius", "-1"], "at least 0"),
        ([*CONSTANT, "--scope", "global"], "--k"),
        ([*CONSTANT, "--k", "1", "--scope", "row"], "location"),
        ([*CONSTANT, "--seed", "-1"], "--seed"),
        ([*CONSTANT, "--record", "spikes,v"], "'v'"),
        ([*CONSTANT, "--record", "winners"], "'winners'"),
        ([*CONSTANT, "--plot", "a.png", "--neurons", "100"], "0 to 99"),
        ([*LIF, "--input", "none.npy"], "none.npy"),
        ([*LIF, "--input", "mine.py"], "'.py'"),
        ([*LIF, "--input", "sample:none.jpg"], "eeg.dat"),
        ([*LIF, "--input", "sample:goog.npz"], "real numbers"),
        ([*LIF, "--input", "sample:eeg.dat", "--shape", "3"], "4 channels"),
        ([*LIF, "--input", "sample:eeg.dat", "--duration", "11"], "10 s"),
        ([*LIF, "--input", "sample:eeg.dat", "--sample-rate", "0"], "above 0"),
        ([*LIF, "--input", "sample:grace_hopper.jpg", "--shape", "10"], "F,H,W"),
        ([*LIF, "--input", "sample:grace_hopper.jpg", "--shape", "5,9,9"], "2,9,9"),
        ([*LIF, "--input", "sample:grace_hopper.jpg", "--dog", "2,1"], "wider surround"),
        ([*LIF, "--input", "sample:grace_hopper.jpg", "--contrast", "2"], "[0, 1)"),
        (
            [*LIF, "--input", "sample:grace_hopper.jpg", "--encode", "rate", "--rate", "2000"],
            "at most 1000 Hz",
        ),
        (["models", "show", "LIFF"], "did you mean 'LIF'"),
        (["compile", "LIF", "--emit", "poetry"], "emit"),
        (["compile", "LIF", "--backend", "tpu"], "cuda"),
        (["repeat", "none.npz"], "none.npz"),
        (["repeat", "mine.py"], "not the file of a run"),
    ],
    ids=lambda value: " ".join(value[-4:]) if isinstance(value, list) else "",
)
def test_bad_use_is_refused_in_one_sentence(arguments, said):
    assert said in refused(*arguments)


def test_arrays_of_the_wrong_shape_are_refused(tmp_path):
    np.save(tmp_path / "maps.npy", np.zeros((5, 2, 3, 4, 4)))
    np.save(tmp_path / "six.npy", np.zeros((1,) * 6))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert "3,4,4" in refused(*LIF, "--input", "maps.npy", "--shape", "7")
    assert "2 sample(s)" in refused(*LIF, "--input", "maps.npy", "--batch", "3")
    assert "5" in refused(*LIF, "--input", "maps.npy", "--steps", "6")
    assert "samples, channels" in refused(*LIF, "--input", "maps.npy", "--sample-rate", "10")
    assert "(T, B, F, H, W)" in refused(*LIF, "--input", "six.npy")
    assert "real numbers" in refused(*LIF, "--input", "text.npy")
    assert "broken.npy" in refused(*LIF, "--input", "broken.npy")
    assert "broken.png" in refused(*LIF, "--input", "broken.png")


def test_a_backend_that_cannot_run_here_says_so():
    for name in backends.names():
        reason = backends.get(name).unavailable()
        if reason is None:
            assert report(*without(SMALL, "--backend"), "--backend", name)["backend"] == name
        else:
            assert " ".join(reason.split()) in refused(*without(SMALL, "--backend"), "--backend", name)


def test_a_defect_keeps_its_traceback(monkeypatch):
    def defect(job):
        raise ZeroDivisionError

    monkeypatch.setattr(job_module, "prepare", defect)
    with pytest.raises(ZeroDivisionError):
        call(*SMALL)
    monkeypatch.undo()
    with pytest.raises(KeyError):
        call("--traceback", "models", "show", "LIFF")


# models, backends, compile


def test_models_are_listed_and_shown():
    listed = [one["name"] for one in report("models")["models"]]
    assert listed == list(models.names())
    table = call("models").stdout
    for name in models.names():
        spec = models.get(name)
        assert re.search(rf"^{name}\s", table, flags=re.MULTILINE)
        shown = call("models", "show", name.lower()).stdout
        for text in (*spec.equations, *spec.all_params, *spec.states, spec.source):
            assert text in shown, (name, text)
        described = report("models", "show", name)
        assert described["parameters"].keys() == spec.all_params.keys()
        for parameter, value in spec.all_params.items():
            assert described["parameters"][parameter]["unit"] == value.unit
            if isinstance(value.default, float | int):
                assert described["parameters"][parameter]["default"] == value.default
    assert report("models", "show", "LIF")["parameters"]["threshold"]["default"] == "required"


def test_backends_are_listed():
    found = report("backends")
    assert [one["name"] for one in found["backends"]] == list(backends.names())
    assert found["auto"] == backends.choose("auto").name
    table = call("backends").stdout
    for one in found["backends"]:
        assert one["usable"] is (backends.get(one["name"]).unavailable() is None)
        assert one["usable"] or one["reason"]
        assert re.search(rf"^{one['name']}\s+{'yes' if one['usable'] else 'no'}\s", table, flags=re.MULTILINE)


def test_source_is_shown_for_every_backend():
    for name in backends.names():
        if "source" in backends.get(name).emits:
            result = call("compile", "adex", "--backend", name, "--emit", "source")
            assert result.exit_code == 0, result.stderr
            assert "exp" in result.stdout
    plain, inhibited, varying, double = (
        call("compile", "LIF", *options).stdout
        for options in (
            [],
            ["--scope", "feature"],
            ["--param", "threshold=uniform(1,2)"],
            ["--dtype", "float64"],
        )
    )
    assert len({plain, inhibited, varying, double}) == 4
    assert call("compile", "LIF", "--out", "lif.txt").exit_code == 0
    assert Path("lif.txt").read_text(encoding="utf-8").rstrip() == plain.rstrip()
    assert "exists already" in refused("compile", "LIF", "--out", "lif.txt")


# the shell


def completed(*words):
    *arguments, incomplete = words
    items = BashComplete(main, {}, "spyke-numba", "_SPYKE_NUMBA_COMPLETE").get_completions(
        arguments, incomplete
    )
    return [item.value for item in items]


def test_completion():
    assert completed("simulate", "ad") == ["AdEx"]
    assert completed("models", "show", "")[:1] == [models.names()[0]]
    assert completed("simulate", "LIF", "--backend", "") == ["auto", *backends.names()]
    assert completed("compile", "LIF", "--backend", "t") == ["torch", "torch_compiled"]
    assert completed("simulate", "AdEx", "--record", "spikes,w") == ["spikes,w", "spikes,winners"]
    assert "spikes,w" not in completed("simulate", "LIF", "--record", "spikes,w")
    assert completed("simulate", "AdEx", "--param", "tau_") == ["tau_rc=", "tau_w="]
    assert completed("simulate", "AdEx", "--initial", "") == ["u=", "w="]
    assert completed("simulate", "none", "--param", "") == []
    assert completed("simulate", "LIF", "--stimulus", "p") == ["poisson:"]
    assert completed("simulate", "LIF", "--input", "sample:e") == ["sample:eeg.dat"]


def run_process(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "spyke_numba.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT | variables,
    )


def test_real_process():
    done = run_process(*SMALL, "--json", "--out", "run.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["spikes_sha256"] == report(*SMALL)["spikes_sha256"]
    wrong = run_process("simulate", "LIFF", "--stimulus", "constant:1")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    again = run_process(*SMALL, "--out", "run.npz")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert run_process("--version").stdout.startswith("spyke-numba ")
    assert run_process().returncode == 2
    script = run_process(_SPYKE_NUMBA_COMPLETE="bash_source")
    assert "_SPYKE_NUMBA_COMPLETE=bash_complete" in script.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from spyke_numba.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('numba', 'torch', 'matplotlib', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=ENVIRONMENT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_option_is_explained():
    def walk(command):
        yield command
        for child in getattr(command, "commands", {}).values():
            yield from walk(child)

    for command in walk(main):
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not isinstance(parameter.type, click.Choice):
                assert parameter.help, parameter.name
