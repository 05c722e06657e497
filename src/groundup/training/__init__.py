"""Fitting models to arrays: the loop, what it is made of, and checkpoints that execute nothing."""
