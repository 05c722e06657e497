"""BERT: the pages of algorithms 9 and 12, checkpoints both ways with every head, what must not matter, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.models.bert import BERT, PRESETS, PretrainingScores, e_training, e_transformer
from groundup.nn.trace import Trace
from groundup.proof.bert import prove
from groundup.proof.compare import difference
from groundup.proof.pretrained import draw

V, D, T = 61, 35, 13
SIZES: dict[str, Any] = {"vocab_size": V, "n_layers": 2, "n_heads": 5, "d_model": D, "d_ff": 37, "context": 17}
HEADS = {
    "pretraining": "BertForPreTraining",
    "masked-lm": "BertForMaskedLM",
    "next-sentence": "BertForNextSentencePrediction",
    "classification": "BertForSequenceClassification",
    "span": "BertForQuestionAnswering",
}
every_head = pytest.mark.parametrize("head", HEADS)


def bert(head: str, seed: int = 0, **more: Any) -> BERT:
    n_outputs = {"n_outputs": 11} if head == "classification" else {}
    network = BERT(head=head, **(SIZES | n_outputs | more))
    draw(network, seed)
    return network.double()


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(1, V, shape, generator=torch.Generator().manual_seed(seed))


def flat(out: Any) -> Tensor:
    return torch.cat([scores.flatten() for scores in out]) if isinstance(out, PretrainingScores) else out.flatten()


def theirs(out: Any) -> Tensor:
    if "prediction_logits" in out:
        return torch.cat([out.prediction_logits.flatten(), out.seq_relationship_logits.flatten()])
    return (torch.stack([out.start_logits, out.end_logits], dim=-1) if "start_logits" in out else out.logits).flatten()


def test_equals_transformers(seed: int) -> None:
    proofs = prove((seed,))
    assert len(proofs) == 10
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))


@every_head
def test_transformers_opens_what_is_saved(head: str, seed: int, tmp_path: Path) -> None:
    network, x = bert(head, seed), tokens(seed, 3, T)
    network.save_pretrained(tmp_path)
    other, found = getattr(transformers, HEADS[head]).from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert other.dtype == torch.float64
    assert difference(flat(network(x)), theirs(other.eval()(x))) < 1e-10
    again = BERT.from_pretrained(tmp_path)
    assert torch.equal(flat(again(x)), flat(network(x)))
    assert again.to_config() == network.to_config()


def test_page_and_module_agree(seed: int) -> None:
    for head in ("masked-lm", "pretraining"):
        network, x, s = bert(head, seed), tokens(seed, T), (torch.arange(T) >= 5).long()
        out = network(x[None], types=s[None])
        scores = out.masked_lm if isinstance(out, PretrainingScores) else out
        P = e_transformer(x.tolist(), network.theta(), network.eps, s.tolist())
        assert P.shape == (V, T)
        assert difference(P, torch.softmax(scores[0], dim=-1).T) < 1e-12


def test_training_of_the_page_is_gradient_descent_on_hidden_tokens(seed: int) -> None:
    data, η, p_mask, hide = [tokens(seed + i, n).tolist() for i, n in enumerate((7, 1, 11))], 0.05, 0.3, 59
    page, module = bert("masked-lm", seed), bert("masked-lm", seed)
    e_training(data, page, η, 2, p_mask, hide, torch.Generator().manual_seed(seed))
    generator, n_hidden = torch.Generator().manual_seed(seed), 0
    optimizer = torch.optim.SGD(module.parameters(), lr=η)
    for x in [torch.tensor(each) for each in data * 2]:
        at = torch.rand(len(x), generator=generator) < p_mask
        n_hidden += int(at.sum())
        scores = module(torch.where(at, hide, x)[None], at=at[None])
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, x[at], reduction="sum").backward()
        optimizer.step()
    assert n_hidden > 0
    assert not torch.equal(page.tokens.weight, bert("masked-lm", seed).tokens.weight)
    for a, b in zip(page.parameters(), module.parameters(), strict=True):
        assert difference(a, b) < 1e-11


@every_head
def test_padding_does_not_matter(head: str, seed: int) -> None:
    network, lengths = bert(head, seed), (7, 13, 1)
    rows = [tokens(seed + n, n) for n in lengths]
    types = [(torch.arange(n) >= 3).long() for n in lengths]
    alone = [network(x[None], types=s[None]) for x, s in zip(rows, types, strict=True)]
    for left in (False, True):
        x, s = torch.zeros(3, 17, dtype=torch.long), torch.ones(3, 17, dtype=torch.long)
        mask = torch.zeros(3, 17, dtype=torch.bool)
        for i, n in enumerate(lengths):
            at = slice(17 - n, 17) if left else slice(n)
            x[i, at], s[i, at], mask[i, at] = rows[i], types[i], True
        out = network(x, types=s, mask=mask)
        each = zip(*out, strict=True) if isinstance(out, PretrainingScores) else [(row,) for row in out]
        for i, parts in enumerate(each):
            expected = alone[i] if isinstance(alone[i], tuple) else (alone[i],)
            for part, wanted in zip(parts, expected, strict=True):
                assert difference(part[mask[i]] if len(part) == 17 else part, wanted[0]) < 1e-12


@every_head
def test_packed_documents_do_not_see_each_other(head: str, seed: int) -> None:
    network = bert(head, seed)
    a, b, c = (tokens(seed + n, n) for n in (5, 8, 11))
    alone = [network(x[None]) for x in (a, b, c)]
    x = torch.stack([torch.cat([a, b]), torch.cat([c, torch.zeros(2, dtype=torch.long)])])
    segments = torch.tensor([[0] * 5 + [1] * 8, [2] * 11 + [9] * 2])
    out = network(x, segments=segments, mask=segments < 9)
    words, documents = out if isinstance(out, PretrainingScores) else (out, out)
    if head not in ("next-sentence", "classification"):
        for rows, expected in ((words[0, :5], alone[0]), (words[0, 5:], alone[1]), (words[1, :11], alone[2])):
            assert difference(rows, (expected.masked_lm if isinstance(expected, PretrainingScores) else expected)[0]) < 1e-12
    if head not in ("masked-lm", "span"):
        assert len(documents) == 3
        for row, expected in zip(documents, alone, strict=True):
            assert difference(row, (expected.next_sentence if isinstance(expected, PretrainingScores) else expected)[0]) < 1e-12


def test_scores_of_chosen_tokens_alone(seed: int) -> None:
    network, x = bert("pretraining", seed), tokens(seed, 3, T)
    at = torch.rand(3, T, generator=torch.Generator().manual_seed(seed)) < 0.4
    whole, part = network(x), network(x, at=at)
    assert difference(part.masked_lm, whole.masked_lm[at]) < 1e-12
    assert torch.equal(part.next_sentence, whole.next_sentence)


@every_head
def test_dropout_stands_where_theirs_does(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dropout that stretches everything by 1 + p in place of chance, training networks must still be equal."""
    network, x = bert(head, dropout=0.2, attention_dropout=0.3), tokens(0, 3, T)
    network.save_pretrained(tmp_path)
    other = getattr(transformers, HEADS[head]).from_pretrained(tmp_path, attn_implementation="eager")
    assert difference(flat(network(x)), theirs(other.eval()(x))) < 1e-10
    monkeypatch.setattr(nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False: x * (1 + p) if training else x)
    stretched = flat(network.train()(x, trace=Trace()))
    assert difference(stretched, theirs(other.train()(x))) < 1e-10
    assert difference(stretched, flat(network.eval()(x))) > 1e-3


