"""Sequence models: recurrent layers, torch's transformer, MiniLM with its real weights."""

import minilm as demo
import torch
from case import BATCH, Model, case, positional
from torch import nn


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = kind(8, 12, num_layers=2, batch_first=True, bidirectional=kind is nn.LSTM)
        self.out = nn.Linear(24 if kind is nn.LSTM else 12, 4)

    def forward(self, x):
        y, state = self.inner(x)
        return self.out(y), state


@case
def lstm():
    runs = [positional(torch.randn(b, 6, 8)) for b in (4, 1, 2, 64)]
    return Model(Recurrent(nn.LSTM), runs, {"x": {0: BATCH}})


@case
def gru():
    runs = [positional(torch.randn(b, 6, 8)) for b in (4, 1, 2, 64)]
    return Model(Recurrent(nn.GRU), runs, {"x": {0: BATCH}})


class Encoder(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.1, batch_first=True, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x, padding):
        return self.head(self.encoder(x, src_key_padding_mask=padding))


@case
def transformer_encoder():
    def make(batch, length):
        lengths = torch.randint(1, length + 1, (batch, 1))
        return positional(torch.randn(batch, length, 32), torch.arange(length)[None] >= lengths)

    runs = [make(b, 7) for b in (4, 1, 2, 64)]
    return Model(Encoder(), runs, {"x": {0: BATCH}, "padding": {0: BATCH}}, chunkable=True)


@case
def minilm():
    encoder, tokenizer = demo.load_encoder(), demo.load_tokenizer()
    texts = [
        "A cat sits on the mat.",
        "Somebody is cooking pasta in a small kitchen.",
        "Hi",
        "",
        "The committee has postponed its decision on the pipeline until further notice, says "
        "the minister.",
    ]
    batches = [texts, texts[:1], texts[2:4], (texts * 13)[:64]]
    runs = [((), demo.tokenize(tokenizer, batch)) for batch in batches]
    return Model(encoder, runs, demo.DYNAMIC_SHAPES, chunkable=True)
