"""Writes the oracle: exported models with inputs and eager outputs, for tests that hold no Python.

    python tests/oracle/make_models.py OUT_DIR [--only NAME ...] [--big] [--force]

Cases that are up to date (same scripts, same torch) are left alone. case.py says what is written.
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import sys
import time
import warnings

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "examples" / "net"), str(ROOT / "examples" / "minilm")]


def fingerprint():
    """Digest of every script that shapes a case, and of the versions that trace it."""
    digest = hashlib.sha256()
    models = [ROOT / "examples" / "net" / "net.py", ROOT / "examples" / "minilm" / "minilm.py"]
    for path in [*sorted(HERE.rglob("*.py")), *models]:
        digest.update(path.read_bytes())
    for package in ("torch", "torchvision", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


def up_to_date(folder, stamp):
    try:
        return json.loads((folder / "case.json").read_text())["stamp"] == stamp
    except (OSError, ValueError, KeyError):
        return False


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="just these cases")
    parser.add_argument("--big", action="store_true", help="also the models of 1 GB and more")
    parser.add_argument("--force", action="store_true", help="also what is up to date")
    return parser.parse_args()


def main():
    args, stamp, start = arguments(), fingerprint(), time.monotonic()
    done = args.out / "stamp"
    wanted = f"{stamp} {'big' if args.big else ''}".strip()
    if not args.force and not args.only and done.exists() and done.read_text().startswith(wanted):
        return 0  # before torch is imported: seconds count in `make test`

    import cases
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(
        False
    )  # its fused operators are not what export records
    chosen = cases.select(args.only, args.big)
    failed = []
    for item in chosen:
        if not args.force and up_to_date(args.out / item.name, stamp):
            continue
        began = time.monotonic()
        try:
            cases.write(item, args.out, stamp)
            print(f"{item.name:24} {time.monotonic() - began:5.1f} s", flush=True)
        except Exception as error:  # the other cases are still worth having
            failed.append(item.name)
            print(
                f"{item.name:24} failed: {type(error).__name__}: {error}",
                file=sys.stderr,
                flush=True,
            )
            if args.only:
                raise
    if not failed and not args.only:
        done.write_text(wanted + "\n")
    print(f"{len(chosen) - len(failed)} cases under {args.out}, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
