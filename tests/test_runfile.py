"""Files of runs: written block by block, whole or not at all."""

from __future__ import annotations

import json
import os
import tracemalloc

import numpy as np
import pytest

from spyke_numba.results.runfile import RunWriter, check_output, load_description, load_run, replacing


def write(path, description, *blocks, **options):
    with RunWriter(path, **options) as writer:
        for block in blocks:
            writer.append(block)
        writer.finish(description)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32, np.float64])
def test_round_trip(tmp_path, dtype):
    whole = (np.arange(7 * 2 * 3).reshape(7, 2, 3) % 5).astype(dtype)
    others = np.arange(7.0)
    blocks = [{"spikes": whole[a:b, :, ::-1], "u": others[a:b]} for a, b in ((0, 3), (3, 3), (3, 7))]
    description = {"text": "µ", "list": [1, 2.5, None]}
    write(tmp_path / "run.npz", description, *blocks)
    arrays, found = load_run(tmp_path / "run.npz")
    assert found == load_description(tmp_path / "run.npz") == description
    assert set(arrays) == {"spikes", "u"}
    assert np.array_equal(arrays["spikes"], whole[:, :, ::-1])
    assert arrays["spikes"].dtype == dtype
    assert np.array_equal(arrays["u"], others)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as plain:  # readable without this package
        assert np.array_equal(plain["u"], others)
        assert json.loads(plain["description"].tobytes()) == description
    assert os.listdir(tmp_path) == ["run.npz"]


def test_memory_does_not_grow_with_the_run(tmp_path):
    block = {"u": np.random.default_rng(0).random((100, 1000))}

    def peak(count):
        tracemalloc.start()
        write(tmp_path / f"{count}.npz", {}, *[block] * count)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(40) < 1.2 * peak(4) + 1e6


def test_blocks_must_fit_together(tmp_path):
    for wrong in (np.zeros((2, 4)), np.zeros((2, 3), np.float32)):
        with pytest.raises(ValueError, match="blocks of one run"), RunWriter(tmp_path / "run.npz") as writer:
            writer.append({"u": np.zeros((2, 3))})
            writer.append({"u": wrong})
    with pytest.raises(ValueError, match="another name"), RunWriter(tmp_path / "run.npz") as writer:
        writer.append({"description": np.zeros(2)})
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_without_finish_or_after_an_error(tmp_path):
    (tmp_path / "run.npz").write_bytes(b"old")
    with RunWriter(tmp_path / "run.npz", force=True) as writer:
        writer.append({"u": np.zeros(3)})
    with pytest.raises(ZeroDivisionError), RunWriter(tmp_path / "run.npz", force=True) as writer:
        writer.append({"u": np.zeros(3)})
        raise ZeroDivisionError
    with pytest.raises(TypeError), RunWriter(tmp_path / "run.npz", force=True) as writer:
        writer.append({"u": np.zeros(3)})
        writer.finish({"not for JSON": object()})
    assert os.listdir(tmp_path) == ["run.npz"]
    assert (tmp_path / "run.npz").read_bytes() == b"old"


def test_outputs_are_checked(tmp_path):
    (tmp_path / "there.npz").write_bytes(b"old")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileExistsError, match="force"):
        RunWriter(tmp_path / "there.npz")
    assert check_output(tmp_path / "there.npz", force=True) == tmp_path / "there.npz"
    with pytest.raises(IsADirectoryError, match="folder"):
        RunWriter(tmp_path / "folder.npz", force=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        RunWriter(tmp_path / "none" / "run.npz")
    with pytest.raises(ValueError, match=r"\.npz"):
        RunWriter(tmp_path / "run.txt")


def test_replacing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "plain.npz", u=np.zeros(3))
    np.savez(tmp_path / "list.npz", description=np.frombuffer(b"[1]", np.uint8))
    np.savez(tmp_path / "number.npz", description=np.zeros(3))
    for name in ("text.npz", "plain.npz", "list.npz", "number.npz"):
        for load in (load_run, load_description):
            with pytest.raises(ValueError, match="not the file of a run"):
                load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_run(tmp_path / "none.npz")
