#!/usr/bin/env python3
"""Writes the reference of an API out of its CustomResourceDefinition: tools/crd_docs.py CRD.yaml > docs/api.md"""

from __future__ import annotations

import pathlib
import sys

import yaml

HEAD = """\
# PipelineDeployment

`echelon.dev/v1alpha1`, short name `pld`. Made from `crds/pipelinedeployments.yaml` by `make chart`; `kubectl explain
pipelinedeployment.spec --recursive` says the same. A field without a default may be left out unless it is required.
"""
BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}


def type_of(schema: dict) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}s"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        return f"map of {type_of(schema['additionalProperties'])}s"
    return schema.get("type", "any")


def children(schema: dict) -> tuple[str, dict]:
    """What follows the field's name in its children's paths, and the schema that has them."""
    if schema.get("type") == "array":
        return "[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        return ".*", schema["additionalProperties"]
    return "", schema


def text_of(value) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def limits(schema: dict) -> list[str]:
    said = [words.format(f"{schema[key]:,}") for key, words in BOUNDS.items() if key in schema]
    if schema.get("minLength") == 1:
        said.remove("at least 1 characters")
    if "enum" in schema:
        said.insert(0, "one of " + ", ".join(f"`{value}`" if value != "" else "empty" for value in schema["enum"]))
    return said


def row(path: str, schema: dict, required: bool) -> str:
    notes = [" ".join(schema.get("description", "").split())]
    notes += [f"{text[0].upper()}{text[1:]}." for text in [", ".join(limits(schema))] if text]
    for rule in schema.get("x-kubernetes-validations", []):
        notes.append(f"*{' '.join(rule['message'].split())}.*")
    default = schema.get("default")
    if required:
        shown = "required"
    elif default is None or default == {} or default == []:
        shown = ""
    else:
        shown = f"`{text_of(default)}`"
    cells = [f"`{path}`", type_of(schema), shown, " ".join(note for note in notes if note)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def rows(path: str, schema: dict):
    suffix, inner = children(schema)
    for name, child in inner.get("properties", {}).items():
        here = f"{path}{suffix}.{name}"
        yield row(here, child, name in inner.get("required", []))
        yield from rows(here, child)


def reference(definition: dict) -> str:
    version = next(v for v in definition["spec"]["versions"] if v["storage"])
    schema = version["schema"]["openAPIV3Schema"]
    parts = [HEAD + "\n"]
    for rule in schema.get("x-kubernetes-validations", []):
        parts.append(f"- {' '.join(rule['message'].split())}.\n")
    for name in ("spec", "status"):
        top = schema["properties"][name]
        parts.append(f"\n## {name}\n\n{' '.join(top.get('description', '').split())}\n")
        for rule in top.get("x-kubernetes-validations", []):
            parts.append(f"\n- {' '.join(rule['message'].split())}.")
        parts.append("\n\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n")
        parts += [line + "\n" for line in rows(name, top)]
    parts.append("\n## Columns of `kubectl get`\n\n| column | from | meaning |\n| --- | --- | --- |\n")
    for column in version["additionalPrinterColumns"]:
        wide = " (with `-o wide`)" if column.get("priority") else ""
        parts.append(f"| {column['name']}{wide} | `{column['jsonPath']}` | {column.get('description', '')} |\n")
    return "".join(parts).replace("\n\n\n", "\n\n")


if __name__ == "__main__":
    print(reference(yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())), end="")
