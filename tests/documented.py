"""The Python in the project's pages: blocks, what a page says they print, and running them as they stand."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
#: The output may stand in a block of its own, after at most one line such as "It prints:".
BLOCK = re.compile(
    r"^```python\n(.*?)^```$(?:\n\n(?:[^\n`]+\n\n)?```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """Code of a page, and the text that the page says it prints (None if it says nothing)."""

    page: str
    line: int
    code: str
    prints: str | None


def blocks(page: Path) -> list[Block]:
    """Return the Python blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in BLOCK.finditer(text)
    ]


def run_block(block: Block, folder: Path) -> dict[str, Any]:
    """Run a block as a file of its own, in a fresh namespace, and return the names it made."""
    path = folder / "block.py"
    path.write_text(block.code, encoding="utf-8")
    return runpy.run_path(str(path))
