#!/usr/bin/env python3
"""Stands in for shared libraries that are linked and never called: stub_libraries.py FOLDER DROPPED...

The torch wheel is built for CUDA: `import torch` wants 3 GB of libraries of which an export on a CPU calls nothing. Every
library that the ones in FOLDER need, and that is neither there nor on this system, is made as an empty one: the same name,
the same symbols and versions, and each function returns 999 (CUDA's "unknown error"). DROPPED are files of FOLDER that are
removed and replaced so. Needs gcc and readelf.
"""

from __future__ import annotations

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

SYMBOL = re.compile(r"^\s*\d+: [0-9a-f]+\s+\S+ \S+\s+(\S+)\s+\S+\s+(\S+) ([^\s@]+)(?:@@?(\S+))?")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Library:
    def __init__(self, path: pathlib.Path):
        self.path = path
        dynamic = output("readelf", "-dW", str(path))
        self.needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        self.soname = next(iter(re.findall(r"\(SONAME\).*\[(.*)\]", dynamic)), path.name)
        self.defined, self.undefined = set(), {}
        for line in output("readelf", "--dyn-syms", "-W", str(path)).splitlines():
            found = SYMBOL.match(line)
            if not found:
                continue
            binding, where, name, version = found.groups()
            if where == "UND":
                if binding != "WEAK":  # those may be absent
                    self.undefined[name] = version
            else:
                self.defined.add(name)
        self.version_files = {}  # version -> the library it was linked from
        for block in re.split(r"File: ", output("readelf", "-VW", str(path)))[1:]:
            soname = block.split()[0]
            for version in re.findall(r"Name: (\S+)", block):
                self.version_files[version] = soname


def system_libraries() -> dict[str, pathlib.Path]:
    found = {}
    for line in output("ldconfig", "-p").splitlines():
        name, _, path = line.strip().partition(" => ")
        if path:
            found.setdefault(name.split()[0], pathlib.Path(path))
    return found


def stub(folder: pathlib.Path, soname: str, symbols: dict[str, str | None]):
    """One library of functions that return 999; `symbols` are names with their versions."""
    lines = [".text", ".balign 16", "echelon_absent:", "  mov $999, %eax", "  ret"]
    for name in sorted(symbols):
        # Type information and tables of classes are data: zeros, as nothing of them is ever used.
        lines += [f'.globl "{name}"']
        if name.startswith(("_ZTI", "_ZTS", "_ZTV")):
            lines += [f'.type "{name}", @object', f'.set "{name}", echelon_zeros']
        else:
            lines += [f'.type "{name}", @function', f'.set "{name}", echelon_absent']
    lines += [".bss", ".balign 64", "echelon_zeros: .zero 4096"]
    lines += ['.section .note.GNU-stack,"",@progbits', ""]
    versions = collections.defaultdict(list)
    for name, version in symbols.items():
        if version:
            versions[version].append(name)
    with tempfile.TemporaryDirectory() as work:
        source, script = pathlib.Path(work) / "stub.s", pathlib.Path(work) / "stub.map"
        source.write_text("\n".join(lines))
        command = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-o", str(folder / soname), str(source)]
        if versions:
            text = "".join(
                f'{version} {{ global: {" ".join(f"{chr(34)}{n}{chr(34)};" for n in sorted(names))} }};\n'
                for version, names in sorted(versions.items())
            )
            script.write_text(text)
            command += [f"-Wl,--version-script={script}"]
        subprocess.run(command, check=True)


def main(folder: pathlib.Path, dropped: list[str]) -> int:
    for name in dropped:
        (folder / name).unlink(missing_ok=True)
    kept = [Library(path) for path in sorted(folder.rglob("*.so*")) if not path.is_symlink()]
    present = {library.soname for library in kept} | {library.path.name for library in kept}
    system = system_libraries()
    absent = {name for library in kept for name in library.needed} - present - set(system)
    linked = {name for library in kept for name in library.needed if name in system}
    defined = set().union(*(library.defined for library in kept), *(Library(system[n]).defined for n in linked))

    wanted: dict[str, dict[str, str | None]] = {name: {} for name in absent}
    for library in kept:
        takers = [name for name in library.needed if name in absent]
        for name, version in library.undefined.items():
            if name in defined or not takers:
                continue
            owner = library.version_files.get(version, takers[0]) if version else takers[0]
            if owner in absent:
                wanted[owner][name] = version or wanted[owner].get(name)
    for soname, symbols in sorted(wanted.items()):
        stub(folder, soname, symbols)
        print(f"stub: {soname}, {len(symbols)} symbols")
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2:]))
