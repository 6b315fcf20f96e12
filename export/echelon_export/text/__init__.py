"""Hugging Face decoders: a directory with a config.json becomes a .pt2 without weights.

`command` is the way in; `checkpoint` and `cache` need no torch, so that a cached file is found at
once. The model's code is transformers' own; what mixes or routes tokens is replaced, through
transformers' own interfaces, by the opaque operators of `operators`.
"""
