"""The scripts that put images together, and the archives in build/images where `make images` has made them."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ECHELON_BUILD", ROOT / "build"))
sys.path.insert(0, str(ROOT / "images"))

from archive import Archive  # noqa: E402

PARTS = ("operator", "runtime", "exporter")
PROGRAMS = {"operator": "usr/bin/echelon-operator", "runtime": "usr/bin/echelon-stage", "exporter": "opt/echelon/bin/echelon-export"}
SHELLS = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg"}


def script(name, *arguments, **options):
    done = subprocess.run([sys.executable, ROOT / "images" / name, *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=PARTS)
def image(request):
    path = BUILD / "images" / f"{request.param}.tar"
    if not path.exists():
        pytest.skip(f"there is no {path}; run make images")
    return request.param, Archive(path), path


def test_an_image_runs_its_program_as_nobody_in_particular(image):
    part, archive, _ = image
    config = archive.config["config"]
    assert config["User"] == "65532:65532"
    assert PROGRAMS[part].endswith(config["Entrypoint"][0].lstrip("/"))
    assert PROGRAMS[part] in archive.files()
    assert archive.manifest["RepoTags"] and archive.manifest["RepoTags"][0].split(":")[0].endswith(f"/{part}")


def test_an_image_has_no_shell_and_no_set_user_id(image):
    _, archive, _ = image
    files = archive.files()
    assert not {name for name in files if name.rpartition("/")[2] in SHELLS}
    assert not [name for name, entry in files.items() if entry.isfile() and entry.mode & 0o6000]


def test_an_image_can_look_up_names_and_trust_certificates(image):
    _, archive, _ = image
    files = archive.files()
    assert {"etc/passwd", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt", "etc/ld.so.cache"} <= set(files)
    assert b"hosts: files dns" in archive.read("etc/nsswitch.conf") and b":65532:" in archive.read("etc/passwd")
    assert files["tmp"].mode & 0o7777 == 0o1777


def test_an_image_says_what_it_is_made_of(image):
    part, archive, path = image
    bill = json.loads(archive.read(f"usr/share/sbom/echelon-{part}.spdx.json"))
    assert bill == json.loads(path.with_suffix(".spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3" and bill["documentNamespace"].startswith("https://")
    names = {package["name"] for package in bill["packages"]}
    assert {"libc6", "libstdc++6"} <= names and (part == "operator" or "torch" in names)
    inside = archive.files()
    assert all(entry["fileName"].removeprefix("./") in inside for entry in bill["files"])
    ids = [thing["SPDXID"] for thing in bill["packages"] + bill["files"]]
    related = {end for r in bill["relationships"] for end in (r["spdxElementId"], r["relatedSpdxElement"])}
    assert len(ids) == len(set(ids)) and related - {"SPDXRef-DOCUMENT"} <= set(ids)


def test_an_archive_is_read_whoever_wrote_it(tmp_path):
    def layer(files):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text))
        return packed.getvalue()

    members = {
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["a/b:1"], "Layers": ["1.tar", "2.tar"]}]).encode(),
        "c.json": json.dumps({"config": {"User": "65532"}}).encode(),
        "1.tar": layer({"etc/x": b"old", "usr/share/sbom/a.json": b"{}"}),
        "2.tar": layer({"./etc/x": b"new"}),
    }
    (tmp_path / "a.tar").write_bytes(layer(members))
    archive = Archive(tmp_path / "a.tar")
    assert archive.config["config"]["User"] == "65532" and archive.read("etc/x") == b"new"
    assert set(archive.files()) == {"etc/x", "usr/share/sbom/a.json"} and archive.compressed() > 0
    script("archive.py", tmp_path / "a.tar", "sbom", tmp_path / "bill.json")
    assert (tmp_path / "bill.json").read_text() == "{}"


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("readelf"), reason="there is no gcc, or no readelf")
def test_a_stub_takes_the_place_of_a_library_that_is_never_called(tmp_path):
    def library(name, source, *options):
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,lib{name}.so.1", "-o", tmp_path / f"lib{name}.so.1", tmp_path / f"{name}.c", *options],
            check=True,
        )

    library("far", "int far_away(void) { return 1; } int versioned(void) { return 2; }",
            f"-Wl,--version-script={write(tmp_path / 'map', 'FAR_1 { global: versioned; }; FAR_2 { global: far_away; };')}")  # fmt: skip
    library("near", "int far_away(void); int versioned(void); int near(void) { return far_away() + versioned(); } int here(void) { return 7; }",
            tmp_path / "libfar.so.1")  # fmt: skip
    for path in (*tmp_path.glob("*.c"), tmp_path / "map"):
        path.unlink()
    said = script("stub_libraries.py", tmp_path, "libfar.so.1")
    assert said == "stub: libfar.so.1, 2 symbols\n"
    code = f"import ctypes; n = ctypes.CDLL('{tmp_path}/libnear.so.1', mode=ctypes.RTLD_GLOBAL | 2); print(n.here(), n.near())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    )
    assert (done.stdout, done.stderr) == ("7 1998\n", "")


def write(path, text):
    path.write_text(text)
    return path


def test_wheels_are_staged_by_their_own_lists(tmp_path):
    site = tmp_path / "site"
    (site / "lib_a").mkdir(parents=True)
    (site / "lib_a/code.py").write_text("x = 1\n")
    (site / "lib_a/other.py").write_text("not of this wheel\n")
    info = site / "Lib_A-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: lib-a\nVersion: 1.0\n")
    (info / "RECORD").write_text("lib_a/code.py,,\n../../bin/tool,,\nLib_A-1.0.dist-info/METADATA,,\nlib_a/__pycache__/code.pyc,,\n")
    script("stage_wheels.py", site, tmp_path / "to", "lib-a")
    staged = sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*") if p.is_file())
    assert staged == ["Lib_A-1.0.dist-info/METADATA", "lib_a/code.py"]


def test_every_image_has_a_dockerfile_that_ends_from_scratch_and_without_root():
    for file in sorted((ROOT / "images").glob("*.Dockerfile")):
        final = file.read_text().rpartition("\nFROM ")[2]
        assert final.startswith("scratch\n") and "\nUSER 65532:65532\n" in final and "\nENTRYPOINT [" in final, file


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck")
def test_the_shell_scripts_pass_shellcheck():
    done = subprocess.run(["shellcheck", *sorted((ROOT / "images").glob("*.sh"))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
