"""Looking inside a network while it reads one example.

| | here |
|---|---|
| every intermediate value with its shape, in order | ``steps.py`` |
| who looks at whom: attention of every head, over a text or an image; rollout | ``attention.py`` |
| what every layer would say: the logit lens | ``lens.py`` |

Each prints, shows itself in a notebook, and saves one SVG that stands by itself; the network is left as it was.
"""

from groundup.inside.attention import AttentionMaps, Heads, ImageAttention, attention_maps, image_attention, rollout
from groundup.inside.example import Example, example
from groundup.inside.lens import Lens, logit_lens
from groundup.inside.steps import Step, Steps, trace_steps

__all__ = [
    "AttentionMaps",
    "Example",
    "Heads",
    "ImageAttention",
    "Lens",
    "Step",
    "Steps",
    "attention_maps",
    "example",
    "image_attention",
    "logit_lens",
    "rollout",
    "trace_steps",
]
