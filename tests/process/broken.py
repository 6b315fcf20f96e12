"""Copies of a .pt2 file with one thing wrong."""

import json
import zipfile


def edit(source, target, change):
    """Rewrites an archive; change(name, bytes) gives new bytes, or None to leave the entry out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def edit_json(source, target, ending, change):
    """Rewrites one JSON entry; change(document) edits it in place."""

    def apply(name, data):
        if not name.endswith(ending):
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return edit(source, target, apply)


def edit_model(source, target, change):
    return edit_json(source, target, "models/model.json", change)


def edit_weights(source, target, change):
    return edit_json(source, target, "_weights_config.json", lambda d: change(d["config"]))


def truncated(source, target):
    data = source.read_bytes()
    target.write_bytes(data[: len(data) * 2 // 3])
    return target


def flipped_at(source, target, needle, length=16):
    """Overwrites bytes from the last occurrence of a needle on."""
    data = bytearray(source.read_bytes())
    at = data.rindex(needle)
    data[at : at + length] = bytes(0xA5 ^ i for i in range(length))
    target.write_bytes(data)
    return target


def damaged_weights(source, target):
    """One bit of weight_2's bytes is another; the archive's directory is as it was."""
    with zipfile.ZipFile(source) as archive:
        record = next(x for x in archive.infolist() if x.filename.endswith("/weight_2"))
        held = archive.read(record)
    data = bytearray(source.read_bytes())
    at = data.index(held, record.header_offset)
    data[at + len(held) // 2] ^= 0x10
    target.write_bytes(data)
    return target


def wrong_schema(source, target):
    return edit_model(source, target, lambda d: d["schema_version"].update(major=99))


def unknown_operator(source, target):
    def change(document):
        document["graph_module"]["graph"]["nodes"][1]["target"] = "torch.ops.mylib.gelu3.default"

    return edit_model(source, target, change)


def missing_record(source, target):
    return edit(source, target, lambda n, data: None if n.endswith("/weight_2") else data)


def missing_tensor(source, target):
    return edit_weights(source, target, lambda config: config.pop("net2.weight"))


def wrong_shape(source, target):
    def change(config):
        config["net2.weight"]["tensor_meta"]["sizes"] = [{"as_int": 8}, {"as_int": 4096}]

    return edit_weights(source, target, change)


def pickled(source, target):
    return edit_weights(source, target, lambda c: c["net2.weight"].update(use_pickle=True))


def short_record(source, target):
    return edit(source, target, lambda n, data: data[:1000] if n.endswith("/weight_2") else data)


def compressed(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return target


def other_weights(source, target):
    """The same model with one weight of another value."""
    return edit(source, target, lambda n, data: bytes(len(data)) if n.endswith("/weight_2") else data)


def other_graph(source, target):
    """The same weights under another graph."""

    def change(document):
        document["graph_module"]["graph"]["nodes"][1]["target"] = "torch.ops.aten.sigmoid.default"

    return edit_model(source, target, change)
