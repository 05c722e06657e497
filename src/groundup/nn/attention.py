"""Attention: each token asks all others, and takes a mean of their values weighted by how well their keys answer.

Paper: Phuong & Hutter 2022, arXiv:2207.09238, algorithms 3-5, after Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
Keys and values shared by several heads: Shazeer 2019, arXiv:1911.02150 (multi-query) and Ainslie et al. 2023,
arXiv:2305.13245 (grouped-query).

    q_t = W_q x_t + b_q,  k_s = W_k z_s + b_k,  v_s = W_v z_s + b_v
    ṽ_t = Σ_s α_ts v_s,   α_ts = softmax over s of q_tᵀ k_s / √d_attn where Mask[s, t], else 0

What is unusual: the three projections of self-attention are one matrix product (each row block is a head's q, then all
k, then all v), since on small networks the number of calls costs more than their size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.nn.cache import LayerCache
from groundup.nn.position import Rotation
from groundup.nn.trace import Trace


class QKV(NamedTuple):
    """Weights of one head, W_qkv: W_q, W_k (d_attn, d_x), (d_attn, d_z); W_v (d_out, d_z); b_q, b_k, b_v."""

    W_q: Tensor
    b_q: Tensor
    W_k: Tensor
    b_k: Tensor
    W_v: Tensor
    b_v: Tensor


class MH(NamedTuple):
    """Weights of H heads: each head's W_qkv, and W_o (d_out, H · d_mid), b_o (d_out,)."""

    heads: tuple[QKV, ...]
    W_o: Tensor
    b_o: Tensor


def single_query_attention(e: Tensor, E: Tensor, W: QKV) -> Tensor:
    """Algorithm 3: what one token takes from its context.

    Args:
        e: (d_in,), the current token.
        E: (d_in, T), the context, one column a token.

    Returns:
        ṽ, (d_out,): token and context in one vector.
    """
    q = W.W_q @ e + W.b_q  # (d_attn,)
    k = [W.W_k @ e_t + W.b_k for e_t in E.T]
    v = [W.W_v @ e_t + W.b_v for e_t in E.T]
    score = torch.stack([torch.exp(q @ k_t / math.sqrt(len(q))) for k_t in k])
    α = score / score.sum()  # (T,)
    return torch.stack([α_t * v_t for α_t, v_t in zip(α, v, strict=True)]).sum(0)


def attention(X: Tensor, Z: Tensor, W: QKV, Mask: Tensor) -> Tensor:
    """Algorithm 4: every token of X attends to those of Z that the mask lets it see; X = Z is self-attention.

    Args:
        X: (d_x, l_x), the tokens that ask.
        Z: (d_z, l_z), the tokens that answer.
        Mask: (l_z, l_x), true where token t_x may look at token t_z: all true without a mask, [t_z <= t_x] for a
            causal one; each column has a true at least.

    Returns:
        Ṽ, (d_out, l_x).
    """
    Q = W.W_q @ X + W.b_q[:, None]  # (d_attn, l_x)
    K = W.W_k @ Z + W.b_k[:, None]  # (d_attn, l_z)
    V = W.W_v @ Z + W.b_v[:, None]  # (d_out, l_z)
    S = K.T @ Q  # (l_z, l_x)
    S = torch.where(Mask, S, -torch.inf)
    return V @ torch.softmax(S / math.sqrt(len(Q)), dim=0)


def mh_attention(X: Tensor, Z: Tensor, W: MH, Mask: Tensor) -> Tensor:
    """Algorithm 5: H attentions side by side, and a linear map of what they found.

    Args:
        X: (d_x, l_x).
        Z: (d_z, l_z).
        Mask: (l_z, l_x).

    Returns:
        Ṽ, (d_out, l_x).
    """
    Y = torch.cat([attention(X, Z, head, Mask) for head in W.heads])  # (H · d_mid, l_x)
    return W.W_o @ Y + W.b_o[:, None]


