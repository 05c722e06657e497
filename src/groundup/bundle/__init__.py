"""The border: what leaves training and enters serving.  NumPy alone."""

from groundup.bundle.manifest import Bundle, write_bundle
from groundup.bundle.proof import Proof
from groundup.bundle.signature import Field, Signature

__all__ = ["Bundle", "Field", "Proof", "Signature", "write_bundle"]