def test_dropout_is_drawn_in_training_alone() -> None:
    x = tokens(0, 3, T)
    for which in ("dropout", "attention_dropout"):
        network = bert("classification", **{"dropout": 0.0, "attention_dropout": 0.0, which: 0.5})
        torch.manual_seed(0)
        assert torch.equal(network(x), network(x))
        assert not torch.equal(network.train()(x), network(x)), which
    assert bert("span", dropout=0.25).attention_dropout == 0.25


def test_trace_shows_what_is_computed(seed: int) -> None:
    network, x, trace = bert("classification", seed), tokens(seed, 3, T), Trace()
    assert difference(network(x, trace=trace), network(x)) < 1e-12
    layers = [f"block.{i}.{name}" for i in range(2) for name in ("attention", "output")]
    assert list(trace.values) == ["embedding", *layers, "pooled", "logits"]
    assert [a.shape for a in trace.find("attention")] == [(3, 5, T, T)] * 2


def test_names_of_the_oldest_checkpoints(tmp_path: Path) -> None:
    """As bert-base-uncased: γ and β by those names, a second copy of the unembedding, and the other pre-training head."""
    network, x = bert("masked-lm"), tokens(0, 3, T)
    network.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in load_file(file).items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in weights
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    weights["cls.seq_relationship.weight"], weights["bert.pooler.dense.bias"] = torch.zeros(2, D), torch.zeros(D)
    weights["bert.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, file)
    assert torch.equal(BERT.from_pretrained(tmp_path)(x), network(x))
    weights["cls.predictions.decoder.weight"] += 1
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"cls.predictions.decoder.weight is a second copy of bert.embeddings.word_embeddings.weight"):
        BERT.from_pretrained(tmp_path)
    del weights["cls.predictions.decoder.weight"]
    weights["classifier.weight"] = torch.zeros(2, D)
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"surplus: classifier\.weight"):
        BERT.from_pretrained(tmp_path)


