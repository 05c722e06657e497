"""The naive forms that follow the page, beside the fast forms that are used: Phuong & Hutter's algorithms, link 1.

Everything is computed in float64; what is left is the order of the sums.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import Proof
from groundup.models import bert, gpt, transformer
from groundup.nn import attention, embedding, norm, position
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst
from groundup.proof.pretrained import draw

B, T, S, H, D_HEAD, V = 3, 11, 13, 5, 7, 59
D = H * D_HEAD
Pairs = Iterator[tuple[Tensor, Tensor]]
"""Of the naive value and the fast one."""


def prove(seeds: Sequence[int]) -> list[Proof]:
    """One proof an algorithm; the worst over all seeds."""
    proofs = []
    for claim, pairs in ALGORITHMS.items():
        worst = Worst()
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for naive, fast in pairs():
                    worst.see(fast, naive)
        proofs.append(
            Proof(
                link=1,
                claim=f"{claim}: the form that is used equals the page's (float64)",
                reference="Phuong & Hutter 2022, line by line",
                quantity="largest difference, relative to the tensor's largest value",
                measured=worst.measured,
                tolerance=FLOAT64_TOLERANCE,
                samples=worst.samples,
            )
        )
    return proofs


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _embeddings() -> Pairs:
    W_e = _normal(D, V)
    tokens = torch.randint(V, (T,))
    yield torch.stack([embedding.token_embedding(int(v), W_e) for v in tokens]), F.embedding(tokens, W_e.T)


def _positions() -> Pairs:
    W_p = _normal(D, T)
    yield torch.stack([embedding.positional_embedding(t, W_p) for t in range(T)]), W_p.T[torch.arange(T)]


def _unembedding() -> Pairs:
    E, W_u = _normal(D, T), _normal(V, D) / D**0.5
    yield torch.stack([embedding.unembedding(e, W_u) for e in E.T]), F.linear(E.T, W_u).softmax(-1)


def _single_query() -> Pairs:
    module = attention.MultiHeadAttention(D, 1).double()
    head = module.weights().heads[0]
    x = _normal(1, T, D)
    naive = attention.single_query_attention(x[0, -1], x[0].T, head)  # the last token sees all of them
    yield naive @ module.out.weight.T + module.out.bias, module(x, causal=True)[0, -1]


def _attention() -> Pairs:
    module = attention.MultiHeadAttention(D, 1, d_context=17).double()
    x, z, mask = _normal(1, T, D), _normal(1, S, 17), torch.rand(T, S) < 0.7
    mask[:, 0] = True  # a row without any has no softmax
    naive = attention.attention(x[0].T, z[0].T, module.weights().heads[0], mask.T)
    yield F.linear(naive.T, module.out.weight, module.out.bias), module(x, z, mask=mask)[0]


def _heads() -> Pairs:
    x, z = _normal(B, T, D), _normal(B, S, 17)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    for n_kv_heads in (H, 1):
        module = attention.MultiHeadAttention(D, H, n_kv_heads=n_kv_heads).double()
        W = module.weights()
        yield torch.stack([attention.mh_attention(X.T, X.T, W, causal.T).T for X in x]), module(x, causal=True)
        cross = attention.MultiHeadAttention(D, H, n_kv_heads=n_kv_heads, d_context=17).double()
        all_of_them, W = torch.ones(S, T, dtype=torch.bool), cross.weights()
        yield torch.stack([attention.mh_attention(X.T, Z.T, W, all_of_them).T for X, Z in zip(x, z, strict=True)]), cross(x, z)


def _norms() -> Pairs:
    x = _normal(B, T, D)
    layer, rms = draw(norm.LayerNorm(D), 1).double(), draw(norm.RMSNorm(D), 2).double()
    yield torch.stack([norm.layer_norm(e, layer.weight, layer.bias, layer.eps) for e in x.flatten(0, 1)]).view_as(x), layer(x)  # type: ignore[arg-type]
    yield torch.stack([norm.rms_norm(e, rms.weight, rms.eps) for e in x.flatten(0, 1)]).view_as(x), rms(x)  # type: ignore[arg-type]


def _rotary() -> Pairs:
    x = _normal(B, H, T, 8)
    order = torch.arange(8).view(4, 2).T.flatten()  # the page pairs neighbours, the fast form halves
    ω = position.frequencies(8, dtype=torch.float64)
    fast = position.Rotation(torch.arange(T), 8, inverse_frequencies=ω, dtype=torch.float64)(x[..., order])
    yield torch.stack([position.rotate(v, i % T) for i, v in enumerate(x.flatten(0, 2))]).view_as(x)[..., order], fast


def _small_gpt() -> gpt.GPT:
    network = gpt.GPT(vocab_size=V, n_layers=2, n_heads=3, d_model=21, d_ff=23, context=T, dropout=0.0).double()
    draw(network, int(torch.randint(1 << 30, ())))
    return network


def _d_transformer() -> Pairs:
    network, tokens = _small_gpt(), torch.randint(V, (2, T))
    yield torch.stack([gpt.d_transformer(x.tolist(), network.theta(), network.eps).T for x in tokens]), network(tokens).softmax(-1)


def _d_training() -> Pairs:
    network, x = _small_gpt(), torch.randint(V, (1, T))
    naive = gpt.d_training([x[0].tolist()], copy.deepcopy(network), η=0.1, n_epochs=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(network(x)[0, :-1], x[0, 1:], reduction="sum").backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    yield from zip(naive.parameters(), network.parameters(), strict=True)


def _d_inference() -> Pairs:
    from groundup.generation import Sampling, distribution, generate
    from groundup.nn.decoding import NetworkDecoder

    network, prompt = _small_gpt(), [3, 1, 4]
    naive = gpt.d_inference(prompt, T - len(prompt), network, τ=0.0)
    fast = generate(NetworkDecoder(network), [prompt], Sampling(temperature=0, max_tokens=T - len(prompt)))[0].tokens
    yield torch.tensor(naive).double(), torch.tensor(fast).double()
    p = gpt.d_transformer(prompt, network.theta(), network.eps)[:, -1].detach() ** (1 / 0.7)
    tokens, q = distribution(network(torch.tensor([prompt]))[0, -1].detach().numpy(), prompt, Sampling(temperature=0.7))
    yield (p / p.sum())[torch.from_numpy(tokens)], torch.from_numpy(q)


def _small_transformer() -> transformer.Transformer:
    network = transformer.Transformer(V, None, 2, 3, n_heads=3, d_model=42, d_ff=23, context=S, dropout=0.0).double()
    draw(network, int(torch.randint(1 << 30, ())))
    return network


def _ed_transformer() -> Pairs:
    network, source, target = _small_transformer(), torch.randint(V, (2, S)), torch.randint(V, (2, T))
    θ = network.theta()
    naive = [transformer.ed_transformer(z.tolist(), x.tolist(), θ, transformer.EPS).T for z, x in zip(source, target, strict=True)]
    yield torch.stack(naive), network(source, target).softmax(-1)


def _ed_training() -> Pairs:
    network, z, x = _small_transformer(), torch.randint(V, (1, S)), torch.randint(V, (1, T))
    naive = transformer.ed_training([(z[0].tolist(), x[0].tolist())], copy.deepcopy(network), η=0.01, n_epochs=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(network(z, x)[0, :-1], x[0, 1:], reduction="sum").backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    yield from zip(naive.parameters(), network.parameters(), strict=True)


def _ed_inference() -> Pairs:
    from groundup.generation import Sampling, distribution, generate
    from groundup.nn.decoding import TranslationDecoder

    network, source = _small_transformer(), torch.randint(V, (7,)).tolist()
    start = [network.bos_token]
    naive = transformer.ed_inference(source, network, τ=0.0)
    written = generate(TranslationDecoder(network, [source]), [start], Sampling(temperature=0, max_tokens=S), end=[network.eos_token])[0]
    fast = start + written.tokens + ([network.eos_token] if written.finish == "end" else [])
    yield torch.tensor(naive).double(), torch.tensor(fast).double()
    p = transformer.ed_transformer(source, start, network.theta(), transformer.EPS)[:, -1].detach() ** (1 / 0.7)
    logits = network(torch.tensor([source]), torch.tensor([start]))[0, -1].detach()
    tokens, q = distribution(logits.numpy(), start, Sampling(temperature=0.7))
    yield (p / p.sum())[torch.from_numpy(tokens)], torch.from_numpy(q)


def _small_bert() -> bert.BERT:
    network = bert.BERT(vocab_size=V, n_layers=2, n_heads=3, d_model=21, d_ff=23, context=T, head="masked-lm", dropout=0.0).double()
    draw(network, int(torch.randint(1 << 30, ())))
    return network


def _e_transformer() -> Pairs:
    network, tokens = _small_bert(), torch.randint(V, (2, T))
    yield torch.stack([bert.e_transformer(x.tolist(), network.theta(), network.eps).T for x in tokens]), network(tokens).softmax(-1)


def _e_training() -> Pairs:
    network, x, hide, seed = _small_bert(), torch.randint(V - 1, (T,)), V - 1, int(torch.randint(1 << 30, ()))
    naive = bert.e_training([x.tolist()], copy.deepcopy(network), 0.1, 2, 0.5, hide, torch.Generator().manual_seed(seed))
    optimizer, chance = torch.optim.SGD(network.parameters(), lr=0.1), torch.Generator().manual_seed(seed)
    for _ in range(2):
        hidden = torch.rand(T, generator=chance) < 0.5
        optimizer.zero_grad()
        scores = network(torch.where(hidden, hide, x)[None], at=hidden[None])
        F.cross_entropy(scores, x[hidden], reduction="sum").backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    yield from zip(naive.parameters(), network.parameters(), strict=True)


ALGORITHMS: dict[str, Callable[[], Pairs]] = {
    "algorithm 1, token embedding": _embeddings,
    "algorithm 2, positional embedding": _positions,
    "algorithm 3, single-query attention": _single_query,
    "algorithm 4, attention": _attention,
    "algorithm 5, multi-head attention": _heads,
    "algorithm 6, layer normalization": _norms,
    "algorithm 7, unembedding": _unembedding,
    "algorithm 8, EDTransformer": _ed_transformer,
    "algorithm 9, ETransformer": _e_transformer,
    "algorithm 10, DTransformer": _d_transformer,
    "algorithm 11, EDTraining": _ed_training,
    "algorithm 12, ETraining": _e_training,
    "algorithm 13, DTraining": _d_training,
    "algorithm 14, DInference": _d_inference,
    "algorithm 15, EDInference": _ed_inference,
    "RoFormer's equation 34, rotary positions": _rotary,
}
