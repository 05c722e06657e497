"""Fitting models to arrays: the loop, what it is made of, checkpoints that execute nothing, and the search for settings."""

import os

# GNU OpenMP, which PyTorch's CPU kernels run on, lets idle threads spin for milliseconds.  On a machine with other work
# that starves the thread they wait for: small networks were seen training a hundred times slower.  1000 turns are
# microseconds, after which they sleep; as fast on a quiet machine.  Read when PyTorch is loaded, so it must be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
