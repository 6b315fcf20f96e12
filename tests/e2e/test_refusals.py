"""Objects that cannot work are refused in words that say what to do, at the door or in their status."""

import json

import pytest
from kube import condition_of
from pipelines import NAMESPACE, Pipeline, manifest

AT_THE_DOOR = {  # what is changed in a good object: what kubectl says
    "a name of 38 characters": (lambda o: o["metadata"].update(name="n" * 38), "at most 37 characters"),
    "a name with a dot": (lambda o: o["metadata"].update(name="a.b"), "lower-case letters, digits and '-'"),
    "no model": (lambda o: o["spec"].pop("model"), "spec.model: Required value"),
    "an absolute path": (lambda o: o["spec"]["model"].update(path="/net.pt2"), "leave out the leading '/'"),
    "a path that leaves the volume": (lambda o: o["spec"]["model"].update(path="../net.pt2"), "must not contain"),
    "a claim without its type": (
        lambda o: o["spec"]["model"]["source"].update(type="Image"),
        "source.pvc goes with type PVC",
    ),
    "stages below zero": (lambda o: o["spec"]["parallelism"].update(stages=-1), "parallelism.stages"),
    "a rank too many": (
        lambda o: o["spec"].update(overrides=[{"name": "big", "firstRank": 2}]),
        "firstRank + count must be at most parallelism.stages",
    ),
    "one rank in two overrides": (
        lambda o: o["spec"].update(overrides=[{"name": "a", "firstRank": 0}, {"name": "b", "firstRank": 0}]),
        "two of them cover the same rank",
    ),
    "nothing may ever be replaced": (
        lambda o: o["spec"].update(rollout={"maxSurge": 0, "maxUnavailable": 0}),
        "maxSurge or maxUnavailable must be at least 1",
    ),
    "a dtype for a .pt2": (lambda o: o["spec"]["model"].update(dtype="f32"), "belong to Hugging Face directories"),
}
IN_STATUS = {  # what is changed: reason, and words of the message
    "several ranks in a pod": (lambda o: o["spec"]["parallelism"].update(ranksPerPod=2), "NotSupported", "ranksPerPod"),
    "automatic stages": (lambda o: o["spec"]["parallelism"].update(stages=0), "NotSupported", "stages"),
    "spares": (lambda o: o["spec"].update(failurePolicy={"spares": 1}), "NotSupported", "spares"),
    "a gang": (lambda o: o["spec"].update(scheduling={"gang": "Workload"}), "NotSupported", "gang"),
    "a template of no pod": (
        lambda o: o["spec"].update(template={"spec": {"containers": [{"name": "stage", "imagePullPolicy": 7}]}}),
        "InvalidTemplate",
        "imagePullPolicy",
    ),
    "a volume that one node alone may mount": (
        lambda o: o["spec"]["model"]["source"].update(pvc={"claimName": "once"}),
        "VolumeNotShared",
        "ReadWriteOnce",
    ),
}


@pytest.mark.parametrize("case", AT_THE_DOOR)
def test_the_api_server_refuses(cluster, release, volume, case):
    change, said = AT_THE_DOOR[case]
    wrong = manifest("wrong")
    change(wrong)
    assert said in cluster.refusal("apply", "-f", "-", given=json.dumps(wrong))


@pytest.mark.parametrize("case", IN_STATUS)
def test_the_operator_refuses_and_makes_nothing(cluster, release, volume, case):
    change, reason, said = IN_STATUS[case]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "once", "namespace": NAMESPACE},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        }
    )
    wrong = manifest("wrong")
    change(wrong)
    pipeline = Pipeline(cluster, "wrong", "net")
    cluster.apply(wrong)
    try:
        with pipeline.watch() as own:
            _, item = own.first(
                lambda o: (condition_of(o, "Progressing") or {}).get("reason") == reason, f"it is refused: {reason}", 20
            )
        assert said in condition_of(item, "Progressing")["message"]
        assert condition_of(item, "Available")["status"] == "False"
        assert not pipeline.listed("statefulsets") and not pipeline.pods()
    finally:
        pipeline.delete()
        pipeline.wait_gone()


def test_a_service_of_somebody_else_is_left_alone(cluster, release, volume):
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken", "namespace": NAMESPACE}}
    cluster.apply(service | {"spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]}})
    pipeline = Pipeline(cluster, "taken", "net")
    cluster.apply(manifest("taken"))
    try:
        with pipeline.watch() as own:
            own.first(
                lambda o: any(c.get("reason") == "NameTaken" for c in o.get("status", {}).get("conditions", [])),
                "NameTaken is in the status",
                20,
            )
        kept = cluster.get("services", "taken", NAMESPACE)
        assert kept["spec"]["selector"] == {"app": "mine"} and "ownerReferences" not in kept["metadata"]
    finally:
        pipeline.delete()
        cluster.kubectl("delete", "service", "taken", "-n", NAMESPACE)
        pipeline.wait_gone()
