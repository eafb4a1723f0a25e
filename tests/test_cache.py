"""The cache on disk runs nothing that another user could have put there, and gets over whatever has happened to it."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import marshal
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numba.core.event as event
import pytest

from spyke_numba.compile import cache as generated
from spyke_numba.compile import cache_folder

TEXT = """from numba import njit


@njit("int64(int64)", cache=True, nogil=True)
def run(n):
    return 3 * n + 1
"""
OTHER = TEXT.replace("3 * n", "5 * n")
needs_posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to another user"
)
needs_no_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything"
)


def load(text: str = TEXT) -> tuple[int, bool]:
    """Return what a module computes in a process that has not yet imported it, and whether it was compiled."""
    for name in [name for name in sys.modules if name.startswith("spyke_numba_generated.kept_")]:
        del sys.modules[name]
    with event.install_recorder("numba:compile") as recorder:
        result = generated.load_module("kept", text, "none").run(2)
    return result, bool(recorder.buffer)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parent of an empty cache folder, in a process that has not yet warned."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "base"))
    if sys.platform == "darwin":
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        (tmp_path / "Library").mkdir()
        (tmp_path / "base").mkdir()
        (tmp_path / "Library" / "Caches").symlink_to(tmp_path / "base")
    monkeypatch.setattr(cache_folder, "_warned", False)
    return tmp_path / "base"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds one kernel; copied, never used."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "cache_directory", lambda: folder)
        assert load() == (7, True)
    assert len(list(folder.iterdir())) == 2
    return folder


@pytest.fixture
def store(base: Path, filled: Path) -> Path:
    """A cache folder that holds one kernel."""
    base.mkdir(exist_ok=True)
    shutil.copytree(filled, base / "spyke_numba")
    (base / "spyke_numba").chmod(0o700)
    return base / "spyke_numba"


def only(folder: Path, ending: str) -> Path:
    """Return the one entry that ends so."""
    [path] = folder.glob(f"*{ending}")
    return path


def put(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what replaces a file's content."""

    def change(path: Path) -> None:
        path.write_bytes(content(path.read_bytes()))

    return change


def flipped(place: float) -> Callable[[Path], None]:
    """Return what turns one bit over, so far from the start of a file."""

    def flip(content: bytes) -> bytes:
        at = int(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]

    return put(flip)


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what puts something else in a file's place."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def moved(path: Path) -> None:
    """Leave a link to the file, which lies elsewhere and is what it should be."""
    elsewhere = path.parent.parent / path.name
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("x")


def of_another_kernel(path: Path) -> None:
    """Put the file of another module in the place of this one's."""
    before = set(path.parent.iterdir())
    load(OTHER)
    [other] = [new for new in set(path.parent.iterdir()) - before if new.suffix == path.suffix]
    shutil.copy(other, path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": put(lambda content: content[: len(content) // 2]),
    "one byte short": put(lambda content: content[:-1]),
    "a few bytes": put(lambda content: content[:7]),
    "emptied": put(lambda content: b""),
    "longer": put(lambda content: content + b"\0"),
    "zeros after a crash": put(lambda content: bytes(len(content))),
    "random bytes": put(lambda content: random.Random(0).randbytes(len(content))),
    "text": put(lambda content: b"this is a text\n"),
    "an empty pickle": put(lambda content: pickle.dumps({})),
    "a bit at the start": flipped(0),
    "a bit in the middle": flipped(0.5),
    "a bit near the end": flipped(0.95),
    "a bit at the end": flipped(1),
    "missing": Path.unlink,
    "an empty folder": instead(Path.mkdir),
    "a full folder": instead(full_folder),
    "another kernel's": of_another_kernel,
}
if hasattr(os, "mkfifo"):
    DAMAGE |= {
        "a dangling link": instead(lambda path: path.symlink_to("nothing")),
        "a link to itself": instead(lambda path: path.symlink_to(path.name)),
        "a link to a folder": instead(lambda path: path.symlink_to(path.parent.parent)),
        "a link to what it should be": moved,
        "a pipe": instead(os.mkfifo),
        "writable by its group": lambda path: path.chmod(0o660),
        "writable by all": lambda path: path.chmod(0o666),
    }


