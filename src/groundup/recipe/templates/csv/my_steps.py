"""Functions of your own, named under `steps` in the recipe."""

from pandas import DataFrame


def clean(frame: DataFrame) -> DataFrame:
    """A piece of the table as it was read, to the same piece without what should not be learned from."""
    return frame[frame["contract"] != "internal"]  # our own accounts never leave