class MultiHeadAttention(nn.Module):
    """Algorithm 5 over batches, for self- and cross-attention, with fewer key heads, rotary positions and a cache where asked.

    Args:
        d_model: width D of the tokens that ask, and of the answer.
        n_heads: H.
        n_kv_heads: heads that keys and values have; H / n_kv_heads query heads share each. H where left out.
        d_head: width of one head; D / H where left out.
        d_context: width of the tokens that answer, for cross-attention; left out, the tokens ask themselves.
        bias: whether q, k, v have biases.
        out_bias: whether the output has one; as ``bias`` where left out.
        dropout: share of the weights α that is zeroed in training.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        d_context: int | None = None,
        bias: bool = True,
        out_bias: bool | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads or n_heads, d_head or d_model // n_heads
        self.dropout = dropout
        d_q, d_kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        if d_context is None:
            self.qkv = nn.Linear(d_model, d_q + 2 * d_kv, bias=bias)
        else:
            self.q = nn.Linear(d_model, d_q, bias=bias)
            self.kv = nn.Linear(d_context, 2 * d_kv, bias=bias)
        self.out = nn.Linear(d_q, d_model, bias=bias if out_bias is None else out_bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D), the tokens that ask.
            context: (B, S, d_context), those that answer; x itself where the module was built without ``d_context``.
            mask: bool, broadcastable to (B, H, T, S), true where token t may look at token s; each row has a true at least.
            bias: broadcastable to (B, H, T, S), added to the scores q·k / √d_head (relative positions).
            causal: token t looks at those up to itself only, the last of the T standing at the end of the S.
            rotation: applied to queries and keys.
            cache: keys and values of the tokens before x are read from it and x's are added (self-attention), or the
                context's are kept and not computed again (cross-attention).
            trace: is shown the weights α (B, H, T, S); slower, since they are then computed one after another.

        Returns:
            (B, T, D).
        """
        q, k, v = self._project(x, context, cache)  # (B, H, T, d), (B, H_kv, S, d) twice
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        if cache is not None and hasattr(self, "qkv"):
            k, v = cache.append(k, v)
        T, S = q.shape[2], k.shape[2]
        is_causal = causal and T > 1  # a single token is the last one, and sees all
        if is_causal and (T != S or mask is not None or bias is not None or trace is not None):
            # is_causal of PyTorch counts from the first key, a cache from the last
            lower = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
            mask, is_causal = lower if mask is None else mask & lower, False
        p = self.dropout if self.training else 0.0
        if trace is not None:
            y = self._weighted(q, k, v, mask, bias, p, trace)
        else:
            if bias is not None:
                mask = bias.to(q.dtype) if mask is None else torch.where(mask, bias, -torch.inf).to(q.dtype)
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=p, is_causal=is_causal, enable_gqa=self.n_kv_heads != self.n_heads)
        answer: Tensor = self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, d) -> (B, T, H · d) -> (B, T, D)
        return answer

    def _project(self, x: Tensor, context: Tensor | None, cache: LayerCache | None) -> tuple[Tensor, Tensor, Tensor]:
        H, H_kv, d = self.n_heads, self.n_kv_heads, self.d_head
        if hasattr(self, "qkv"):
            q, k, v = self.qkv(x).unflatten(2, (H + 2 * H_kv, d)).transpose(1, 2).split((H, H_kv, H_kv), dim=1)
            return q, k, v
        q = self.q(x).unflatten(2, (H, d)).transpose(1, 2)
        if cache is not None and cache.length:
            return q, *cache.read()
        k, v = self.kv(context).unflatten(2, (2 * H_kv, d)).transpose(1, 2).chunk(2, dim=1)
        if cache is not None:
            k, v = cache.append(k, v)
        return q, k, v

    def _weighted(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, p: float, trace: Trace) -> Tensor:
        """Algorithm 4's last three lines over batches, one after another, so that α can be looked at."""
        share = self.n_heads // self.n_kv_heads
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        S = q @ k.mT / math.sqrt(self.d_head)  # (B, H, T, S)
        if bias is not None:
            S = S + bias
        if mask is not None:
            S = S.masked_fill(~mask, -torch.inf)
        α = torch.softmax(S, dim=-1)
        trace.see("attention", α)
        return F.dropout(α, p) @ v if p else α @ v

    def weights(self) -> MH:
        """The same weights as Algorithm 5's page has them; shared keys and values are repeated.  Biases that are not there are zero."""
        H, H_kv, d = self.n_heads, self.n_kv_heads, self.d_head
        if hasattr(self, "qkv"):
            sizes = (H * d, H_kv * d, H_kv * d)
            Ws, bs = self.qkv.weight.split_with_sizes(sizes), _bias(self.qkv).split_with_sizes(sizes)
        else:
            Ws = (self.q.weight, *self.kv.weight.chunk(2))
            bs = (_bias(self.q), *_bias(self.kv).chunk(2))
        (W_q, W_k, W_v), (b_q, b_k, b_v) = ([W.reshape(-1, d, *W.shape[1:]) for W in of] for of in (Ws, bs))
        kv = [h * H_kv // H for h in range(H)]
        heads = tuple(QKV(W_q[h], b_q[h], W_k[s], b_k[s], W_v[s], b_v[s]) for h, s in enumerate(kv))
        return MH(heads, self.out.weight, _bias(self.out))


def _bias(linear: nn.Linear) -> Tensor:
    return linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
