"""The Python of every page in docs/ runs as it stands and prints what the page says; links lead somewhere."""

from __future__ import annotations

import re

import pytest
from documented import ROOT, blocks, run_block

PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_block(block, tmp_path, monkeypatch, capsys):
    if "import torch" in block.code:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    run_block(block, tmp_path)
    if block.prints is not None:
        assert capsys.readouterr().out == block.prints


def test_every_block_is_found():
    fences = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    assert len(BLOCKS) == fences
    assert any(block.page == "spyketorch.md" and block.prints for block in BLOCKS)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