@pytest.mark.parametrize("ending", [".py", ".compiled"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_replaced(store: Path, damage: str, ending: str) -> None:
    path = only(store, ending)
    content = path.read_bytes()
    DAMAGE[damage](path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # the text is there to be read; what runs does not depend on it
        assert load() == (7, ending == ".compiled")
        assert load() == (7, False)
    assert path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    if ending == ".py":
        assert path.read_bytes() == content
    assert not list(store.glob("*.tmp*"))


@needs_no_root
@pytest.mark.parametrize("ending", [".py", ".compiled"])
def test_an_unreadable_file_is_replaced(store: Path, ending: str) -> None:
    only(store, ending).chmod(0)
    assert load() == (7, ending == ".compiled")
    assert load() == (7, False)


@needs_root
def test_a_file_of_another_user_is_replaced(store: Path) -> None:
    path = only(store, ".compiled")
    os.chown(path, 12345, 12345)
    assert load() == (7, True)
    assert path.stat().st_uid == 0 and load() == (7, False)


def numba_files(store: Path) -> tuple[str, dict[str, bytes]]:
    path = only(store, ".compiled")
    files = generated._opened(path.stem, path.read_bytes())
    assert {Path(file).suffix for file in files} == {".nbi", ".nbc"}
    return path.stem, files


def test_files_of_a_future_numba_are_replaced(store: Path) -> None:
    """They are what they were when they were kept, but not what this numba reads."""
    name, files = numba_files(store)
    index = next(file for file in files if file.endswith(".nbi"))
    files[index] = pickle.dumps("99.0") + b"what this version cannot read"
    only(store, ".compiled").write_bytes(generated._sealed(name, files))
    assert load() == (7, True)
    assert load() == (7, False)


@pytest.mark.parametrize("kind", [".nbi", ".nbc"])
def test_files_that_numba_stops_at_are_replaced(store: Path, kind: str) -> None:
    name, files = numba_files(store)
    files |= {file: content[:50] for file, content in files.items() if file.endswith(kind)}
    only(store, ".compiled").write_bytes(generated._sealed(name, files))
    with pytest.warns(RuntimeWarning, match="is not kept"):
        assert load() == (7, True)
    assert load() == (7, True)
    assert load() == (7, False)


class Attack:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


def plant(store: Path, trace: Path) -> None:
    """Put code where Python or numba would look for it, and a pickle under a digest that fits."""
    path = only(store, ".py")
    beside = store / "__pycache__"
    beside.mkdir(exist_ok=True)
    code = marshal.dumps(
        compile(f"import os; os.mkdir({str(trace)!r}); run = lambda n: 0", str(path), "exec")
    )
    status = path.stat()
    header = struct.pack("<4sIII", importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime), status.st_size)
    (beside / f"{path.stem}.{sys.implementation.cache_tag}.pyc").write_bytes(header + code)
    version = f"{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    (beside / f"{path.stem}.run-4.py{version}.nbi").write_bytes(pickle.dumps(Attack(trace)))


@pytest.mark.parametrize("planted", [".pyc", ".nbi"])
def test_what_lies_beside_a_module_is_not_run(
    store: Path, tmp_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, tmp_path / "trace")
    for path in (store / "__pycache__").iterdir():
        if path.suffix != planted:
            path.unlink()
    only(store, ".compiled").unlink()
    assert load() == (7, True)
    assert not (tmp_path / "trace").exists()


def by_group(store: Path) -> None:
    store.chmod(0o770)


def by_all(store: Path) -> None:
    store.chmod(0o777)


def parent_by_all(store: Path) -> None:
    store.parent.chmod(0o777)


def far_above_by_group(store: Path) -> None:
    store.parent.parent.chmod(0o770)


def of_another(store: Path) -> None:
    os.chown(store, 12345, 12345)


def parent_of_another(store: Path) -> None:
    os.chown(store.parent, 12345, 12345)


def sticky_parent_of_another(store: Path) -> None:
    store.parent.chmod(0o1777)
    os.chown(store.parent, 12345, 12345)


def linked(store: Path) -> None:
    store.rename(store.parent / "elsewhere")
    store.symlink_to("elsewhere")


def a_file(store: Path) -> None:
    shutil.rmtree(store)
    store.write_text("")


@needs_posix
@pytest.mark.parametrize(
    "unsafe",
    [
        by_group,
        by_all,
        parent_by_all,
        far_above_by_group,
        linked,
        pytest.param(of_another, marks=needs_root),
        pytest.param(parent_of_another, marks=needs_root),
        pytest.param(sticky_parent_of_another, marks=needs_root),
    ],
)
def test_a_folder_that_others_can_change_is_not_used(
    store: Path, tmp_path: Path, unsafe: Callable[[Path], None]
) -> None:
    """Neither is what lies in it run, nor anything written there; each module is compiled, with one warning in all."""
    trace = tmp_path.parent / f"{tmp_path.name} trace"
    plant(store, trace)
    path = only(store, ".compiled")
    content = pickle.dumps(Attack(trace))
    path.write_bytes(hashlib.sha256(path.stem.encode() + content).digest() + content)
    unsafe(store)
    before = sorted((store.parent / name).stat().st_mtime_ns for name in os.listdir(store.parent))
    entries = sorted(store.rglob("*"))
    try:
        with pytest.warns(RuntimeWarning) as told:
            results = [load(), load(), load(OTHER)]
    finally:
        tmp_path.chmod(0o700)
    assert results == [(7, True), (7, True), (11, True)]
    assert len(told) == 1 and "chmod go-w" in str(told[0].message) and "\n" not in str(told[0].message)
    assert not trace.exists() and sorted(store.rglob("*")) == entries
    assert before == sorted((store.parent / name).stat().st_mtime_ns for name in os.listdir(store.parent))


@needs_posix
def test_a_sticky_parent_is_safe(store: Path) -> None:
    store.parent.chmod(0o1777)
    assert load() == (7, False)


def test_a_file_in_place_of_the_folder(store: Path) -> None:
    a_file(store)
    with pytest.warns(RuntimeWarning, match="spyke_numba"):
        assert load() == (7, True)
    assert store.read_text() == ""


@needs_posix
def test_ours_is_for_this_user_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        assert load() == (7, True)
        assert load() == (7, False)
    finally:
        os.umask(before)
    assert (base / "spyke_numba").stat().st_mode & 0o777 == base.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (base / "spyke_numba").iterdir()} == {0o600}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG_CACHE_HOME is not read here")
def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder.cache_directory() == tmp_path / "home" / ".cache" / "spyke_numba"
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("home", ["nowhere", "relative"])
def test_without_a_home_modules_are_compiled_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    def nowhere() -> Path:
        if home == "relative":
            return Path("home")
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(cache_folder, "_warned", False)
    with pytest.warns(RuntimeWarning, match="home") as told:
        results = [load(), load()]
    assert results == [(7, True), (7, True)]
    assert len(told) == 1 and not list(tmp_path.iterdir())
    # a traceback shows the line although there is no file
    [module] = [
        module for name, module in sys.modules.items() if name.startswith("spyke_numba_generated.kept_")
    ]
    assert "return 3 * n + 1" in inspect.getsource(module.run.py_func)


@needs_no_root
def test_a_folder_that_may_only_be_read(store: Path) -> None:
    store.chmod(0o500)
    try:
        assert load() == (7, False)
        with pytest.warns(RuntimeWarning, match="denied") as told:
            assert load(OTHER) == (11, True)
        assert len(told) == 1
    finally:
        store.chmod(0o700)


ONE = f"""
import sys, warnings
import numba.core.event as event
from spyke_numba.compile import cache as generated
warnings.simplefilter("always")
if len(sys.argv) > 1:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
with event.install_recorder("numba:compile") as recorder:
    result = generated.load_module("kept", {TEXT!r}, "none").run(2)
generated.load_module("kept", {OTHER!r}, "none")
print(result, bool(recorder.buffer))
"""
LAYER = """
import numpy as np, numba.core.event as event
from spyke_numba import Layer, models
with event.install_recorder("numba:compile") as recorder:
    layer = Layer(models.LIF(threshold=1.0), (4,), backend="cpu")
    spikes = layer.run(np.full((12, 1, 4), 30.0, np.float32) * np.arange(4, dtype=np.float32)).spikes
print(np.packbits(spikes).tolist(), bool(recorder.buffer))
"""


def start(base: Path, script: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    where = {name: str(base) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA")}
    if sys.platform == "darwin":
        where["HOME"] = str(base.parent)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **where, "PYTHONPATH": os.pathsep.join(sys.path), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process printed, and its warnings."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out.strip(), errors


@pytest.mark.parametrize("damage", ["a bit in the middle", "a full folder"])
def test_a_layer_gets_over_a_damaged_cache(base: Path, damage: str, layer_cache: tuple[Path, str]) -> None:
    kept, spikes = layer_cache
    base.mkdir(exist_ok=True)
    shutil.copytree(kept, base / "spyke_numba")
    for path in (base / "spyke_numba").iterdir():
        DAMAGE[damage](path)
    assert ended(start(base, LAYER)) == (f"{spikes} True", "")
    assert ended(start(base, LAYER)) == (f"{spikes} False", "")


@pytest.fixture(scope="module")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A cache folder that holds a layer's kernels, and the layer's spikes."""
    base = tmp_path_factory.mktemp("layer")
    kept = base / "Library" / "Caches" if sys.platform == "darwin" else base
    out, errors = ended(start(base / "Library" if sys.platform == "darwin" else base, LAYER))
    spikes, compiled = out.rsplit(" ", 1)
    assert compiled == "True" and "[0, " in spikes and not errors
    return kept / "spyke_numba", spikes


def test_processes_at_once_on_a_damaged_cache(store: Path, tmp_path: Path) -> None:
    """Nor does numba's own setting move what is kept, to a folder that nobody checks."""
    for ending, damage in ((".py", "truncated"), (".compiled", "a full folder")):
        DAMAGE[damage](only(store, ending))
    processes = [start(store.parent, ONE, NUMBA_CACHE_DIR=str(tmp_path / "numba")) for _ in range(8)]
    for process in processes:
        out, errors = ended(process)
        assert out.startswith("7 ") and not errors
    assert load() == (7, False) and load(OTHER) == (11, False)
    assert not (tmp_path / "numba").exists()
    assert len(list(store.iterdir())) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no limit can be set for a file's size")
@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk(base: Path, filled: Path, kept: bool) -> None:
    """Files end after 100 bytes, as on a full disk: modules are compiled in memory, with one warning."""
    base.mkdir(exist_ok=True)
    if kept:
        shutil.copytree(filled, base / "spyke_numba")
    out, errors = ended(start(base, ONE, "100"))
    assert out == "7 True" and errors.count("RuntimeWarning") == 1 and "File too large" in errors
    assert not list((base / "spyke_numba").glob("*.tmp"))
    assert load() == (7, not kept)


def test_a_faulty_text_says_so_itself(base: Path) -> None:
    with pytest.raises(Exception, match="nothing_of_that_name"):
        load(TEXT.replace("3 * n", "nothing_of_that_name(n)"))
    assert load() == (7, True)
