"""What is installed, and that every way to install or run the package imports it from the right place."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import spyke_numba

ROOT = Path(__file__).resolve().parent.parent
#: Where each folder of the checkout lies in the installed package.
FOLDERS = {
    "spyke_numba": "spyke_numba",
    "backends": "spyke_numba/backends",
    "cli": "spyke_numba/cli",
    "benchmarks": "spyke_numba/benchmarks",
}
METADATA_FILES = ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
#: One module of every part, and the path of each below a checkout.
MODULES = {
    "spyke_numba": "spyke_numba/__init__.py",
    "spyke_numba.models.adex": "spyke_numba/models/adex.py",
    "spyke_numba.backends.cpu.launch": "backends/cpu/launch.py",
    "spyke_numba.cli.main": "cli/main.py",
    "spyke_numba.benchmarks.peers": "benchmarks/peers/__init__.py",
}
WHERE = f"""
import importlib, json
print(json.dumps({{name: importlib.import_module(name).__file__ for name in {list(MODULES)!r}}}))
"""


def run(
    command: Sequence[str | Path],
    cwd: Path,
    pythonpath: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command with no inherited PYTHONPATH, and fail with what it printed if it fails."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))
    }
    if pythonpath is not None:
        environment["PYTHONPATH"] = str(pythonpath)
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def build(hook: str, checkout: Path, out: Path) -> Path:
    """Call a hook of the build backend, as a builder does but without an isolated environment and the network."""
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.{hook}({str(out)!r}))"
    return out / run([sys.executable, "-c", code], checkout).stdout.split()[-1]


class Environment:
    """A throw-away virtual environment that sees the dependencies of this one, but nothing of its hooks."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / Path(sys.executable).name
        if not self.python.exists():
            self.python = scripts / "python"
        self.command = scripts / "spyke-numba"
        self.packages = Path(
            run(
                [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
            ).stdout.strip()
        )
        # a .pth file of the folders themselves: their own .pth files, and so an editable install there, stay unread
        shared = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        (self.packages / "dependencies.pth").write_text("\n".join(shared) + "\n")
        # what the script `pytest` of an installation does: unlike `python -m`, it leaves the current folder alone
        self.pytest_script = scripts / "run_pytest.py"
        self.pytest_script.write_text("import sys, pytest\nsys.exit(pytest.console_main())\n")

    def install(self, wheel: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--isolated", "install"]
        run([*pip, "--no-deps", "--no-index", "--force-reinstall", wheel], wheel.parent)

    def locations(self, cwd: Path, pythonpath: Path | None = None) -> dict[str, Path]:
        """Return the file that each of `MODULES` is imported from."""
        found = json.loads(run([self.python, "-c", WHERE], cwd, pythonpath).stdout)
        return {name: Path(file).resolve() for name, file in found.items()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, for builds leave files behind."""
    copy = tmp_path_factory.mktemp("checkout").resolve() / "repository"
    copy.mkdir()
    for name in METADATA_FILES:
        shutil.copy(ROOT / name, copy)
    for folder in (*FOLDERS, "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_sdist", checkout, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which the package is not installed."""
    return Environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(wheel)
    return environment


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with an editable install of the copy."""
    environment = Environment(tmp_path_factory.mktemp("editable"))
    environment.install(build("build_editable", checkout, tmp_path_factory.mktemp("editable_wheel")))
    return environment


def in_checkout(checkout: Path) -> dict[str, Path]:
    return {name: checkout / path for name, path in MODULES.items()}


def package_files(folder: Path) -> set[str]:
    """Return the paths, below the folder that holds the package, of the files that a checkout must install."""
    return {
        f"{installed}/{path.relative_to(folder / name).as_posix()}"
        for name, installed in FOLDERS.items()
        for path in (folder / name).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }


# ------------------------------------------------------------------------------------------------ what is built


def test_wheel_holds_the_package_and_nothing_else(checkout: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == package_files(checkout)
    assert "spyke_numba/py.typed" in names
    assert any(name.endswith("/LICENSE") for name in names)


def test_sdist_is_complete(checkout: Path, sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    kept = [path.relative_to(checkout) for path in (checkout / "tests").rglob("*") if path.is_file()]
    missing = [str(path) for path in [*kept, *map(Path, METADATA_FILES)] if not (unpacked / path).is_file()]
    assert not missing
    rebuilt = build("build_wheel", unpacked, tmp_path / "wheel")
    assert sorted(zipfile.ZipFile(rebuilt).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_versions_agree(installed: Environment, tmp_path: Path) -> None:
    code = "import importlib.metadata as m, spyke_numba as s; print(m.version('spyke_numba'), s.__version__)"
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    versions = run([installed.python, "-c", code], tmp_path).stdout.split()
    assert {*versions, newest[1]} == {spyke_numba.__version__}


# --------------------------------------------------------------------------------------------------- imports


def test_wheel_imports_outside_the_checkout(installed: Environment, checkout: Path, tmp_path: Path) -> None:
    expected = {}
    for name, path in MODULES.items():
        folder, _, rest = path.partition("/")
        expected[name] = (installed.packages / FOLDERS[folder] / rest).resolve()
    assert installed.locations(tmp_path) == expected


def test_wheel_installs_no_other_package(installed: Environment) -> None:
    assert not [name for name in ("backends", "cli", "benchmarks") if (installed.packages / name).exists()]
    names = {path.name for path in installed.packages.iterdir() if path.suffix not in (".pth", ".dist-info")}
    assert names - {"__pycache__"} == {"spyke_numba"}


@pytest.mark.parametrize("environment", ["bare", "installed", "editable"])
def test_checkout_wins_in_its_own_folder(
    environment: str, checkout: Path, request: pytest.FixtureRequest
) -> None:
    assert request.getfixturevalue(environment).locations(checkout) == in_checkout(checkout)


def test_editable_install_imports_outside_the_checkout(
    editable: Environment, checkout: Path, tmp_path: Path
) -> None:
    assert editable.locations(tmp_path) == in_checkout(checkout)


def test_bare_checkout_imports_through_the_path(bare: Environment, checkout: Path, tmp_path: Path) -> None:
    assert bare.locations(tmp_path, pythonpath=checkout) == in_checkout(checkout)


@pytest.fixture(scope="module")
def probe(checkout: Path) -> Iterator[Path]:
    """A test in the copy that passes if the package comes from the copy."""
    path = checkout / "tests" / "test_probe.py"
    path.write_text(
        "import importlib\n\nimport pytest\n\n\n"
        f"@pytest.mark.parametrize(('name', 'path'), {list(MODULES.items())!r})\n"
        "def test_probe(name, path, request):\n"
        "    assert importlib.import_module(name).__file__ == str(request.config.rootpath / path)\n"
    )
    yield path
    path.unlink()


@pytest.mark.sampled("environment command")
@pytest.mark.parametrize("folder", ["", "tests"])
@pytest.mark.parametrize("command", ["pytest", "python -m pytest"])
@pytest.mark.parametrize("environment", ["bare", "installed"])
def test_pytest_runs_the_checkout(
    environment: str, command: str, folder: str, checkout: Path, probe: Path, request: pytest.FixtureRequest
) -> None:
    chosen: Environment = request.getfixturevalue(environment)
    how = [chosen.pytest_script] if command == "pytest" else ["-m", "pytest"]
    options = ["-p", "no:cacheprovider", "-n", "0", "-q"]
    output = run([chosen.python, *how, *options, probe], checkout / folder).stdout
    assert f"{len(MODULES)} passed" in output


# --------------------------------------------------------------------------------------------------- command


def test_command_is_installed(installed: Environment, checkout: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, checkout):
        assert "AdEx" in run([installed.command, "models"], folder).stdout


def test_readme_commands_are_marked_for_ci() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("main job", "tests"):
        assert re.search(rf"^<!-- ci: {name} -->\n```\w*\n.+\n```$", text, re.MULTILINE), name


# ---------------------------------------------------------------------------------------------- dependencies


def imported(folder: Path) -> dict[str, set[str]]:
    """Return the top-level modules that the files below a folder import, each with the files' names."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(path.name)
    return found


def declared(wheel: Path, extras: Sequence[str]) -> set[str]:
    """Return the distributions that the wheel requires with these extras."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    found = set()
    for line in archive.read(name).decode().splitlines():
        match = re.match(r"Requires-Dist: ([\w.-]+)", line)
        extra = re.search(r"extra == \"(\w+)\"", line)
        if match and (extra is None or extra[1] in extras):
            found.add(re.sub(r"[-_.]+", "-", match[1]).lower())
    return found


#: Distributions of modules that are not installed on every system.
KNOWN = {"cuda": ["cuda-bindings"], "numba_cuda": ["numba-cuda"]}
#: Libraries to compare with that docs/benchmarks.md adds without what they require.
BY_HAND = {"norse", "spikingjelly"}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [(tuple(FOLDERS), ("torch", "cuda13", "peers")), (("tests",), ("test",))],
    ids=["package", "tests"],
)
def test_every_import_is_declared(folders: tuple[str, ...], extras: tuple[str, ...], wheel: Path) -> None:
    distributions = importlib.metadata.packages_distributions()
    own = {"spyke_numba", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    allowed = declared(wheel, extras)
    undeclared = {}
    for folder in folders:
        for module, files in imported(ROOT / folder).items():
            if module in own | BY_HAND or module in sys.stdlib_module_names:
                continue
            names = distributions.get(module, KNOWN.get(module, [module]))
            providers = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
            if not providers & allowed:
                undeclared[module] = files
    assert not undeclared


def test_no_extra_takes_a_torch_that_brings_cuda(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    bounds = re.findall(r"^Requires-Dist: torch(.*?);", archive.read(name).decode(), re.MULTILINE)
    assert [set(bound.strip().split(",")) for bound in bounds] == [{">=2.4", "<2.14"}] * 3


# ---------------------------------------------------------------------------------------------- import's cost

COST = """
import json, sys, time
import numba
before = set(sys.modules)
start = time.perf_counter()
import spyke_numba
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def import_costs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, set[str]]]:
    """Seconds beyond `import numba` and the modules loaded, in this environment, five times."""
    folder = tmp_path_factory.mktemp("import")
    outputs = [run([sys.executable, "-c", COST], folder, pythonpath=ROOT).stdout for _ in range(5)]
    return [(seconds, set(modules)) for seconds, modules in map(json.loads, outputs)]


def test_import_loads_no_optional_or_heavy_package(import_costs: list[tuple[float, set[str]]]) -> None:
    _, modules = import_costs[0]
    heavy = {
        name
        for name in modules
        if re.match(r"(torch|numba_cuda|numba\.cuda|cuda|matplotlib|PIL|rich)\b", name)
    }
    assert not heavy
    assert "spyke_numba.layer" in modules


def test_import_is_quick(import_costs: list[tuple[float, set[str]]]) -> None:
    assert min(seconds for seconds, _ in import_costs) < 0.5
