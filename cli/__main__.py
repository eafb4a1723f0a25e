"""``python -m spyke_numba.cli``."""

from __future__ import annotations

from spyke_numba.cli.main import main

if __name__ == "__main__":
    main(prog_name="spyke-numba")
