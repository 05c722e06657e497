"""Tokenizers in folders: ours open in transformers, theirs open here, and what is damaged is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.data.tokenizers import ByteLevelBPE, Characters, Library, Tokenizer, WordPiece, load, train
from groundup.errors import DataError
from groundup.proof.tokenizers import documentation

DOCS = documentation()[:8]
BPE = ByteLevelBPE.train(DOCS, 600, extra=["<|user|>"])
PIECES = WordPiece.train(DOCS, 600)
LETTERS = Characters.train(DOCS, roles={"eos": "<end>", "unk": "?"})
TEXTS = [*DOCS[:3], "", "héllo  <|endoftext|> [MASK]\n<|user|>x", "naïve Ångström 😀"]
both = pytest.mark.parametrize("readable", [True, False], ids=["readable", "library"])


@both
@pytest.mark.parametrize("ours", [BPE, PIECES, WordPiece(PIECES.ids, lower_case=False, chinese=False), LETTERS])
def test_saved_and_loaded_it_is_the_same(ours: Tokenizer, readable: bool, tmp_path: Path) -> None:
    ours.save(tmp_path / "a")
    again = load(tmp_path / "a", readable=readable)
    assert isinstance(again, type(ours) if readable else Library)
    assert (again.tokens, again.special, again.special_tokens) == (ours.tokens, ours.special, ours.special_tokens)
    assert again.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]
    again.save(tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "a" / name).read_text()) == json.loads((tmp_path / "b" / name).read_text())


@pytest.mark.extras
@pytest.mark.parametrize("ours", [BPE, PIECES, LETTERS, train("characters", DOCS), train("wordpiece", DOCS, 600)])
def test_transformers_opens_what_we_save(ours: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == ours.vocab_size
    assert {role: getattr(theirs, f"{role}_token_id") for role in ours.special} == ours.special
    for text in TEXTS:
        if ours.to_spec()["model"]["type"] == "WordLevel":
            text = "".join(c for c in text if c in ours.ids)
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    if ours.special.get("cls") is not None:
        pair = theirs("a b", "c d e")
        assert (pair["input_ids"], pair["token_type_ids"]) == ours.encoding("a b", "c d e")[:2]


@pytest.mark.extras
@both
def test_we_open_what_transformers_saves(readable: bool, tmp_path: Path) -> None:
    from transformers import BertTokenizer, GPT2Tokenizer

    gpt2 = GPT2Tokenizer(vocab=BPE.ids, merges=BPE.merges, pad_token="<|endoftext|>")
    for n, theirs in enumerate((gpt2, BertTokenizer(vocab=PIECES.ids), BertTokenizer(vocab=PIECES.ids, do_lower_case=False))):
        theirs.save_pretrained(tmp_path / str(n))
        ours = load(tmp_path / str(n), readable=readable)
        assert ours.special == {role: i for role in ours.special if (i := getattr(theirs, f"{role}_token_id")) is not None}
        assert len(ours.special) >= 3
        for text in TEXTS:
            assert ours.encode(text) == theirs(text)["input_ids"]


@pytest.mark.extras
def test_wordpiece_is_the_python_tokenizer_that_bert_came_with() -> None:
    """transformers keeps the original; where its Unicode and its treatment of odd characters agree with the library's, so do we."""
    from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer

    basic, pieces = BasicTokenizer(do_lower_case=True), WordpieceTokenizer(vocab=PIECES.ids, unk_token="[UNK]")
    for text in (*DOCS, "naïve Ångström, 中文字 x" + "y" * 101 + " don't"):
        tokens = [p for word in basic.tokenize(text) for p in pieces.tokenize(word)]
        assert [PIECES.tokens[i] for i in PIECES.encode(text, add_special=False)] == tokens


@both
@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_gpt2s_older_files(names: tuple[str, str], readable: bool, tmp_path: Path) -> None:
    (tmp_path / names[0]).write_text(json.dumps(BPE.ids))
    (tmp_path / names[1]).write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in BPE.merges), encoding="utf-8")
    found = load(tmp_path, readable=readable)
    assert found.special == {"bos": 0, "eos": 0}
    assert found.encode(DOCS[0]) == BPE.encode(DOCS[0])


