"""Writing text: from a network's logits to the next token, to a sequence, to a stream of characters.

The ground floor: NumPy alone, so that training, evaluation and the server choose tokens by the very same code.  What
computes the logits is a :class:`Decoder`; ``groundup.nn.decoding`` makes one of a PyTorch network.
"""

from groundup.generation.beam import beam_search
from groundup.generation.decoder import Decoder
from groundup.generation.loop import Generated, generate, stream
from groundup.generation.sampling import Sampling, choose, distribution
from groundup.generation.stop import StopStrings

__all__ = ["Decoder", "Generated", "Sampling", "StopStrings", "beam_search", "choose", "distribution", "generate", "stream"]
