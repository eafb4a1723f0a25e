"""A machine with a GPU, met for the first time: a bare checkout, a toolkit instead of packages, mixed versions."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ptx_tools
import pytest
from click.testing import CliRunner

from spyke_numba.backends.cuda import launch as cuda_backend
from spyke_numba.backends.cuda import ptx as _ptx
from spyke_numba.benchmarks import cuda_resources, gpu
from spyke_numba.cli.main import main

ROOT = Path(__file__).parent.parent
needs_linker = pytest.mark.skipif(ptx_tools.cannot_link() is not None, reason=str(ptx_tools.cannot_link()))
needs_compiler = pytest.mark.skipif(
    ptx_tools.cannot_compile() is not None, reason=str(ptx_tools.cannot_compile())
)
#: What nvJitLink 13.5 said of a PTX from the future.
LOG = "ptxas application ptx input, line 1; fatal   : Unsupported .version 9.9; current version is '9.0'\n"


# NVVM and nvJitLink


def pretend(monkeypatch: pytest.MonkeyPatch, error: str | None) -> list[str]:
    """Let NVVM write PTX 9.9, and nvJitLink 13.0 answer with this error; return what it is given."""
    given: list[str] = []

    def link(ptx: str, arch: str) -> None:
        given.append(ptx)
        if error is not None:
            raise RuntimeError(error)

    monkeypatch.setattr(_ptx, "missing", lambda libraries=None: None)
    monkeypatch.setattr(_ptx, "ptx_version", lambda arch: "9.9")
    monkeypatch.setattr(_ptx, "linker_version", lambda: "13.0")
    monkeypatch.setattr(_ptx, "link", link)
    return given


def test_a_linker_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = pretend(monkeypatch, LOG)
    sentence = str(_ptx.too_new_to_link("sm_90"))
    assert sentence.startswith(
        "NVVM writes PTX 9.9, newer than the PTX 9.0 that nvJitLink 13.0 reads (Unsupported .version): install"
    )
    assert "pip install --upgrade nvidia-nvjitlink" in sentence
    assert ".version 9.9\n.target sm_90\n" in given[0]
    assert _ptx.cannot_link() == sentence
    for error in (None, "another reason"):
        pretend(monkeypatch, error)
        assert _ptx.too_new_to_link("sm_90") is None
    monkeypatch.setattr(_ptx, "missing", lambda libraries=None: "nvJitLink was not found")
    monkeypatch.setattr(_ptx, "ptx_version", lambda arch: pytest.fail("the driver links"))
    assert _ptx.too_new_to_link("sm_90") is None


@needs_linker
def test_the_linker_here_takes_what_nvvm_writes_and_nothing_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    version = _ptx.ptx_version("sm_80")
    text = "from numba import cuda\n\n@cuda.jit\ndef run(x):\n    x[0] = 1.0\n"
    assert f"\n.version {version}\n" in ptx_tools.compile_ptx(text, "run", "float32[::1]", arch="sm_80")
    assert _ptx.too_new_to_link("sm_80") is None
    monkeypatch.setattr(_ptx, "ptx_version", lambda arch: "99.0")
    assert f"PTX 99.0, newer than the PTX {version} that nvJitLink" in str(_ptx.too_new_to_link("sm_80"))


@needs_linker
def test_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import cuda
    from numba.cuda.cudadrv import driver, runtime

    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "gpus", [SimpleNamespace(compute_capability=(9, 0))])
    monkeypatch.setattr(driver, "get_version", lambda: (99, 0))
    monkeypatch.setattr(runtime, "get_version", lambda: (13, 0))
    monkeypatch.setattr(cuda_backend, "_why_not", cuda_backend._why_not.__wrapped__)
    monkeypatch.setattr(_ptx, "ptx_version", lambda arch: {"sm_90": "99.0"}[arch])
    result = CliRunner().invoke(main, ["backends"], prog_name="spyke-numba")
    said = " ".join(result.stdout.split())
    assert re.search(r"NVVM writes PTX 99\.0, newer than the PTX [\d.]+ that nvJitLink [\d.]+", said)


@needs_compiler
def test_numba_cuda_that_is_only_on_the_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import cuda

    monkeypatch.setattr(cuda, "__file__", "/packages/numba/cuda/__init__.py")
    assert "its .pth file was not read" in str(cuda_backend._why_not.__wrapped__())


# libraries of a toolkit


@needs_linker
def test_versions_of_libraries_that_no_package_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cuda_resources.toolchain()

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cuda_resources, "version", version)
    bare = cuda_resources.toolchain()
    assert list(bare) == list(real)
    assert (bare["numba"], bare["numba-cuda"]) == (real["numba"], real["numba-cuda"])
    assert re.fullmatch(r"of a toolkit \(PTX \d+\.\d+\)", bare["nvidia-nvvm"])
    assert re.fullmatch(r"of a toolkit \(CUDA \d+\.\d+\)", bare["nvidia-nvjitlink"])


def test_declared_bounds() -> None:
    """What was tried: k-WTA compiles with numba 0.61, not with 0.60; numba-cuda 0.30.3 does not import with 0.68.1."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = setup["options"]["install_requires"].split("\n")
    assert {"numba>=0.61", "llvmlite>=0.44"} <= set(required)
    extras = "\n".join(setup["options.extras_require"].values())
    assert re.findall(r"^numba-cuda\S*?(>=[\d.]+)", extras, re.MULTILINE) == [">=0.30.4"] * 3


