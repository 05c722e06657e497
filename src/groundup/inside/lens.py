"""The logit lens: what a network would say if it stopped after each of its layers.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens", LessWrong.

    p_l[t] = softmax(W_u norm(h_l[t]))        h_0 the embedding, h_l the sum after layer l, norm and W_u those of the network

What is unusual: the network's own forward does the unembedding, whatever it is there (tied, scaled, with a bias): it is
called with its ``hidden``, which it unembeds, answering norm(h_l).  So the last layer's lens is the network's answer to the
last bit, and not another way of computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.inside.drawing import SIZE, WIDE, Drawing, box, columns, document, fitted, group, probability
from groundup.inside.running import evaluating, one_example
from groundup.reporting.html import Html
from groundup.reporting.svg import label

_MOST = 10  # columns of a token in a cell
_HEIGHT = 21.0


@dataclass(frozen=True, eq=False, repr=False)
class Lens(Drawing):
    """The most likely tokens after every layer, at every position; prints as a table, draws itself as an SVG.

    Attributes:
        labels: the T tokens of the text.
        layers: names of the L + 1 rows, from the embedding on.
        ids: (L + 1, T, k), the most likely tokens, most likely first.
        probabilities: (L + 1, T, k), theirs.
        logits: (L + 1, T, N_V); the last of them are the network's own.
        name: the text of a token.
    """

    labels: tuple[str, ...]
    layers: tuple[str, ...]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    logits: Tensor
    name: Callable[[int], str]

    def __str__(self) -> str:
        """A position a line, a layer a column: the top token and its probability."""
        head = ["", *self.layers]
        rows = [head]
        for t, token in enumerate(self.labels):
            cells = [f"{fitted(self._top(i, t), _MOST)} {self.probabilities[i, t, 0]:.2f}" for i in range(len(self.layers))]
            rows.append([f"{t} {fitted(token, _MOST)}", *cells])
        widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell + " " * (w - columns(cell)) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def svg(self) -> str:
        """Layers from bottom to top, as they follow one another; long texts in several lines."""
        margin, left = 16.0, 16 + 6.2 * max(map(len, self.layers))
        written = [*self.labels, *(self.name(i) for i in np.unique(self.ids[:, :, 0]).tolist())]
        cell = max(8 + 0.62 * SIZE * max(columns(fitted(text, _MOST)) for text in written), 26)
        across = max(int((WIDE - left) // cell), 1)
        heading = "Below, the text; above each token, what the network would say there if it stopped after that layer."
        more = "Depth of colour is its probability; bold is what the last layer says, too."
        parts = [label(margin, margin + SIZE, heading), label(margin, margin + 2.4 * SIZE, more)]
        y = margin + 2.4 * SIZE + 16
        for start in range(0, len(self.labels), across):
            stop = min(start + across, len(self.labels))
            parts.append(group(margin, y, *self._line(start, stop, left, cell)))
            y += (len(self.layers) + 1) * _HEIGHT + 26
        right = max(left + cell * min(across, len(self.labels)), 6.0 * len(heading))
        return document(parts, right + 2 * margin, y, "Logit lens: the most likely next token after every layer")

    def _line(self, start: int, stop: int, left: float, cell: float) -> Iterator[Html]:
        final = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            y = (final - i) * _HEIGHT
            yield label(left - 8, y + 14.5, layer, anchor="end")
            for t in range(start, stop):
                x, p = left + (t - start) * cell, float(self.probabilities[i, t, 0])
                agrees = self.ids[i, t, 0] == self.ids[final, t, 0]
                yield box(x, y, cell - 1, _HEIGHT - 1, fill="var(--accent)", fill_opacity=f"{0.03 + 0.52 * p:.3f}")
                yield _token(x + cell / 2, y, self._top(i, t), bold=agrees)
                yield box(x, y, cell - 1, _HEIGHT - 1, self._told(i, t), class_="spot")
        y = (final + 1) * _HEIGHT + 4
        yield label(left - 8, y + 14.5, "text", anchor="end", class_="head")
        for t in range(start, stop):
            yield _token(left + (t - start + 0.5) * cell, y, self.labels[t], bold=True)

    def _told(self, i: int, t: int) -> str:
        best = zip(self.ids[i, t].tolist(), self.probabilities[i, t].tolist(), strict=True)
        told = ", ".join(f"{fitted(self.name(v), 40)} {probability(p)}" for v, p in best)
        return f"after {fitted(self.labels[t], 40)} ({t}), {self.layers[i]}: {told}"

    def _top(self, i: int, t: int) -> str:
        return self.name(int(self.ids[i, t, 0]))


def _token(x: float, y: float, text: str, *, bold: bool) -> Html:
    return label(x, y + 14.5, fitted(text, _MOST), anchor="middle", class_="token", style="font-weight: 600" if bold else None)


def logit_lens(
    network: nn.Module, tokens: Sequence[int] | Tensor, *, labels: Sequence[str], name: Callable[[int], str] = str, top: int = 5
) -> Lens:
    """What every layer would say.

    Args:
        network: one with ``blocks``, and a forward that unembeds what ``hidden`` answers: GPT, Llama, PaLM, LaMDA, and BERT
            with a masked-LM head; ``final_norm`` is applied where it has one.  It is left as it was.
        tokens: of the text, (T,).
        labels: a text for each of them.
        name: the text of a token's number.
        top: tokens that are kept of each layer and position.

    Raises:
        ModelError: another kind of network, an empty text or one too long, labels that are not as many as tokens.
    """
    kind = type(network).__name__
    blocks = list(getattr(network, "blocks", []))
    if not blocks or not callable(getattr(network, "hidden", None)):
        raise ModelError(f"{kind} has no logit lens: expected blocks over tokens, and a forward that unembeds what hidden() answers")
    given = one_example(network, tokens)
    if len(labels) != given.shape[1]:
        raise ModelError(f"expected a label for each of the {given.shape[1]} tokens, got {len(labels)}")
    with evaluating(network):
        own = _scores(network(given))
        if own.ndim != 3 or own.shape[:2] != given.shape:
            raise ModelError(
                f"{kind} has no logit lens: it answers {tuple(own.shape)}, no scores of a vocabulary at each of {len(labels)} tokens"
            )
        states = _after_each(network, blocks, given)
        norm = getattr(network, "final_norm", None) or nn.Identity()
        logits = []
        for h in states:
            with _instead_of_hidden(network, norm(h)):
                logits.append(_scores(network(given))[0])
    stacked = torch.stack(logits)  # (L + 1, T, N_V)
    best = stacked.double().softmax(-1).topk(min(top, stacked.shape[-1]))
    layers = ("embedding", *(f"layer {i}" for i in range(len(blocks))))
    return Lens(tuple(labels), layers, best.indices.cpu().numpy(), best.values.cpu().numpy(), stacked, name)


def _after_each(network: Any, blocks: Sequence[nn.Module], tokens: Tensor) -> list[Tensor]:
    """h_0 to h_L, (1, T, D) each, of an ordinary call."""
    states: list[Tensor] = []
    handles = [blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))]
    handles += [block.register_forward_hook(lambda _, args, answer: states.append(answer)) for block in blocks]
    try:
        network(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return states


@contextmanager
def _instead_of_hidden(network: Any, x: Tensor) -> Iterator[None]:
    """``network.hidden`` answers x."""
    network.hidden = lambda *_, **__: x
    try:
        yield
    finally:
        del network.hidden


def _scores(answer: Any) -> Tensor:
    """Scores of the vocabulary, of the masked LM where a head answers more."""
    scores: Tensor = getattr(answer, "masked_lm", answer)
    return scores
