"""The parts that networks share and that are lessons themselves: embeddings, positions, attention, normalization, feed-forward maps.

Every file holds a part twice where a paper gives it as pseudocode: first the naive form, a function in the paper's
letters that follows the page line by line (one sequence, one token a *column*), then the fast form that the models use,
a module over batches (B, T, D).  ``groundup.proof.algorithms`` proves the two equal.

The pseudocode is that of Phuong & Hutter 2022, "Formal Algorithms for Transformers", arXiv:2207.09238:

| algorithm | | here |
|---|---|---|
| 1, 2, 7 | token embedding, positional embedding, unembedding | ``nn/embedding.py`` |
| 3, 4, 5 | single-query attention, attention, multi-head attention | ``nn/attention.py`` |
| 6 | layer normalization | ``nn/norm.py`` |
| 8, 11, 15 | EDTransformer, EDTraining, EDInference | ``models/transformer.py`` |
| 9, 12 | ETransformer, ETraining | ``models/bert.py`` |
| 10, 13, 14 | DTransformer, DTraining, DInference | ``models/gpt.py`` |
"""
