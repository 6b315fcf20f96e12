"""Tiny tokenizers, trained here, set up as the families' own tokenizer.json files are."""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from corpus import TRAINING

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT_OSS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", LLAMA3.replace(r"|\p{N}{1,3}", "")]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def special(*contents, **flags):
    return [AddedToken(content, normalized=False, special=True, **flags) for content in contents]


def byte_level(split=None, added=(), bos=None, normalizer=None, prefix_space=False, **options):
    """split: regular expressions, one after the other; none: ByteLevel's own."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=split is None)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split or ()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level]) if splits else level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[]
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.add_tokens(list(added))
    if bos:
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def sentencepiece(style, bos="<s>", eos="</s>", extra=()):
    """style: "legacy" (llama2: normalizer), "metaspace" (mistral), "gemma" (no space in front)."""
    names = ["<unk>", bos, eos]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=names)
    trained.train_from_iterator(TRAINING, trainer)
    data = json.loads(trained.to_str())
    old = data["model"]["vocab"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    order = names + bytes_ + [t for t in sorted(old, key=old.get) if t not in names]
    if style == "gemma":  # runs of line ends and spaces are words of their own
        order += [t for t in ("▁▁", "▁▁▁▁", "\n", "\n\n") if t not in old]
        data["model"]["merges"] += [["▁", "▁"], ["▁▁", "▁▁"], ["\n", "\n"]]
    data["model"]["vocab"] = {token: i for i, token in enumerate(order)}
    for added in data["added_tokens"]:
        added["id"] = order.index(added["content"])
    tokenizer = Tokenizer.from_str(json.dumps(data))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    elif style == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(steps + ([] if style == "gemma" else [decoders.Strip(" ", 1, 0)]))
    tokenizer.add_special_tokens(list(extra))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def unigram():
    """No family of the list, but of decoders that nobody told us about."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    names = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=names, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


END, CHAT = special("<|endoftext|>"), special("<|im_start|>", "<|im_end|>")
GPT2_NAMES = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
LLAMA_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

# Name -> (the tokenizer, what tokenizer_config.json holds beside the class).
FAMILIES = {
    "gpt2": lambda: (byte_level(added=END), GPT2_NAMES),
    "gpt_neox": lambda: (
        byte_level(added=[*END, *(AddedToken(" " * n, normalized=True) for n in (8, 4, 2))],
                   normalizer=normalizers.NFC()),
        GPT2_NAMES,
    ),
    "opt": lambda: (byte_level(added=special("<pad>", "</s>", "<unk>"), bos="</s>"),
                    {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}),
    "bloom": lambda: (byte_level([BLOOM], special("<unk>", "<s>", "</s>", "<pad>")),
                      {**LLAMA_NAMES, "pad_token": "<pad>"}),
    "llama3": lambda: (byte_level([LLAMA3], special("<|begin_of_text|>", "<|eot_id|>"), "<|begin_of_text|>",
                                  ignore_merges=True),
                       {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "qwen2": lambda: (byte_level([QWEN2], [*END, *CHAT], normalizer=normalizers.NFC()),
                      {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False,
                       "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|box_start|>"]}),
    "gpt_oss": lambda: (byte_level([GPT_OSS], special("<|startoftext|>", "<|return|>", "<|channel|>")),
                        {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"}),
    "deepseek": lambda: (byte_level(DEEPSEEK, special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
                                    "<｜begin▁of▁sentence｜>"),
                         {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}),
    "stablelm": lambda: (byte_level([QWEN2], [*END, *CHAT]), GPT2_NAMES),
    "olmo2": lambda: (byte_level([LLAMA3], END), GPT2_NAMES),
    "granite": lambda: (byte_level(added=[*END, *special("<|start_of_role|>")]), GPT2_NAMES),
    "smollm": lambda: (byte_level([r"\p{N}", GPT2], [*END, *CHAT]), {**GPT2_NAMES, "eos_token": "<|im_end|>"}),
    "llama2": lambda: (sentencepiece("legacy"), {**LLAMA_NAMES, "legacy": False}),
    "mistral": lambda: (sentencepiece("metaspace", extra=special("[INST]", "[/INST]")),
                        {**LLAMA_NAMES, "add_bos_token": True, "add_eos_token": False}),
    "gemma": lambda: (sentencepiece("gemma", "<bos>", "<eos>", special("<start_of_turn>", "<end_of_turn>", "<pad>")),
                      {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}),
    "phi3": lambda: (sentencepiece("legacy", extra=special("<|endoftext|>", "<|end|>", rstrip=True)),
                     {**LLAMA_NAMES, "eos_token": "<|endoftext|>", "added_tokens_decoder": {
                         "2": {"content": "</s>", "rstrip": True, "lstrip": False, "normalized": False,
                               "single_word": False, "special": False}}}),
    "unigram": lambda: (unigram(), LLAMA_NAMES),
}  # fmt: skip


def write(family: str, directory: pathlib.Path):
    tokenizer, config = FAMILIES[family]()
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {**config, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
