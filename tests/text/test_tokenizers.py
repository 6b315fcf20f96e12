"""Tokenizers of every family, over awkward text: the same ids and the same text as transformers."""

import random

import pytest


@pytest.mark.parametrize("special", [True, False], ids=["with bos", "without bos"])
def test_ids_are_those_of_transformers(model, probe, text, special):
    assert probe(encode=text, special=special, parse=True) == {"ids": model.encode(text, add_special_tokens=special)}


def test_special_tokens_in_text_can_be_read_as_text(model, probe, text):
    expected = model.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert probe(encode=text, special=False, parse=False) == {"ids": expected}


@pytest.mark.parametrize("skip", [True, False], ids=["special tokens left out", "special tokens shown"])
def test_text_is_that_of_transformers(model, probe, text, skip):
    ids = model.encode(text)
    assert probe(decode=ids, skip=skip) == {"text": model.decode(ids, skip_special_tokens=skip)}


def test_streamed_pieces_join_to_the_text(model, probe, text):
    ids = model.encode(text)
    assert "".join(probe(stream=ids, skip=True)["pieces"]) == model.decode(ids, skip_special_tokens=True)


def test_whatever_a_model_says_streams_to_what_transformers_decodes(model, probe):
    said = random.Random(11)
    for _ in range(20):
        ids = [said.randrange(len(model)) for _ in range(100)] + model.encode("end", add_special_tokens=False)
        assert "".join(probe(stream=ids, skip=True)["pieces"]) == model.decode(ids, skip_special_tokens=True)


def test_no_piece_holds_a_broken_character(model, probe):
    text = "👩‍🚀你好 naïve नमस्ते مرحبا"
    ids = model.encode(text, add_special_tokens=False)
    if "\ufffd" in model.decode(ids) or model.unk_token_id in ids:
        pytest.skip("this vocabulary has no bytes")
    for end in range(len(ids) + 1):
        assert "\ufffd" not in "".join(probe(stream=ids[:end], skip=True)["pieces"])


def test_vocabularies_are_of_one_size(model, probe):
    assert probe(dir=model.name_or_path) == {"vocab_size": len(model)}
