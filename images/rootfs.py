#!/usr/bin/env python3
"""Puts the file system of an image together, out of programs and the libraries that the linker names for them.

rootfs.py --root DIR --name NAME --version V --file FROM:TO... [--tree DIR...] [--move DIR...] [--host LIB...] [--wheels DIR] [--crates LOCK]

Runs inside the build stage, where the programs' Debian packages are installed. Beside programs and libraries the image
gets: certificates, users, the resolver's configuration, each package's licence, and at /usr/share/sbom/NAME.spdx.json a
list (SPDX 2.3) of the Debian packages, wheels and crates that the files come from. It needs binutils and chrpath.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

TORCH = pathlib.Path("/usr/lib/echelon")  # LibTorch, where it is wanted: the same here and in the image
USER = 65532
ETC = {
    "passwd": f"root:x:0:0:root:/:/sbin/nologin\nechelon:x:{USER}:{USER}:echelon:/tmp:/sbin/nologin\n",
    "group": f"root:x:0:\nechelon:x:{USER}:\n",
    # The resolver's own modules are in libc since glibc 2.34; a name is looked up in /etc/hosts, then by DNS.
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "ld.so.conf": f"{TORCH}\n",
}
NSS = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")  # opened by name, so no linker lists them


class Failed(Exception):
    pass


def output(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def is_elf(path: pathlib.Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def merged(path: str) -> str:
    """/lib and /lib64 are links into /usr on Debian, and in the image."""
    return re.sub(r"^/(lib|lib64|bin|sbin)/", r"/usr/\1/", os.path.normpath(path))


class Image:
    """The root of an image, and where each of its files comes from."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.owner: dict[str, str] = {}  # path in the image -> Debian package
        self.origins: dict[str, str] = {}  # path in the image -> path in the build stage
        self.packages: dict[str, str] = {}  # Debian package -> version

    def place(self, source: str, target: str):
        at = self.root / target.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        if not is_elf(pathlib.Path(source)) or not stripped(source, at):
            shutil.copyfile(source, at)
        shutil.copymode(source, at)
        self.origins[target] = source

    def take_tree(self, folder: str, move: bool):
        """A whole folder, moved where it may be: a gigabyte is not written twice. Gives its programs and libraries."""
        target = self.root / folder.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if move:
            shutil.move(folder, target)
        else:
            shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns("*.a", "test"))
        binaries = []
        for path in target.rglob("*"):
            if path.is_file() and not path.is_symlink():
                inside = "/" + path.relative_to(self.root).as_posix()
                self.origins[inside] = inside
                if is_elf(path):
                    binaries.append(str(path))  # as they are: strip breaks wheels' libraries that were patched
        return binaries

    def libraries_of(self, sources: list[str], of_the_host: list[str]):
        """Copies what the linker loads for these files, wherever it lies in the build stage."""
        env = {**os.environ, "LD_LIBRARY_PATH": str(TORCH)}
        absent = set()
        for source in sources:
            for line in output("ldd", source, env=env).splitlines() if is_dynamic(source) else ():
                name, _, rest = line.strip().partition(" => ")
                if "not found" in line:
                    if name.split(":")[0] in of_the_host:
                        continue
                    absent.add(f"{name.split(':')[0]} (for {source})")
                    continue
                path = (rest or name).split(" (")[0].strip()
                within = path.startswith(f"{self.root}/")  # a tree's own, which is there already
                if path.startswith("/") and not within and merged(path) not in self.origins:
                    self.place(path, merged(path))
        if absent:
            raise Failed(f"not found: {', '.join(sorted(absent))}; name their packages in images/packages/")

    def debian_packages(self):
        """Finds the packages by their files; copies their licences."""
        named = []
        for source in sorted(set(self.origins.values())):
            named += [source, re.sub(r"^/usr/(lib|lib64|bin)/", r"/\1/", source), os.path.realpath(source)]
        listed = subprocess.run(["dpkg-query", "-S", *sorted(set(named))], capture_output=True, text=True).stdout
        owners = {}
        for line in listed.splitlines():
            package, _, path = line.partition(": ")
            if path and "," not in package:
                owners[path] = package.split(":")[0]
        for target, source in self.origins.items():
            for path in (source, re.sub(r"^/usr/(lib|lib64|bin)/", r"/\1/", source), os.path.realpath(source)):
                if path in owners:
                    self.owner[target] = owners[path]
                    break
        for package in sorted(set(self.owner.values())):
            self.packages[package] = output("dpkg-query", "-W", "-f=${Version}", package).strip()
            licence = pathlib.Path(f"/usr/share/doc/{package}/copyright")
            if licence.is_file():
                self.place(os.path.realpath(licence), str(licence))
                self.owner[str(licence)] = package


def is_dynamic(source: str) -> bool:
    return "(NEEDED)" in output("readelf", "-d", source)


