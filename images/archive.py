#!/usr/bin/env python3
"""Reads a docker archive: archive.py ARCHIVE sbom TARGET | files | config | size

What `docker save` and its like write, whoever wrote it: layers as tar files, a configuration, a manifest.
"""

from __future__ import annotations

import io
import json
import pathlib
import sys
import tarfile
import zlib


class Archive:
    def __init__(self, path: pathlib.Path):
        self.tar = tarfile.open(path)
        self.manifest = json.loads(self.member("manifest.json").read())[0]
        self.config = json.loads(self.member(self.manifest["Config"]).read())

    def member(self, name: str) -> io.BufferedReader:
        found = self.tar.getmember(name)
        if found.issym():  # buildah names a layer twice
            found = self.tar.getmember(str(pathlib.PurePosixPath(name).parent / found.linkname))
        return self.tar.extractfile(found)

    def layers(self):
        for name in self.manifest["Layers"]:
            yield tarfile.open(fileobj=self.member(name))

    def files(self) -> dict[str, tarfile.TarInfo]:
        return {entry.name.removeprefix("./"): entry for layer in self.layers() for entry in layer}

    def read(self, path: str) -> bytes:
        for layer in reversed(list(self.layers())):
            for entry in layer:
                if entry.name.removeprefix("./") == path and entry.isfile():
                    return layer.extractfile(entry).read()
        raise KeyError(path)

    def compressed(self) -> int:
        """Bytes of the layers under gzip, which is what a registry carries."""
        total = 0
        for name in self.manifest["Layers"]:
            packer, layer = zlib.compressobj(6, wbits=31), self.member(name)
            while block := layer.read(1 << 20):
                total += len(packer.compress(block))
            total += len(packer.flush())
        return total


def main(archive: Archive, what: str, *rest: str) -> int:
    if what == "sbom":
        found = [n for n in archive.files() if n.startswith("usr/share/sbom/") and n.endswith(".json")]
        pathlib.Path(rest[0]).write_bytes(archive.read(found[0]))
    elif what == "files":
        for name, entry in sorted(archive.files().items()):
            print(f"{entry.size:12} {entry.uid}:{entry.gid} {entry.mode:o} {name}")
    elif what == "config":
        print(json.dumps({"tags": archive.manifest["RepoTags"], **archive.config["config"]}, indent=1))
    elif what == "size":
        print(f"{archive.compressed() / 1e6:.1f} MB compressed")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Archive(pathlib.Path(sys.argv[1])), *sys.argv[2:]))
