"""helm, the chart and the CRD, as the tests here use them."""

import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/echelon"
CRD = ROOT / "crds/pipelinedeployments.yaml"
DEPS = pathlib.Path(os.environ.get("ECHELON_DEPS", ROOT / ".deps"))


def program(name):
    """From HELM, PROMTOOL or KUBECONFORM; from what `make deps-cluster` installs; from the PATH."""
    given = os.environ.get(name.upper())
    return given or shutil.which(name, path=f"{DEPS}/kube{os.pathsep}{os.environ.get('PATH', '')}")


def needed(name):
    path = program(name)
    if not path:
        target = "deps-test" if name == "promtool" else "deps-cluster"
        pytest.skip(f"there is no {name}; `make {target}` installs it, or name it by {name.upper()}")
    return path


@pytest.fixture(scope="session")
def helm():
    """Runs helm; gives (status, standard output, standard error)."""
    path = needed("helm")

    def run(*arguments):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def render(helm):
    """The chart's text for some values; it must render."""

    def run(*arguments):
        status, text, error = helm(
            "template", "echelon", CHART, "--namespace", "echelon-system", "--kube-version", "1.34.0", *arguments
        )
        assert status == 0, error
        return text

    return run


@pytest.fixture(scope="session")
def objects(render):
    def run(*arguments):
        return [item for item in yaml.safe_load_all(render(*arguments)) if item]

    return run


@pytest.fixture(scope="session")
def schema():
    """What the API server checks a PipelineDeployment by, CEL aside."""
    definition = yaml.safe_load(CRD.read_text())
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