def stripped(source: str, target: pathlib.Path) -> bool:
    """Symbols go: a fifth of libtorch is a table for debuggers. False: strip cannot read a library that was patched."""
    command = ["strip", "--strip-unneeded", "-o", str(target), os.path.realpath(source)]
    if subprocess.run(command, capture_output=True).returncode:
        return False
    return subprocess.run(["ldd", str(target)], capture_output=True).returncode == 0 or not is_dynamic(source)


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser()
    for name in ("root", "name", "version"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--file", action="append", default=[], metavar="FROM:TO")
    p.add_argument("--tree", action="append", default=[], help="a folder that the image has too")
    p.add_argument("--move", action="append", default=[], help="such a folder, which may go from here")
    p.add_argument("--host", action="append", default=[], help="a library that comes from where the image runs")
    p.add_argument("--wheels", help="a folder of *.dist-info, one for each wheel that files come from")
    p.add_argument("--crates", help="Cargo.lock of what is linked in")
    return p.parse_args()


def skeleton(root: pathlib.Path):
    for folder in ("usr/lib", "usr/lib64", "usr/bin", "etc/ssl/certs", "usr/lib/ssl", "usr/share/sbom", "tmp", "model"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link in ("lib", "lib64", "bin"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "tmp").chmod(0o1777)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    # OpenSSL's own default places, and gRPC's
    (root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    (root / "usr/lib/ssl/certs").symlink_to("/etc/ssl/certs")


def put_together(args: argparse.Namespace) -> Image:
    image = Image(pathlib.Path(args.root))
    skeleton(image.root)
    image.place("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
    programs = [pair.split(":", 1) for pair in args.file]
    for source, target in programs:
        image.place(source, target)
    sources = [source for source, _ in programs if is_elf(pathlib.Path(source))]
    for path in sorted(TORCH.glob("*.so*")):
        image.place(str(path), str(path))
        sources.append(str(path))
    for folder in args.tree + args.move:
        sources += image.take_tree(folder, folder in args.move)
    libc = next(line.split()[2] for line in output("ldd", sources[0]).splitlines() if "libc.so.6" in line)
    for name in NSS:
        path = os.path.join(os.path.dirname(libc), name)
        if os.path.exists(path):
            image.place(path, merged(path))
    image.libraries_of(sources, args.host)
    image.debian_packages()
    return image


# ---- the list of what is in it ------------------------------------------------------------------


def digest(path: pathlib.Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def spdx_id(*parts: str) -> str:
    return "SPDXRef-" + "-".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in parts)


def package_entry(kind: str, name: str, version: str, purl: str, supplier: str) -> dict:
    return {
        "SPDXID": spdx_id(kind, name, version),
        "name": name,
        "versionInfo": version,
        "supplier": supplier,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }


def wheels(folder: str | None) -> list[tuple[str, str]]:
    found = []
    for path in sorted(pathlib.Path(folder).glob("**/*.dist-info/METADATA")) if folder else ():
        text = path.read_text(errors="replace")
        name, version = (re.search(rf"^{key}: (.+)$", text, re.M)[1].strip() for key in ("Name", "Version"))
        found.append((name, version))
    return found


def crates(lock: str | None) -> list[tuple[str, str]]:
    text = pathlib.Path(lock).read_text() if lock else ""
    pattern = r'\[\[package\]\]\nname = "(.+)"\nversion = "(.+)"\nsource = "registry'
    return re.findall(pattern, text)


def bill(image: Image, args: argparse.Namespace) -> dict:
    arch = output("dpkg", "--print-architecture").strip()
    root = package_entry("image", args.name, args.version, f"pkg:generic/{args.name}@{args.version}", "NOASSERTION")
    root["licenseDeclared"] = "Apache-2.0"
    entries = [root]
    for name, version in sorted(image.packages.items()):
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={arch}&distro=debian-12"
        entries.append(package_entry("deb", name, version, purl, "Organization: Debian"))
    for name, version in wheels(args.wheels):
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        entries.append(package_entry("pypi", name, version, purl, "NOASSERTION"))
    for name, version in crates(args.crates):
        entries.append(package_entry("cargo", name, version, f"pkg:cargo/{name}@{version}", "NOASSERTION"))
    related = [("SPDXRef-DOCUMENT", "DESCRIBES", root["SPDXID"])]
    related += [(root["SPDXID"], "CONTAINS", entry["SPDXID"]) for entry in entries[1:]]
    files = []
    for number, (target, _) in enumerate(sorted(image.origins.items())):
        path = image.root / target.lstrip("/")
        if not is_elf(path):
            continue
        checksums = [{"algorithm": a, "checksumValue": digest(path, a.lower())} for a in ("SHA1", "SHA256")]
        entry = {"SPDXID": spdx_id("file", str(number)), "fileName": "." + target, "checksums": checksums}
        files.append({**entry, "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION"})
        owner = image.owner.get(target)
        holder = spdx_id("deb", owner, image.packages[owner]) if owner else root["SPDXID"]
        related.append((holder, "CONTAINS", entry["SPDXID"]))
    contents = hashlib.sha256(json.dumps([entries, files]).encode()).hexdigest()[:16]
    when = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), datetime.timezone.utc)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{args.name}-{args.version}",
        "documentNamespace": f"https://echelon.dev/spdx/{args.name}-{args.version}-{contents}",
        "creationInfo": {"created": f"{when:%Y-%m-%dT%H:%M:%SZ}", "creators": ["Tool: echelon-images-rootfs"]},
        "packages": entries,
        "files": files,
        "relationships": [
            {"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in related
        ],
    }


def main() -> int:
    args = parse()
    try:
        image = put_together(args)
    except Failed as error:
        print(f"rootfs: {error}", file=sys.stderr)
        return 1
    for source, target in (pair.split(":", 1) for pair in args.file):
        if is_elf(pathlib.Path(source)):
            subprocess.run(["chrpath", "-d", str(image.root / target.lstrip("/"))], check=False, capture_output=True)
    output("ldconfig", "-r", str(image.root))
    at = image.root / "usr/share/sbom" / f"{args.name}.spdx.json"
    text = json.dumps(bill(image, args), indent=1) + "\n"
    at.write_text(text)
    size = sum(p.stat().st_size for p in image.root.rglob("*") if p.is_file() and not p.is_symlink())
    print(f"rootfs: {args.name} {args.version}: {len(image.origins)} files, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
