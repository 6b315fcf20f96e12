"""The operator itself: killed, replaced, upgraded, while what it made goes on."""

import time

import models
from kube import name_of, wait_until
from pipelines import is_settled, manifest, uids
from traffic import Traffic

LEASE_S = 10


def revisions(pipeline):
    """Ours: StatefulSets have ControllerRevisions of their own, with the same labels."""
    listed = pipeline.listed("controllerrevisions")
    return [name_of(item) for item in listed if item["metadata"]["ownerReferences"][0]["kind"] == "PipelineDeployment"]


def image_of(pod):
    return pod["spec"]["containers"][0]["image"]


def test_an_operator_killed_in_a_rollout_is_followed_by_the_other(pipelines, release, cluster, figures):
    net, x = pipelines(manifest("orphaned")), models.net_input()
    answers = {path[:2]: models.net_answer(path, x) for path in models.NETS}
    leader, holder = release.leader(), release.holder()
    with Traffic(net, {"x": x}, answers) as traffic, net.watch() as own, net.watch("statefulsets") as sets:
        began = time.monotonic()
        net.patch({"model": {"path": "v2/net.pt2"}})
        sets.first(lambda o: True, "the new revision's StatefulSet is made", 30, since=began)
        cluster.kill_container(leader)
        killed = time.monotonic()
        wait_until(lambda: release.holder() not in ("", holder), "somebody else holds the lease", LEASE_S + 20)
        figures.add("operator killed (SIGKILL) in a rollout: the lease has a new holder after", time.monotonic() - killed)
        moment, _ = own.first(
            lambda o: o["spec"]["model"]["path"] == "v2/net.pt2" and is_settled(o), "the rollout is done", 120, since=began
        )
        figures.add("  the rollout is done after", moment - killed)
        wait_until(lambda: traffic.names[-1] == "v2", "requests go to the new model", 20)
    traffic.check()
    wait_until(release.all_ready, "both operators are ready again", 60)


def test_helm_upgrade_touches_no_pod(pipelines, release, cluster, figures):
    net, x = pipelines(manifest("steady")), models.net_input()
    before, operators = uids(net.pods()), uids(release.operators())
    revision, image = net.read()["status"]["currentRevision"], image_of(net.pods()[0])
    try:
        with Traffic(net, {"x": x}, {"v1": models.net_answer("v1/net.pt2", x)}) as traffic:
            began = time.monotonic()
            release.upgrade(runtime="localhost/echelon/runtime:of-another-day")
            figures.add("helm upgrade (new operator pods, another default image) until ready", time.monotonic() - began)
            wait_until(
                lambda: not operators.keys() & uids(release.operators()).keys() and release.leads(), "new operators lead", 60
            )
            cluster.kubectl("annotate", "pld/steady", "-n", net.namespace, "example.dev/look=again")
            cluster.kubectl("scale", "pld/steady", "-n", net.namespace, "--replicas=2")
            net.wait_available()
        traffic.check()
        after = uids(net.pods())
        assert before.items() <= after.items() and len(after) == 2 * len(before)
        assert {image_of(pod) for pod in net.pods()} == {image}, "the revision keeps the image it was made with"
        assert net.read()["status"]["currentRevision"] == revision
        assert revisions(net) == [f"steady-{revision}"]
    finally:
        release.upgrade()
    assert uids(net.pods()) == after
