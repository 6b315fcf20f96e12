"""A directory's safetensors files, by their headers alone. What they say is not trusted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Iterator

from ..errors import ExportError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHER_FORMATS = ("*.bin", "*.pth", "*.pt", "*.gguf", "*.ckpt.index", "*.h5", "*.msgpack")
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_JSON_BYTES = 100_000_000
HEADS = ("lm_head", "embed_out", "output_projection")
COMPARED_AT_ONCE = 16 << 20  # bytes
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8,
    "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor; its bytes are begin .. end of the file."""

    dtype: str
    shape: tuple[int, ...]
    file: pathlib.Path
    begin: int
    end: int


def _no_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands there twice")
    return found


def _parse(text: bytes, what: str) -> dict:
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExportError(f"{what} is not a JSON object")
    return value


def read_json(path: pathlib.Path) -> dict:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ExportError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise ExportError(f"there is no {path}; give a Hugging Face model directory") from None
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error


def read_header(path: pathlib.Path) -> tuple[bytes, int]:
    """(the header's bytes, the file's size)"""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            count = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
            if len(first) < 8 or count > min(size - 8, MAX_HEADER_BYTES):
                raise ExportError(
                    f"{path} is cut short or no safetensors file: its header does not fit"
                )
            return file.read(count), size
    except FileNotFoundError:
        raise ExportError(f"{path} is missing; download the model again") from None
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error


def _is_size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(path: pathlib.Path, name: str, entry, start: int) -> Stored:
    where = f"{path}: tensor {name[:120]!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ExportError(f"{where} has no dtype, shape or data_offsets")
    dtype, shape, at = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ExportError(f"{where} has the dtype {str(dtype)[:40]!r}, which is not served")
    if not isinstance(shape, list) or len(shape) > 16 or not all(map(_is_size, shape)):
        raise ExportError(f"{where} has no valid shape")
    if not isinstance(at, list) or len(at) != 2 or not all(map(_is_size, at)):
        raise ExportError(f"{where} has no valid data_offsets")
    if at[1] - at[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ExportError(
            f"{where} takes {at[1] - at[0]} bytes, but {dtype} {shape} needs "
            f"{math.prod(shape) * ITEM_BYTES[dtype]}"
        )
    return Stored(dtype, tuple(shape), path, start + at[0], start + at[1])


def read_tensors(path: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of one file, which must fill it without gap or overlap."""
    header, size = read_header(path)
    entries = _parse(header, f"the header of {path}")
    entries.pop("__metadata__", None)
    start = 8 + len(header)
    tensors = {name: _entry(path, name, entry, start) for name, entry in entries.items()}
    end, before = start, None
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if stored.begin != end:
            wrong = "overlaps" if stored.begin < end else "leaves a gap after"
            raise ExportError(f"{path}: tensor {name!r} {wrong} {before or 'the header'!r}")
        end, before = stored.end, name
    if end != size:
        raise ExportError(
            f"{path} has {size} bytes where its header describes {end}; download it again"
        )
    return tensors


def _index(folder: pathlib.Path) -> dict[str, str]:
    """{tensor: file} of a sharded checkpoint."""
    path = folder / INDEX
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ExportError(f"{path} has no weight_map")
    for name in set(map(str, weight_map.values())):
        if pathlib.PurePath(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise ExportError(
                f"{path} names the file {name[:120]!r}, which is outside the directory"
            )
        if not name.endswith(".safetensors"):
            raise ExportError(f"{path} names {name[:120]!r}, which is not a safetensors file")
    return {name: str(file) for name, file in weight_map.items()}


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The directory's safetensors files; none when it holds no weights at all."""
    if (folder / "adapter_config.json").exists():
        raise ExportError(
            f"{folder} holds an adapter (adapter_config.json); merge it into its model"
        )
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(_index(folder).values()))]
    for pattern in ("*.safetensors", *OTHER_FORMATS):
        for found in sorted(folder.glob(pattern)):
            if found.suffix == ".safetensors":
                raise ExportError(f"{found} is neither {SINGLE} nor named by a {INDEX}")
            raise ExportError(
                f"{found} is not a safetensors file; convert the checkpoint "
                "(save_pretrained of transformers writes safetensors)"
            )
    return []


class Checkpoint:
    """Every tensor of a directory. tensors: {name: Stored}"""

    def __init__(self, files: list[pathlib.Path], index: dict[str, str] | None = None):
        self.tensors: dict[str, Stored] = {}
        for path in files:
            for name, stored in read_tensors(path).items():
                if name in self.tensors:
                    other = self.tensors[name].file.name
                    raise ExportError(f"tensor {name!r} is in two files: {other} and {path.name}")
                self.tensors[name] = stored
        for name, file in (index or {}).items():
            if name not in self.tensors or self.tensors[name].file.name != file:
                raise ExportError(
                    f"{INDEX} places tensor {name[:120]!r} in {file}; it is not there"
                )

    @classmethod
    def open(cls, folder: pathlib.Path) -> Checkpoint | None:
        """None when there is only a config."""
        files = files_of(folder)
        sharded = files and files[0].name != SINGLE
        return cls(files, _index(folder) if sharded else None) if files else None

    def like_a_head(self) -> list[tuple[str, str]]:
        """(head, another tensor of its size): tied, if their values are the same. By the names that
        heads have; no config is needed.
        """
        return [
            (head, name)
            for head in self.tensors
            if head.rpartition(".")[0].rpartition(".")[2] in HEADS
            for name, stored in self.tensors.items()
            if name != head
            and (stored.dtype, stored.shape)
            == (self.tensors[head].dtype, self.tensors[head].shape)
        ]

    def have_same_values(self, one: str, other: str) -> bool:
        first, second = self.tensors[one], self.tensors[other]
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        with first.file.open("rb") as a, second.file.open("rb") as b:
            a.seek(first.begin)
            b.seek(second.begin)
            left = first.end - first.begin
            while left > 0:
                size = min(left, COMPARED_AT_ONCE)
                if a.read(size) != b.read(size):
                    return False
                left -= size
        return True

    def main_dtype(self) -> str:
        """The floating dtype of most bytes, as torch calls it."""
        sizes = dict.fromkeys(FLOATS, 0)
        for stored in self.tensors.values():
            if stored.dtype in sizes:
                sizes[stored.dtype] += stored.end - stored.begin
        return FLOATS[max(sizes, key=sizes.get)]

    def refuse_quantised(self):
        for name, stored in self.tensors.items():
            if stored.dtype.startswith("F8_"):
                raise ExportError(
                    f"{stored.file.name}: tensor {name!r} is FP8 ({stored.dtype}); use the "
                    "original model in bf16, f16 or f32"
                )


def identity(folder: pathlib.Path) -> Iterator[bytes]:
    """All that an export depends on in a directory, by content."""
    for name in ("config.json", "generation_config.json", INDEX):
        path = folder / name
        yield name.encode() + (b"=" + path.read_bytes() if path.is_file() else b" absent")
    for path in files_of(folder):
        header, size = read_header(path)
        yield f"{path.name} {size} ".encode() + header
    checkpoint = Checkpoint.open(folder)
    for one, other in checkpoint.like_a_head() if checkpoint else ():
        yield f"{one} {other} {checkpoint.have_same_values(one, other)}".encode()
