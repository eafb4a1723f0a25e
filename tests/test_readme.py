"""The README's Python runs as it stands, and its two commands are where CI looks for them."""

from __future__ import annotations

import re

import pytest
from documented import ROOT, blocks, run_block

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(ROOT / "README.md")


def run_the_block(tmp_path, containing):
    (block,) = [block for block in BLOCKS if containing in block.code]
    return run_block(block, tmp_path)


def test_layer_example(tmp_path):
    torch = pytest.importorskip("torch")
    names = run_the_block(tmp_path, "KWTA")
    run = names["run"]
    assert run.spikes.dtype == torch.bool
    assert run.spikes.shape == run.u.shape == (100, 4, 30, 28, 28)
    assert run.spikes.any()
    assert run.winners.shape == (100, 4, 5, 3)
    assert run.winners.dtype == torch.int32
    assert names["step"].spikes.shape == (4, 30, 28, 28)


def test_model_example(tmp_path):
    import numpy as np

    layer = run_the_block(tmp_path, "NeuronSpec")["layer"]
    assert layer.run(np.full((1, 100), 0.8), steps=2000).spikes.sum(axis=0).min() > 3


def test_every_block_is_tested():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("marker", ["main job", "tests"])
def test_commands_for_ci(marker):
    (command,) = re.findall(rf"<!-- ci: {marker} -->\n```sh\n(.*?)\n```", README, flags=re.DOTALL)
    assert command.startswith("pip install ")
    assert "\n" not in command


def test_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
