"""The end: nothing of ours is left."""

import re

import pytest
from conftest import cluster_objects
from kube import wait_until
from pipelines import NAMESPACE, Pipeline, manifest
from release import SYSTEM


@pytest.mark.short
def test_after_objects_release_and_crd_nothing_is_left(release, volume, cluster, before):
    net = Pipeline(cluster, "last", "net")
    cluster.apply(manifest("last"))
    net.wait_available()
    cluster.kubectl("delete", "pipelinedeployment", "--all", "-n", NAMESPACE)
    net.wait_gone()
    release.uninstall()
    cluster.kubectl("delete", "crd", "pipelinedeployments.echelon.dev", "--ignore-not-found")
    tests_own = re.compile(  # and what Kubernetes puts into every namespace
        rf"Namespace//({SYSTEM}|{NAMESPACE})$|PersistentVolume//|PersistentVolumeClaim/{NAMESPACE}/(models|once)$"
        r"|ConfigMap/.*/kube-root-ca.crt$|ServiceAccount/.*/default$"
    )

    def left():
        return sorted(line for line in cluster_objects(cluster) - before if not tests_own.match(line))

    try:
        wait_until(lambda: not left(), "nothing is left", 30)
    except AssertionError:
        assert not left()