@both
def test_berts_older_file(readable: bool, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{t}\n" for t in PIECES.tokens), encoding="utf-8")
    assert load(tmp_path, readable=readable).encode(DOCS[0]) == PIECES.encode(DOCS[0])
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = WordPiece(PIECES.ids, lower_case=False)
    assert load(tmp_path, readable=readable).encode(DOCS[0]) == cased.encode(DOCS[0]) != PIECES.encode(DOCS[0])


@pytest.mark.skipif(not (Path(os.environ.get("GROUNDUP_DATA", "")) / "gpt2_bpe").exists(), reason="GROUNDUP_DATA has no gpt2_bpe")
def test_published_numbers() -> None:
    """GPT-2's and BERT's numbers as their documentation prints them."""
    data = Path(os.environ["GROUNDUP_DATA"])
    gpt2, bert = load(data / "gpt2_bpe", readable=True), load(data / "bert_vocab", readable=True)
    assert (gpt2.vocab_size, gpt2.special["eos"], bert.vocab_size) == (50257, 50256, 30522)
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode(" Hello world") == [18435, 995]
    assert bert.encode("Hello world!") == [101, 7592, 2088, 999, 102]


def test_a_chat_template_and_other_keys_are_kept(tmp_path: Path) -> None:
    ours = ByteLevelBPE(BPE.ids, BPE.merges, {"eos": "<|endoftext|>"}, ["<|user|>"], {"chat_template": "{{ x }}", "bos_token": "dropped"})
    ours.save(tmp_path)
    found = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert found["chat_template"] == "{{ x }}"
    assert "bos_token" not in found
    assert load(tmp_path).config["chat_template"] == "{{ x }}"


def test_truncation_and_padding_of_a_file_do_not_cut_texts(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    cut = {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | cut))
    assert load(tmp_path).encode(DOCS[0]) == load(tmp_path, readable=True).encode(DOCS[0]) == BPE.encode(DOCS[0])


@pytest.mark.parametrize("tokenizer", [BPE, PIECES, LETTERS, Library(BPE.to_spec()), Library(PIECES.to_spec())])
@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda t: t.encode("ab\ud83dc"), "character 2 of the text is the lone surrogate U\\+D83D"),
        (lambda t: t.encoding("a", "\udc00"), "character 0 of the text is the lone surrogate U\\+DC00"),
        (lambda t: t.encode(b"ab"), "expected text, got bytes"),
        (lambda t: t.decode([0, t.vocab_size]), "expected token numbers from 0 to \\d+, got \\d+"),
        (lambda t: t.decode([-1]), "got -1"),
        (lambda t: t.decode(["a"]), "got 'a', a str"),
        (lambda t: t.stream().push(10**9), "got 1000000000"),
    ],
)
def test_bad_input_is_named(tokenizer: Tokenizer, use: Callable[[Tokenizer], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        use(tokenizer)


def test_numbers_of_other_libraries_are_numbers() -> None:
    assert BPE.decode(np.array(BPE.encode("abc"))) == "abc" == Library(BPE.to_spec()).decode(np.array(BPE.encode("abc")))


@both
def test_a_character_without_a_token_is_an_error_not_silence(readable: bool) -> None:
    tokenizer = train("characters", ["ab"], readable=readable)
    with pytest.raises(DataError, match=r"character 2 of the text, 'é', has no token|refuses the text"):
        tokenizer.encode("abé")


_V = BPE.ids


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByteLevelBPE({k: v + (v > 5) for k, v in _V.items()}, []), "no token has 6"),
        (lambda: ByteLevelBPE(_V | {"zz": 3}, []), "two tokens have the number 3|has the numbers 0 to"),
        (lambda: ByteLevelBPE({}, []), "got an empty one"),
        (lambda: ByteLevelBPE({"a": "0"}, []), "expected a number for each token, got '0' for 'a'"),  # type: ignore[dict-item]
        (lambda: ByteLevelBPE({"a": 0}, []), "has no token '!' for the byte 0x21 \\(255 are missing\\)"),
        (lambda: ByteLevelBPE(_V, [("a", "qqq")]), "merge 0 \\('a qqq'\\) names 'qqq', which is not in the vocabulary"),
        (lambda: ByteLevelBPE(_V, [("Q", "Z")]), "names 'QZ'"),
        (lambda: ByteLevelBPE(_V, [], {"eos": "</s>"}), "special token '</s>' is not in the vocabulary"),
        (lambda: ByteLevelBPE(_V, [], {"end": "a"}), "expected roles among bos, eos"),
        (lambda: WordPiece({"a": 0}, {}), "needs a token for the role 'unk'"),
        (lambda: Characters({"ab": 0}), "expected single characters and special tokens, got 'ab'"),
        (lambda: train("bpe", DOCS, 100), "vocabulary of 100 is too small: special tokens and single characters are 257"),
        (lambda: train("wordpiece", DOCS, 60, readable=True), "vocabulary of 60 is too small"),
        (lambda: train("bpe", DOCS), "bpe needs a vocab_size"),
        (lambda: train("unigram", DOCS, 99), "expected bpe, wordpiece or characters, got 'unigram'"),  # type: ignore[arg-type]
        (lambda: train("characters", DOCS, 5, readable=True), "vocabulary of 5 is too small"),
        (lambda: train("characters", DOCS, min_frequency=2), "min_frequency has no effect"),
        (lambda: train("bpe", ["a\ud800"], 300), "lone surrogate U\\+D800"),
        (lambda: train("bpe", ["a\ud800"], 300, readable=True), "lone surrogate U\\+D800"),
        (lambda: train("bpe", ["a"], 300, roles={"eos": ""}), "a special token is the empty text"),
    ],
)
def test_what_is_no_tokenizer_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], Any]:
    def change(data: dict[str, Any]) -> Any:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return data

    return change


