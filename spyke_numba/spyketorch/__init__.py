"""SpykeTorch's modules on compiled layers; users import `spyke_numba.neurons` and `spyke_numba.functional`."""
