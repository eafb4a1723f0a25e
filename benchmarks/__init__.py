"""What the package is measured by: ``spyke-numba bench NAME`` runs one benchmark."""