_DAMAGE: list[
    tuple[Any, str, str]
] = [  # what is changed in tokenizer.json; what ours says; what the library's wrapper says, "" where it can
    (lambda d: "{", "not JSON", "not JSON"),
    (lambda d: [], "expected a JSON object, got list", "expected a JSON object, got list"),
    (lambda d: {"architectures": ["GPT2"]}, "and it has no model", "and it has no model"),
    (
        _set("model", "type", to="Unigram"),
        "expected a model of type BPE, WordPiece, WordLevel, got 'Unigram'",
        "the tokenizers library refuses it",
    ),
    (_set("model", "merges", 0, to=["a", "qqq"]), "merge 0 .* names 'qqq'", "the tokenizers library refuses it"),
    (_set("model", "merges", 0, to="abc"), r"model.merges\[0\]: expected two tokens", "the tokenizers library refuses it"),
    (_set("model", "merges", to=None), "expected a list in model.merges, got NoneType", "the tokenizers library refuses it"),
    (_set("model", "vocab", to=[1]), "expected model.vocab with a number for each token, got list", "the tokenizers library refuses it"),
    (_set("model", "vocab", "a", to=9999), "no token has|'a' has 9999", "no token has|'a' has 9999|refuses"),
    (_set("model", "byte_fallback", to=True), "model has byte_fallback: True, expected False", ""),
    (_set("model", "novelty", to=1), "model has novelty: 1, expected None", ""),
    (_set("normalizer", to={"type": "NFC"}), "expected none as normalizer, got 'NFC'", ""),
    (
        _set("pre_tokenizer", to={"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}),
        "as pre_tokenizer",
        "",
    ),
    (_set("pre_tokenizer", "add_prefix_space", to=True), "pre_tokenizer has add_prefix_space: True, expected False", ""),
    (_set("added_tokens", 0, "lstrip", to=True), "'<|endoftext|>' is not a plain special one".replace("|", r"\|"), ""),
    (_set("added_tokens", 0, "id", to=7), "has the number 0 in the vocabulary and 7 among added_tokens", "refuses|"),
    (_set("added_tokens", to=[1]), "expected added_tokens with content and id, got 1", "the tokenizers library refuses it"),
]


@pytest.mark.parametrize(("change", "ours", "librarys"), _DAMAGE)
def test_a_damaged_or_foreign_tokenizer_json(change: Any, ours: str, librarys: str, tmp_path: Path) -> None:
    BPE.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = change(json.loads(path.read_text()))
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(DataError, match=ours):
        load(tmp_path, readable=True)
    if not librarys:
        assert load(tmp_path).vocab_size == BPE.vocab_size
    elif librarys != "refuses|":
        with pytest.raises(DataError, match=librarys):
            load(tmp_path)


@both
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer; expected tokenizer.json, or encoder.json"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\na\na\n"}, "vocab.txt:5: 'a' stands in line 4 already"),
        ({"vocab.txt": "[UNK]\n\na\n"}, "vocab.txt:2: an empty line"),
        ({"vocab.txt": "a\nb\n"}, "needs a token for the role 'unk'"),
        ({"encoder.json": '{"a": 0}', "vocab.bpe": "#version: 0.2\na b\n"}, "no token .* for the byte 0x21"),
        ({"encoder.json": json.dumps(_V), "vocab.bpe": "#version: 0.2\na b c\n"}, "vocab.bpe:2: expected two tokens"),
        ({"encoder.json": json.dumps(_V), "vocab.bpe": "a \udcff"}, "vocab.bpe: not UTF-8 \\(byte 2\\)"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n", "tokenizer_config.json": '{"mask_token": 3}'}, "expected a token as mask_token, got 3"),
    ],
)
def test_damaged_older_files(files: dict[str, str], message: str, readable: bool, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        load(tmp_path, readable=readable)


def test_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; expected tokenizer.json"):
        load(tmp_path / "nowhere")