def reference(name: str, folder: Path, **more: Any) -> Any:
    sizes = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 37}
    network = draw(getattr(transformers, name)(transformers.BertConfig(**sizes, max_position_embeddings=17, **more)), seed=0)
    network.save_pretrained(folder)  # type: ignore[operator]
    return network


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification"])
def test_a_new_head_on_an_old_trunk(name: str, tmp_path: Path) -> None:
    pretrained, x = reference(name, tmp_path), tokens(0, 3, T)
    torch.manual_seed(0)
    network = BERT.from_pretrained(tmp_path, fresh_head={"head": "classification", "n_outputs": 11})
    trunk = pretrained if name == "BertModel" else pretrained.bert
    trace = Trace()
    assert network(x, trace=trace).shape == (3, 11)
    expected = trunk(x)
    assert difference(trace.values["block.1.output"], expected.last_hidden_state) < 1e-4
    if expected.pooler_output is None:
        assert 0.018 < float(network.pooler.weight.detach().std()) < 0.022
    else:
        assert difference(trace.values["pooled"], expected.pooler_output) < 1e-4
    assert 0.015 < float(network.scores.weight.detach().std()) < 0.025
    assert not network.scores.bias.any()
    span = BERT.from_pretrained(tmp_path, fresh_head={"head": "span"})
    assert span(x).shape == (3, T, 2)


def test_a_trunk_alone_is_no_answer(tmp_path: Path) -> None:
    reference("BertModel", tmp_path)
    with pytest.raises(ModelError, match=r"head is 'BertModel'; expected pretraining, .*; fresh_head of from_pretrained replaces"):
        BERT.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="BERT takes head and n_outputs, got d_model"):
        BERT.from_pretrained(tmp_path, fresh_head={"d_model": 70})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": None}))
    with pytest.raises(ModelError, match=r"missing: cls.predictions.transform.dense.weight"):
        BERT.from_pretrained(tmp_path)


def test_every_key_of_a_configuration(tmp_path: Path) -> None:
    more = {"n_types": 3, "activation": "gelu_tanh", "dropout": 0.2, "attention_dropout": 0.3, "eps": 1e-3}
    arguments = {"head": "classification", "n_outputs": 11} | SIZES | more
    BERT(**arguments).save_pretrained(tmp_path)
    config = transformers.BertConfig.from_pretrained(tmp_path)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.layer_norm_eps) == (0.2, 0.3, 1e-3)
    assert (config.hidden_act, config.type_vocab_size, config.num_labels) == ("gelu_new", 3, 11)
    assert BERT.from_config(config.to_dict()) == arguments
    defaults = transformers.BertConfig(architectures=["BertForMaskedLM"])
    assert BERT.from_config({"architectures": ["BertForMaskedLM"]}) == BERT.from_config(defaults.to_dict())


def test_labels_are_counted(tmp_path: Path) -> None:
    network = reference("BertForSequenceClassification", tmp_path, num_labels=7)
    assert difference(BERT.from_pretrained(tmp_path)(tokens(0, 3, T)), network(tokens(0, 3, T)).logits) < 1e-4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "head is 'BertForTokenClassification'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; expected 'gelu'"),
        ({"num_attention_heads": 11}, "d_model 768 is no multiple of n_heads 11"),
    ],
)
def test_configurations_that_are_another_architecture(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message), torch.device("meta"):
        BERT(**BERT.from_config({"model_type": "bert", "num_hidden_layers": 1} | config))


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ModelError, match="the head span has 2 outputs, not 3"):
        BERT(head="span", n_outputs=3, **SIZES)
    with pytest.raises(ModelError, match="18 tokens, and the context is 17"):
        bert("span")(tokens(0, 1, 18))
    with pytest.raises(ModelError, match="`at` chooses tokens for the masked LM, and the head is span"):
        bert("span")(tokens(0, 1, T), at=torch.ones(1, T, dtype=torch.bool))
    with pytest.raises(ModelError, match="algorithm 9 has a masked LM and GELU; this network has the head masked-lm and relu"):
        bert("masked-lm", activation="relu").theta()


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        n = sum(p.numel() for p in BERT(**PRESETS[name].config).parameters())
    preset = PRESETS[name]
    assert abs(n / preset.published - 1) < 0.005 or f"{n / 1e6:.4g} before that" in preset.source, n


@pytest.mark.parametrize("head", ["classification", "masked-lm"])
def test_exported_graph_takes_any_batch_and_length(head: str, tmp_path: Path) -> None:
    import onnxruntime

    from groundup.models.export import _quiet

    network = bert(head).float()
    example = (tokens(0, 3, T), torch.zeros(3, T, dtype=torch.long), torch.arange(T) < torch.tensor([[T], [7], [3]]))
    axes = {0: torch.export.Dim("B", min=1), 1: torch.export.Dim("T", min=1, max=17)}
    with _quiet():
        program = torch.onnx.export(
            network,
            (example[0],),
            kwargs={"types": example[1], "mask": example[2]},
            dynamo=True,
            opset_version=20,
            input_names=["tokens", "types", "mask"],
            dynamic_shapes={"tokens": axes, "types": axes, "mask": axes},
            verbose=False,
        )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for B, n in ((1, 17), (5, 4), (2, 2), (1, 1)):
        x, s, mask = tokens(n, B, n), torch.ones(B, n, dtype=torch.long), torch.arange(n) < torch.full((B, 1), n)
        mask[0, n // 2 + 1 :] = False
        (scores,) = session.run(None, {"tokens": x.numpy(), "types": s.numpy(), "mask": mask.numpy()})
        assert difference(torch.from_numpy(scores), network(x, types=s, mask=mask)) < 1e-5
