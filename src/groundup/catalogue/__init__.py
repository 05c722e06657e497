"""The catalogue: every model that a recipe can name, found by being there, and every one that it can import.

    model: {name: cnn, width: 64}                                    a file of groundup/models or groundup/estimators
    model: {class: "sklearn.svm:SVC", C: 10}                         any scikit-learn estimator
    model: {class: "my_module:MyNet", width: 64}                     any torch.nn.Module, here beside the recipe

A constructor's signature is the model's configuration: keys, types, defaults and help are read from it.
"""

from groundup.catalogue.entries import Entry, entries, names
from groundup.catalogue.resolve import Resolved, resolve
from groundup.catalogue.section import Model
from groundup.catalogue.sequence import SequenceDescription, describe_sequence
from groundup.catalogue.signature import FILLED, REQUIRED, Parameter
from groundup.catalogue.size import Size
from groundup.catalogue.table import Description, describe, find, table

__all__ = [
    "FILLED",
    "REQUIRED",
    "Description",
    "Entry",
    "Model",
    "Parameter",
    "Resolved",
    "SequenceDescription",
    "Size",
    "describe",
    "describe_sequence",
    "entries",
    "find",
    "names",
    "resolve",
    "table",
]
