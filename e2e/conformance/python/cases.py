"""What the Python client finds. Says a line a case: ok<TAB>CASE, FAIL<TAB>CASE<TAB>WHY or not run<TAB>CASE<TAB>WHY.

Wants KUBECONFIG and NAMESPACE, a namespace of its own that is there and empty.
"""

import json
import os
import time
import traceback

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError

NAMESPACE = os.environ["NAMESPACE"]
GROUP, VERSION = "gantry.dev", "v1alpha1"
APPLY = "application/apply-patch+yaml"

cases = []


def case(name):
    def register(claim):
        cases.append((name, claim))
        return claim

    return register


def expect(is_so, what):
    if not is_so:
        raise AssertionError(what)


def refused(code, call, *args, **kwargs):
    """The Status with which the call is refused."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        expect(error.status == code, f"refused with {error.status}, not {code}: {error.body}")
        return json.loads(error.body)
    raise AssertionError(f"not refused with {code}")


def get(path):
    api = client.ApiClient()
    answer = api.call_api(*api.param_serialize("GET", path, query_params=[], auth_settings=["BearerToken"]))
    answer.read()
    return json.loads(answer.data)


def eventually(what, probe, patience=20):
    end = time.monotonic() + patience
    while not probe():
        expect(time.monotonic() < end, f"waited {patience} s for {what}")
        time.sleep(0.05)


def config_map(name, labels=None, **data):
    metadata = {"name": name} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def instance(name, **spec):
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "DockerInstance", "metadata": {"name": name}, "spec": spec}


def names(items):
    return [item["metadata"]["name"] if isinstance(item, dict) else item.metadata.name for item in items]


config.load_kube_config()
core = client.CoreV1Api()
custom = client.CustomObjectsApi()
place = (GROUP, VERSION, NAMESPACE, "dockerinstances")


@case("version")
def version():
    said = client.VersionApi().get_code()
    expect((said.major, said.minor) == ("1", "33") and "+gantry" in said.git_version, said)


@case("discovery")
def discovery():
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    expect({GROUP, "coordination.k8s.io"} <= groups, groups)
    kinds = {resource.kind for resource in core.get_api_resources().resources}
    expect({"Namespace", "ConfigMap", "Secret", "Event"} <= kinds, kinds)
    ours = custom.get_api_resources(GROUP, VERSION).resources
    expect("dockerinstances/status" in {resource.name for resource in ours}, ours)


@case("openapi v2")
def openapi_v2():
    document = get("/openapi/v2")
    expect(document["swagger"] == "2.0" and document["definitions"], "no definitions")


@case("openapi v3")
def openapi_v3():
    for entry in get("/openapi/v3")["paths"].values():
        expect(get(entry["serverRelativeURL"])["components"]["schemas"], entry)


@case("namespaces")
def namespaces():
    name = f"{NAMESPACE}-inner"
    made = core.create_namespace({"metadata": {"name": name}})
    expect(made.status.phase == "Active", made.status)
    core.create_namespaced_config_map(name, config_map("inside"))
    expect(name in names(core.list_namespace().items), "it is not listed")
    core.delete_namespace(name)
    eventually("the namespace to go", lambda: name not in names(core.list_namespace().items))
    said = refused(404, core.create_namespaced_config_map, name, config_map("late"))
    expect(said["message"] == f'namespaces "{name}" not found', said["message"])


@case("secrets")
def secrets():
    made = core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "s"}, "stringData": {"password": "moon"}})
    expect(made.data == {"password": "bW9vbg=="} and made.type == "Opaque", made)
    made.data["more"] = "MQ=="
    expect(core.replace_namespaced_secret("s", NAMESPACE, made).data["more"] == "MQ==", "it is not replaced")
    core.delete_namespaced_secret("s", NAMESPACE)
    refused(404, core.read_namespaced_secret, "s", NAMESPACE)


@case("events")
def events():
    about = {"kind": "ConfigMap", "name": "about", "namespace": NAMESPACE}
    event = {"metadata": {"generateName": "about-"}, "involvedObject": about, "reason": "Tried", "type": "Warning", "message": "m"}
    core.create_namespaced_event(NAMESPACE, event)
    found = core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=about,type=Warning,reason=Tried")
    expect(len(found.items) == 1, found.items)
    expect(not core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=other").items, "others are listed")


@case("events.k8s.io")
def new_events():
    api = client.EventsV1Api()
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    event = {
        "metadata": {"name": "told"}, "regarding": {"kind": "ConfigMap", "name": "told", "namespace": NAMESPACE},
        "reason": "Told", "type": "Normal", "note": "a note", "eventTime": now, "action": "Tell",
        "reportingController": "gantry.dev/python", "reportingInstance": "one",
    }
    api.create_namespaced_event(NAMESPACE, event)
    old = core.read_namespaced_event("told", NAMESPACE)
    expect((old.message, old.involved_object.name) == ("a note", "told"), old)
    expect(api.read_namespaced_event("told", NAMESPACE).note == "a note", "it is not read back")
    # The client cannot read an Event without eventTime, which those of old have not.
    chosen = api.list_namespaced_event(NAMESPACE, field_selector="regarding.name=told,reason=Told")
    expect(names(chosen.items) == ["told"], chosen.items)


@case("create and get")
def create_and_get():
    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", k="v"))
    expect(made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp, made.metadata)
    expect(core.read_namespaced_config_map("a", NAMESPACE).data == {"k": "v"}, "it is not read back")
    said = refused(409, core.create_namespaced_config_map, NAMESPACE, config_map("a"))
    expect((said["reason"], said["message"]) == ("AlreadyExists", 'configmaps "a" already exists'), said)


@case("generateName")
def generate_name():
    made = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"generateName": "made-"}})
    expect(len(made.metadata.name) == len("made-") + 5, made.metadata.name)


@case("replace and conflict")
def replace():
    old = core.create_namespaced_config_map(NAMESPACE, config_map("replaced", k="1"))
    old.data = {"k": "2"}
    core.replace_namespaced_config_map("replaced", NAMESPACE, old)
    said = refused(409, core.replace_namespaced_config_map, "replaced", NAMESPACE, old)
    expect(said["reason"] == "Conflict" and "the object has been modified" in said["message"], said)


@case("patch: merge")
def merge_patch():
    custom.create_namespaced_custom_object(*place, instance("merged", displayName="old", description="kept"))
    patched = custom.patch_namespaced_custom_object(
        *place, "merged", {"spec": {"displayName": "new"}}, _content_type="application/merge-patch+json")
    expect((patched["spec"]["displayName"], patched["spec"]["description"]) == ("new", "kept"), patched)


@case("patch: json")
def json_patch():
    custom.create_namespaced_custom_object(*place, instance("listed", displayName="old"))
    send = lambda *patch: custom.patch_namespaced_custom_object(
        *place, "listed", list(patch), _content_type="application/json-patch+json")
    patched = send({"op": "replace", "path": "/spec/displayName", "value": "new"})
    expect(patched["spec"]["displayName"] == "new", patched)
    refused(422, send, {"op": "test", "path": "/spec/displayName", "value": "other"})


@case("patch: strategic")
def strategic_patch():
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "strategic", "finalizers": ["gantry.dev/a"]}})
    patched = core.patch_namespaced_config_map(
        "strategic", NAMESPACE, {"metadata": {"finalizers": ["gantry.dev/b"]}},
        _content_type="application/strategic-merge-patch+json")
    expect(sorted(patched.metadata.finalizers) == ["gantry.dev/a", "gantry.dev/b"], patched.metadata.finalizers)
    patched = core.patch_namespaced_config_map(
        "strategic", NAMESPACE, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["gantry.dev/a", "gantry.dev/b"]}},
        _content_type="application/strategic-merge-patch+json")
    expect(not patched.metadata.finalizers, patched.metadata.finalizers)
    custom.create_namespaced_custom_object(*place, instance("no-strategy"))
    said = refused(415, custom.patch_namespaced_custom_object, *place, "no-strategy", {},
                   _content_type="application/strategic-merge-patch+json")
    expect(said["reason"] == "UnsupportedMediaType", said)


@case("apply: create")
def apply_creates():
    made = core.patch_namespaced_config_map(
        "applied", NAMESPACE, config_map("applied", k="v"), field_manager="python", _content_type=APPLY)
    expect(made.data == {"k": "v"}, made)
    managers = [(entry.manager, entry.operation) for entry in made.metadata.managed_fields]
    expect(managers == [("python", "Apply")], managers)
    again = core.patch_namespaced_config_map(
        "applied", NAMESPACE, config_map("applied", other="w"), field_manager="python", _content_type=APPLY)
    expect(again.data == {"other": "w"}, f"what is no longer applied stays: {again.data}")


@case("apply: conflict and force")
def apply_conflicts():
    send = lambda manager, value, **more: core.patch_namespaced_config_map(
        "fought-over", NAMESPACE, config_map("fought-over", k=value), field_manager=manager, _content_type=APPLY, **more)
    send("one", "1")
    said = refused(409, send, "two", "2")
    expect([cause["reason"] for cause in said["details"]["causes"]] == ["FieldManagerConflict"], said)
    expect(send("two", "2", force=True).data == {"k": "2"}, "force does not take it")
    refused(409, send, "one", "1")


@case("apply: own kinds and status")
def apply_own_kinds():
    # What a PATCH has created (201) this client does not hand on, so it is read back.
    custom.patch_namespaced_custom_object(
        *place, "applied", instance("applied", displayName="x"), field_manager="python", _content_type=APPLY)
    made = custom.get_namespaced_custom_object(*place, "applied")
    expect(made["spec"]["displayName"] == "x", made)
    managers = {entry["manager"] for entry in made["metadata"]["managedFields"]}
    expect("python" in managers, managers)
    status = instance("applied") | {"status": {"agentVersion": "9"}}
    del status["spec"]
    stated = custom.patch_namespaced_custom_object_status(
        *place, "applied", status, field_manager="reporter", force=True, _content_type=APPLY)
    owned = [entry for entry in stated["metadata"]["managedFields"] if entry["manager"] == "reporter"]
    expect([entry.get("subresource") for entry in owned] == ["status"], owned)


@case("paging")
def paging():
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{number}", {"paged": "yes"}))
    seen, token, pages = [], None, 0
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="paged", limit=2, _continue=token)
        seen, token, pages = seen + names(page.items), page.metadata._continue, pages + 1
        if not token:
            break
    expect(seen == [f"page-{number}" for number in range(5)] and pages == 3, seen)
    first = core.list_namespaced_config_map(NAMESPACE, limit=1)
    expect(first.metadata.remaining_item_count > 0, first.metadata)
    picked = core.list_namespaced_config_map(NAMESPACE, limit=1, label_selector="paged")
    expect(picked.metadata.remaining_item_count is None, "a count with a selector is a guess")


@case("selectors")
def selectors():
    for name, team in [("s-red", "red"), ("s-blue", "blue"), ("s-none", None)]:
        labels = {"chosen": "yes"} | ({"team": team} if team else {})
        core.create_namespaced_config_map(NAMESPACE, config_map(name, labels))
    listed = lambda text: names(core.list_namespaced_config_map(NAMESPACE, label_selector="chosen," + text).items)
    for text, wanted in [
        ("team=red", ["s-red"]), ("team==red", ["s-red"]), ("team!=red", ["s-blue", "s-none"]),
        ("team in (red,blue)", ["s-blue", "s-red"]), ("team notin (red)", ["s-blue", "s-none"]),
        ("team", ["s-blue", "s-red"]), ("!team", ["s-none"]), ("team,team!=blue", ["s-red"]),
    ]:
        expect(listed(text) == wanted, f"{text} lists {listed(text)}")
    refused(400, core.list_namespaced_config_map, NAMESPACE, label_selector="a b")


@case("field selectors")
def field_selectors():
    chosen = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=s-red")
    expect(names(chosen.items) == ["s-red"], names(chosen.items))
    said = refused(400, core.list_namespaced_config_map, NAMESPACE, field_selector="data.k=1")
    expect(said["message"].endswith("field label not supported: data.k"), said["message"])
    custom.create_namespaced_custom_object(*place, instance("by-health"))
    healthy = lambda: custom.list_namespaced_custom_object(*place, field_selector="status.health=Unknown")["items"]
    eventually("the instance to be Unknown", lambda: "by-health" in names(healthy()))


@case("watch")
def watches():
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("w", k="1"))
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"k": "2"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=start, field_selector="metadata.name=w", timeout_seconds=3)
    seen = [(event["type"], event["object"].data["k"]) for event in stream]
    expect(seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen)


@case("watch: resume")
def resumes():
    watcher, seen = watch.Watch(), []
    core.create_namespaced_config_map(NAMESPACE, config_map("r-1", {"resumed": "yes"}))
    for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, label_selector="resumed", timeout_seconds=1):
        seen.append(event["object"].metadata.name)
    version = watcher.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("r-2", {"resumed": "yes"}))
    for event in watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE, label_selector="resumed", resource_version=version, timeout_seconds=1):
        seen.append(event["object"].metadata.name)
    expect(seen == ["r-1", "r-2"], seen)


@case("watch: bookmarks")
def bookmarks():
    stream = watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, allow_watch_bookmarks=True, timeout_seconds=1)
    kinds = [event["type"] for event in stream]
    expect(kinds[-1:] == ["BOOKMARK"], f"a watch ends without one: {kinds}")


@case("watch: initial events")
def initial_events():
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, send_initial_events=True, resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True, timeout_seconds=5)
    seen = []
    for event in stream:
        if event["type"] == "BOOKMARK":
            marks = event["raw_object"]["metadata"].get("annotations", {})
            expect(marks.get("k8s.io/initial-events-end") == "true", event["raw_object"])
            break
        seen.append(event["object"].metadata.name)
    expect(seen == names(core.list_namespaced_config_map(NAMESPACE).items), seen)


@case("dynamic client")
def dynamic_client():
    api = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version=f"{GROUP}/{VERSION}", kind="DockerInstance")
    api.create(body=instance("dynamic", displayName="x"), namespace=NAMESPACE)
    expect(api.get(name="dynamic", namespace=NAMESPACE).spec.displayName == "x", "it is not read back")
    api.patch(body={"spec": {"displayName": "y"}}, name="dynamic", namespace=NAMESPACE,
              content_type="application/merge-patch+json")
    expect("dynamic" in [item.metadata.name for item in api.get(namespace=NAMESPACE).items], "it is not listed")
    for event in api.watch(namespace=NAMESPACE, timeout=2, field_selector="metadata.name=dynamic"):
        expect(event["object"].spec.displayName == "y", event)
        break
    api.delete(name="dynamic", namespace=NAMESPACE)
    try:
        dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="Pod")
    except ResourceNotFoundError:
        return
    raise AssertionError("a kind that is not served is found")


@case("dynamic client: apply")
def dynamic_apply():
    api = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    made = api.server_side_apply(body=config_map("dynamic-applied", k="v"), namespace=NAMESPACE, field_manager="python")
    expect(made.data.k == "v", made)


@case("status subresource")
def status():
    custom.create_namespaced_custom_object(*place, instance("stated", paused=True))
    read = custom.get_namespaced_custom_object_status(*place, "stated")
    patched = custom.patch_namespaced_custom_object_status(
        *place, "stated", {"spec": {"displayName": "ignored"}, "status": {"engineVersion": "1"}},
        _content_type="application/merge-patch+json")
    expect("displayName" not in patched["spec"], patched["spec"])
    expect(read["metadata"]["generation"] == patched["metadata"]["generation"], "a status counted as a new wish")


@case("field validation")
def field_validation():
    wrong = instance("validated", wrong=1)
    said = refused(400, custom.create_namespaced_custom_object, *place, wrong, field_validation="Strict")
    expect('strict decoding error: unknown field "spec.wrong"' in said["message"], said["message"])
    _, _, headers = custom.create_namespaced_custom_object_with_http_info(*place, wrong, field_validation="Warn")
    expect('unknown field \\"spec.wrong\\"' in headers.get("Warning", ""), dict(headers))
    custom.delete_namespaced_custom_object(*place, "validated")
    made, _, headers = custom.create_namespaced_custom_object_with_http_info(*place, wrong, field_validation="Ignore")
    expect("Warning" not in headers and "wrong" not in made["spec"], made)
    said = refused(422, custom.create_namespaced_custom_object, *place, instance("validated-2", paused="perhaps"))
    expect(said["reason"] == "Invalid" and said["details"]["causes"], said)


@case("dry run")
def dry_run():
    core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    refused(404, core.read_namespaced_config_map, "dry", NAMESPACE)
    refused(422, core.create_namespaced_config_map, NAMESPACE, config_map("dry"), dry_run="Some")


@case("finalizers")
def finalizers():
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "held", "finalizers": ["gantry.dev/hold"]}})
    core.delete_namespaced_config_map("held", NAMESPACE)
    held = core.read_namespaced_config_map("held", NAMESPACE)
    expect(held.metadata.deletion_timestamp, held.metadata)
    core.patch_namespaced_config_map("held", NAMESPACE, {"metadata": {"finalizers": None}},
                                     _content_type="application/merge-patch+json")
    refused(404, core.read_namespaced_config_map, "held", NAMESPACE)


def family(name):
    owner = core.create_namespaced_config_map(NAMESPACE, config_map(name))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": owner.metadata.uid, "blockOwnerDeletion": True}
    child = config_map(f"{name}-child")
    child["metadata"]["ownerReferences"] = [reference]
    core.create_namespaced_config_map(NAMESPACE, child)
    return lambda which: which in names(core.list_namespaced_config_map(NAMESPACE).items)


@case("delete: background")
def background():
    is_there = family("back")
    core.delete_namespaced_config_map("back", NAMESPACE, propagation_policy="Background")
    expect(not is_there("back"), "the owner waits")
    eventually("the child to go", lambda: not is_there("back-child"))


@case("delete: foreground")
def foreground():
    is_there = family("fore")
    core.delete_namespaced_config_map("fore", NAMESPACE, body=client.V1DeleteOptions(propagation_policy="Foreground"))
    eventually("both to go", lambda: not is_there("fore") and not is_there("fore-child"))


@case("delete: orphan")
def orphan():
    is_there = family("lone")
    core.delete_namespaced_config_map("lone", NAMESPACE, propagation_policy="Orphan")
    eventually("the owner to go", lambda: not is_there("lone"))
    child = core.read_namespaced_config_map("lone-child", NAMESPACE)
    expect(not child.metadata.owner_references, child.metadata)


@case("delete: preconditions")
def preconditions():
    core.create_namespaced_config_map(NAMESPACE, config_map("guarded"))
    options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    refused(409, core.delete_namespaced_config_map, "guarded", NAMESPACE, body=options)


@case("delete: collection")
def delete_collection():
    for number in range(3):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"many-{number}", {"many": "yes"}))
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="many")
    expect(not core.list_namespaced_config_map(NAMESPACE, label_selector="many").items, "some are left")
    expect(core.list_namespaced_config_map(NAMESPACE).items, "others went too")


@case("leader election")
def leader_election():
    api = client.CoordinationV1Api()
    made = api.create_namespaced_lease(NAMESPACE, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}})
    made.spec.holder_identity = "b"
    api.replace_namespaced_lease("l", NAMESPACE, made)
    refused(409, api.replace_namespaced_lease, "l", NAMESPACE, made)


@case("create from a manifest")
def from_manifest():
    utils.create_from_dict(client.ApiClient(), config_map("from-manifest", k="v"), namespace=NAMESPACE)
    expect(core.read_namespaced_config_map("from-manifest", NAMESPACE).data == {"k": "v"}, "it is not read back")


@case("whoami")
def whoami():
    try:
        said = client.AuthenticationV1Api().create_self_subject_review({})
    except ApiException as error:
        if error.status == 404:
            return "not served yet: authentication.k8s.io"
        raise
    expect(said.status.user_info.username, said)


for name, claim in cases:
    try:
        not_run = claim()
        print(f"not run\t{name}\t{not_run}" if not_run else f"ok\t{name}", flush=True)
    except Exception as error:  # noqa: BLE001: whatever it is, it is this case's
        line = traceback.extract_tb(error.__traceback__)
        where = next((frame.lineno for frame in reversed(line) if frame.filename == __file__), "?")
        said = f"{error.status} {error.body}" if isinstance(error, ApiException) else error
        why = " ".join(f"{type(error).__name__}: {said}".split())
        print(f"FAIL\t{name}\tline {where}: {why}", flush=True)