# bench gpu


def test_torch_must_see_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu.backends, "choose", lambda name: SimpleNamespace(name="cuda"))
    monkeypatch.setattr(gpu, "uniform", lambda shape: pytest.fail("input was made"))
    arguments = ["bench", "gpu", "--out", str(tmp_path / "gpu.json")]
    torch: Any = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    for found, said in ((object(), "this torch sees no GPU"), (None, "torch is not installed")):
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name, found=found: found)
        result = CliRunner().invoke(main, arguments, prog_name="spyke-numba")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"spyke-numba: {said}")
        assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the package's folders alone, without git, and a Python that has its dependencies and not itself."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("spyke_numba", "backends", "cli", "benchmarks"):
        shutil.copytree(
            ROOT / name,
            folder / "copy" / name,
            # of the benchmarks: what has been measured is no code
            ignore=shutil.ignore_patterns("__pycache__", *(["results"] if name == "benchmarks" else [])),
        )
    shutil.copy(ROOT / "setup.cfg", folder / "copy")
    venv.create(folder / "python", with_pip=False, symlinks=os.name != "nt")
    python = folder / "python" / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    )
    shared = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    # numba-cuda's own .pth file is read by this line alone; the package's metadata, where it is installed, is hidden
    redirect = ["import _numba_cuda_redirector"] if importlib.util.find_spec("_numba_cuda_redirector") else []
    (packages / "dependencies.pth").write_text("\n".join([*shared, *redirect]) + "\n")
    (packages / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import importlib.metadata, socket

            real = importlib.metadata.distribution

            def distribution(name):
                if name.replace("-", "_").startswith("spyke_numba"):
                    raise importlib.metadata.PackageNotFoundError(name)
                return real(name)

            def refuse(*arguments):
                raise AssertionError("the network was used")

            importlib.metadata.distribution = distribution
            socket.socket.connect = socket.getaddrinfo = refuse
            """
        )
    )
    return folder / "copy", python


def test_bench_gpu_from_a_bare_checkout(bare: tuple[Path, Path], tmp_path: Path) -> None:
    """Up to the backend's own refusal, and with the cpu in the GPU's place to the end: no network, no git."""
    copy, python = bare
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))
    }
    environment |= {"PYTHONPATH": str(copy), "PATH": os.devnull}

    def bench(*more: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "spyke_numba.cli", "bench", "gpu", "--smallest", *more]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    results = copy / "benchmarks" / "results" / "gpu.json"
    done = bench("--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert '"commit": "unknown"' in results.read_text(encoding="utf-8")
    assert "exist" in bench("--backend", "cpu").stderr
    results.unlink()
    refused = bench()
    reason = cuda_backend.BACKEND.unavailable()
    if reason is not None:
        assert refused.returncode == 2
        assert refused.stderr.startswith("spyke-numba: backend 'cuda' cannot run here: ")
        assert refused.stderr.count("\n") == 1
        assert reason.split(":")[0] in refused.stderr
        assert not results.exists()
    assert list(tmp_path.iterdir()) == []


def test_tests_are_collected_without_greenlet() -> None:
    """The emulator is imported where greenlet is not installed; only a launch takes it."""
    code = (
        "import sys; sys.modules['greenlet'] = None; import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *more: None if name == 'greenlet' else real(name, *more);"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}];"
        "import conftest, emulated; print(emulated.emulated_cuda().unavailable())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("greenlet, as which emulated threads run, is not installed: pip install")
