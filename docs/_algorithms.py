"""The fifteen algorithms in our own words, each with the function that follows it; the page docs/algorithms.md is made of it."""

from __future__ import annotations

from typing import NamedTuple


class Algorithm(NamedTuple):
    """One algorithm.

    Attributes:
        number: the paper's.
        title: its name.
        function: module:name of the form that follows the page.
        used: what the models run.
        text: pseudocode.
    """

    number: int
    title: str
    function: str
    used: str
    text: str


ALGORITHMS = [
    Algorithm(1, "Token embedding", "groundup.nn.embedding:token_embedding", "`torch.nn.Embedding`", """
given    a token v, a matrix W_e with a column for every token
answer   column v of W_e
"""),
    Algorithm(2, "Positional embedding", "groundup.nn.embedding:positional_embedding", "`Embedding`, `nn.embedding.sinusoids`", """
given    a position t, a matrix W_p with a column for every position
answer   column t of W_p, to be added to the token's
"""),
    Algorithm(3, "Attention of a single query", "groundup.nn.attention:single_query_attention", "`nn.attention.MultiHeadAttention`", """
given    a token's vector e, the vectors e_1 .. e_T of its context
the token asks            q   = W_q e + b_q
each context token has    k_t = W_k e_t + b_k   a key
                          v_t = W_v e_t + b_v   a value
how well they match       a_t = exp(q . k_t / sqrt(d_attn)),  divided by their sum
answer   the sum of a_t v_t
"""),
    Algorithm(4, "Attention", "groundup.nn.attention:attention", "`nn.attention.MultiHeadAttention`", """
given    X, the tokens that ask; Z, those that answer; a Mask
Q = W_q X + b_q 1'     K = W_k Z + b_k 1'     V = W_v Z + b_v 1'
S = K' Q
where the Mask is false, S becomes minus infinity
answer   V softmax(S / sqrt(d_attn)), the softmax over each column
"""),
    Algorithm(5, "Multi-head attention", "groundup.nn.attention:mh_attention", "`nn.attention.MultiHeadAttention`", """
given    X, Z, a Mask, weights of H heads
for each head h:   Y_h = attention(X, Z | its weights, Mask)
stack the Y_h one under another to Y
answer   W_o Y + b_o 1'
"""),
    Algorithm(6, "Layer normalization", "groundup.nn.norm:layer_norm", "`nn.norm.LayerNorm`", """
given    a token's activations e; a scale and a shift for each component
m = mean of the components
v = mean of their squared distances from m      (divided by d_e, not d_e - 1)
answer   (e - m) / sqrt(v), scaled and shifted
"""),
    Algorithm(7, "Unembedding", "groundup.nn.embedding:unembedding", "a matrix product; softmax only where probabilities are wanted", """
given    a token's final vector e, a matrix W_u with a row for every token
answer   softmax(W_u e), a distribution over the vocabulary
"""),
    Algorithm(8, "EDTransformer", "groundup.models.transformer:ed_transformer", "`models.transformer.Transformer`", """
given    a source z and a target x, both sequences of tokens
embed z with its positions to Z
for each encoder layer:
    Z = norm(Z + attention of Z to Z, unmasked)
    Z = norm(Z + W_2 relu(W_1 Z + b_1) + b_2)
embed x with its positions to X
for each decoder layer:
    X = norm(X + attention of X to X, causal)
    X = norm(X + attention of X to Z, unmasked)
    X = norm(X + W_2 relu(W_1 X + b_1) + b_2)
answer   the unembedding of each column of X
"""),
    Algorithm(9, "ETransformer", "groundup.models.bert:e_transformer", "`models.bert.BERT`", """
given    a sequence x of tokens, some of them hidden
embed x with its positions to X
for each layer:
    X = norm(X + attention of X to X, unmasked)
    X = norm(X + W_2 gelu(W_1 X + b_1) + b_2)
X = norm(gelu(W_f X + b_f))
answer   the unembedding of each column of X
"""),
    Algorithm(10, "DTransformer", "groundup.models.gpt:d_transformer", "`models.gpt.GPT`", """
given    a sequence x of tokens
embed x with its positions to X
for each layer:
    X = X + attention of norm(X) to itself, causal
    X = X + W_2 gelu(W_1 norm(X) + b_1) + b_2
X = norm(X)
answer   the unembedding of each column: column t tells of token t + 1
"""),
    Algorithm(11, "EDTraining", "groundup.models.transformer:ed_training", "the fast network, any optimizer", """
given    pairs of source and target, first weights, a rate, epochs
for each epoch, for each pair (z, x):
    P = EDTransformer(z, x without its last token)
    loss = minus the sum over t of log P[x[t + 1], t]
    weights = weights - rate * gradient of the loss
"""),
    Algorithm(12, "ETraining", "groundup.models.bert:e_training", "the fast network, any optimizer", """
given    sequences, first weights, a rate, epochs, a probability
for each epoch, for each sequence x:
    hide each token with that probability
    P = ETransformer(x with hidden tokens replaced)
    loss = minus the sum over hidden t of log P[x[t], t]
    weights = weights - rate * gradient of the loss
"""),
    Algorithm(13, "DTraining", "groundup.models.gpt:d_training", "the fast network, any optimizer", """
given    sequences, first weights, a rate, epochs
for each epoch, for each sequence x:
    P = DTransformer(x)
    loss = minus the sum over t of log P[x[t + 1], t]
    weights = weights - rate * gradient of the loss
"""),
    Algorithm(14, "DInference", "groundup.models.gpt:d_inference", "`generation.generate` over a cache", """
given    a prompt x, how many tokens to write, a temperature
repeat so many times:
    p = last column of DTransformer(x)
    draw y from p ^ (1 / temperature), normalized
    append y to x
answer   what was appended
"""),
    Algorithm(15, "EDInference", "groundup.models.transformer:ed_inference", "`generation.generate` over caches", """
given    a source z, a temperature
x = the begin token
until the end token comes:
    p = last column of EDTransformer(z, x)
    draw y from p ^ (1 / temperature), normalized
    append y to x
answer   x
"""),
]  # fmt: skip
