"""Greedy decoding with GPT-2 124M: groundup's graph in 32, 8 and 4 bits beside ``transformers``' generate and our own PyTorch loop.

    python benchmarks/transformers/bench_decoding.py [--rounds 7] [--tokens 64] [--threads 2] [--streams 8]

Random weights (none can be downloaded here; speed does not depend on them), one prompt of 32 tokens, the same continuation length
for all.  Runs are interleaved; tokens a second are medians, ratios are medians of ratios within a round.  A step reads every weight
once, so bytes of weights a token over the measured memory bandwidth is the least time that it can take; the share of that limit
reached is told.  With ``--streams`` the same number of rows are written together and one after another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import transformers

from groundup.bundle import cpu
from groundup.generation import Decoder, Sampling, generate
from groundup.models.decoder_graph import decoder_graph
from groundup.models.gpt import GPT
from groundup.nn.decoding import NetworkDecoder
from groundup.serving.decoder import GraphDecoder

PROMPT = list(range(100, 132))


def bandwidth(threads: int) -> float:
    """Bytes a second that reading memory gives, the best of ten passes over 1 GiB."""
    array = torch.ones(1 << 28)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - began)
    return array.numel() * 4 / best


def read_per_token(decoder: GraphDecoder, bits: int, network: GPT) -> float:
    """Bytes of weights that one step reads: every matrix, once."""
    products = sum(p.numel() for name, p in network.named_parameters() if p.ndim == 2 and "positions" not in name)
    return products * {32: 4.0, 8: 1 + 4 / 32, 4: 0.5 + 4 / 32}[bits]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=8)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    network = GPT(dropout=0.0).eval()
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    decoders: dict[str, Decoder] = {"groundup, PyTorch": NetworkDecoder(network)}
    for bits in (32, 8, 4):
        graph = decoder_graph(network, bits)  # type: ignore[arg-type]
        decoders[f"groundup, {bits} bits"] = GraphDecoder(graph.SerializeToString(), threads=given.threads)

    settings = Sampling(temperature=0, max_tokens=given.tokens)

    def reference() -> list[int]:
        out = theirs.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
            max_new_tokens=given.tokens,
            min_new_tokens=given.tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return [int(t) for t in out[0, len(PROMPT) :]]

    def writes(decoder: Decoder) -> Callable[[], list[int]]:
        return lambda: generate(decoder, [PROMPT], settings)[0].tokens

    runs = {"transformers, fp32": reference, **{name: writes(decoder) for name, decoder in decoders.items()}}
    texts = {name: run() for name, run in runs.items()}  # warm
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            rates[name].append(given.tokens / (time.perf_counter() - began))
    limit = bandwidth(given.threads)
    base = rates["transformers, fp32"]
    print(f"{cpu.description()}, {given.threads} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"memory read at {limit / 1e9:.1f} GB/s; {given.rounds} interleaved rounds, {given.tokens} tokens after {len(PROMPT)}\n")
    print(f"{'':22} {'tokens/s':>9} {'ratio':>7} {'lowest':>7} {'highest':>7}  {'of the bandwidth limit':>23}  same text as transformers")
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(found, base, strict=True)]
        share = ""
        decoder = decoders.get(name)
        if isinstance(decoder, GraphDecoder):
            bits = int(name.split()[1])
            share = f"{statistics.median(found) * read_per_token(decoder, bits, network) / limit:.0%}"
        same = sum(a == b for a, b in zip(texts[name], texts["transformers, fp32"], strict=True))
        print(
            f"{name:22} {statistics.median(found):9.1f} {statistics.median(ratios):6.2f}x {min(ratios):6.2f}x {max(ratios):6.2f}x"
            f"  {share:>23}  {same} of {given.tokens}"
        )
    _together(decoders, given.streams, given.tokens, given.rounds)
    return 0


def _together(decoders: dict[str, Decoder], streams: int, tokens: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 50257, 20 + 3 * i).tolist() for i in range(streams)]
    settings = Sampling(temperature=0, max_tokens=tokens)
    print(f"\n{streams} prompts of different lengths written together beside one after another")
    for name, decoder in decoders.items():
        ratios = []
        for _ in range(max(2, rounds // 2)):
            began = time.perf_counter()
            together = generate(decoder, prompts, settings)
            middle = time.perf_counter()
            alone = [generate(decoder, [prompt], settings)[0] for prompt in prompts]
            ratios.append((time.perf_counter() - middle) / (middle - began))
        same = sum(a == b for a, b in zip(together, alone, strict=True))
        print(f"{name:22} {statistics.median(ratios):6.2f}x  ({min(ratios):.2f} to {max(ratios):.2f}), {same} of {streams} texts the same")


if __name__ == "__main__":
    raise SystemExit(main())
