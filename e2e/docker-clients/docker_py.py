"""What people do with docker-py, told line by line: the same at an engine's socket and through the Docker endpoint.

Ids, times and figures differ between two runs and are not told. DOCKER_HOST and its like say which engine; REGISTRY is a private one.
"""

import io
import os
import socket
import tarfile
import threading
import time

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount

# An authority that the machine is told to trust would be taken for the one that docker is told to.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)
client = docker.from_env(timeout=60)
IMAGE = "demo:1"
LOOP = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]


def tell(what, value):
    print(f"{what}: {value!r}", flush=True)


def fails(what, call, *args, **kwargs):
    try:
        tell(what, call(*args, **kwargs))
    except (APIError, ContainerError, BuildError) as error:
        code = getattr(error, "status_code", None)
        words = getattr(error, "explanation", None) or str(error)
        tell(what, (type(error).__name__, code, words))


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def run(command, **kwargs):
    return client.containers.run(IMAGE, command, network_mode="none", **kwargs)


def engine():
    tell("ping", client.ping())
    tell("version", (client.version()["Version"], client.version()["ApiVersion"], client.api.api_version))
    info = client.info()
    tell("info", (info["Driver"], info["OSType"], info["ServerVersion"], info["DockerRootDir"]))
    tell("df", sorted(client.df()))


def containers():
    tell("run", run(["sh", "-c", "echo out; sleep 0.3; echo err >&2"], remove=True, stderr=True))
    fails("run that fails", run, ["sh", "-c", "echo err >&2; exit 3"], remove=True)
    fails("run of nothing", client.containers.create, "nothing:1", "true")
    web = run(LOOP, detach=True, name="web", environment={"A": "b"}, labels={"l": "m"}, mem_limit="64m",
              log_config=LogConfig(type="json-file", config={"max-size": "1m"}), tmpfs={"/t": "size=1m"})
    tell("get", (web.name, web.status, client.containers.get("web").status, web.labels, web.image.tags))
    fails("get of nothing", client.containers.get, "nothing")
    tell("list", [c.name for c in client.containers.list(filters={"label": "l=m", "status": "running"})])
    tell("attrs", (web.attrs["Config"]["Env"], web.attrs["HostConfig"]["Memory"], web.attrs["HostConfig"]["Tmpfs"]))
    fails("conflict", lambda: len(run(LOOP, detach=True, name="web").id))
    web.rename("shop")
    web.reload()
    tell("rename", web.name)
    web.update(mem_limit="100m", memswap_limit="200m")
    web.reload()
    tell("update", web.attrs["HostConfig"]["Memory"])
    web.pause()
    web.reload()
    tell("pause", web.status)
    web.unpause()
    web.restart(timeout=1)
    top = web.top(ps_args="-o pid,comm")
    tell("top", (top["Titles"], sorted({words[1] for words in top["Processes"]})))
    once = web.stats(stream=False)
    tell("stats", (once["name"], "cpu_stats" in once, once["pids_stats"].get("current", 0) > 0))
    with_stream = web.stats(stream=True, decode=True)
    tell("stats in a stream", [next(with_stream)["name"] for _ in range(2)])
    with_stream.close()
    web.kill("TERM")
    tell("wait", web.wait()["StatusCode"])
    fails("kill of what is dead", web.kill)
    web.start()
    tell("diff", web.diff())
    web.stop(timeout=2)
    web.remove(v=True)
    fails("remove of what is gone", web.remove)
    ended = run(["sh", "-c", "sleep 1; exit 7"], detach=True)
    tell("wait for removal", ended.wait(condition="not-running", timeout=20)["StatusCode"])
    ended.remove(force=True)
    tell("prune", client.containers.prune(filters={"label": "none"})["ContainersDeleted"])
    made = client.containers.create(IMAGE, ["cat"], stdin_open=True, network_mode="none", name="made",
                                    mounts=[Mount("/m", "kept", type="volume")], volumes=["/own"])
    tell("create", (made.status, sorted(mount["Type"] for mount in made.attrs["Mounts"])))
    made.remove(v=True)
    client.volumes.get("kept").remove()


def logs():
    talk = run(["sh", "-c", "for i in 1 2 3; do echo out $i; sleep 0.2; echo err $i >&2; sleep 0.2; done"], detach=True)
    tell("logs -f", b"".join(sorted(talk.logs(stream=True, follow=True))))
    tell("logs", sorted(talk.logs().splitlines()))
    tell("stdout", talk.logs(stderr=False))
    tell("stderr of the end", talk.logs(stdout=False, tail=1))
    tell("times", [line.split()[0].endswith(b"Z") for line in talk.logs(timestamps=True, tail=2).splitlines()])
    tell("since", talk.logs(since=int(time.time()) + 100))
    fails("logs of a follower", lambda: [piece for piece in talk.logs(stream=True, tail=1, stderr=False)])
    talk.remove()
    terminal = run(["sh", "-c", "echo out; echo err >&2"], detach=True, tty=True)
    terminal.wait()
    tell("tty", terminal.logs())
    terminal.remove()


def commands(web):
    tell("exec", tuple(web.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)))
    tell("exec as", web.exec_run("sh -c 'id -u; pwd; echo $A'", user="7", workdir="/bin", environment={"A": "b"}).output)
    tell("exec on a terminal", web.exec_run("echo hi", tty=True).output)
    tell("exec in a stream", b"".join(web.exec_run(["sh", "-c", "echo 1; sleep 0.3; echo 2"], stream=True).output))
    both = web.exec_run(["sh", "-c", "echo out; sleep 0.3; echo err >&2"], stream=True, demux=True).output
    tell("exec in two streams", [piece for piece in both])
    tell("exec, detached", web.exec_run("true", detach=True).output)
    fails("exec of nothing", lambda: web.exec_run("nothing").exit_code)
    made = client.api.exec_create(web.id, ["sh", "-c", "cat; sleep 2; echo end; exit 9"], stdin=True)
    sent = client.api.exec_start(made["Id"], socket=True)
    raw = getattr(sent, "_sock", sent)
    raw.sendall(b"typed\n")
    # TLS of Python cannot close one way only; the other side of the same is tried with the socket.
    if isinstance(raw, socket.socket) and not hasattr(raw, "cipher"):
        raw.shutdown(socket.SHUT_WR)
    tell("exec by a socket", raw.recv(100))
    sent.close()
    raw.close()
    resized = client.api.exec_create(web.id, "cat", tty=True, stdin=True)
    terminal = client.api.exec_start(resized["Id"], tty=True, socket=True)
    client.api.exec_resize(resized["Id"], height=10, width=20)
    inspected = client.api.exec_inspect(resized["Id"])
    tell("exec inspect", (inspected["Running"], inspected["ProcessConfig"]["tty"], inspected["OpenStdin"]))
    raw = getattr(terminal, "_sock", terminal)
    terminal.close()
    raw.close()


def attach():
    talk = client.containers.create(IMAGE, ["sh", "-c", "read a; echo got $a; exit 5"], stdin_open=True, network_mode="none")
    tied = talk.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    talk.start()
    raw = getattr(tied, "_sock", tied)
    raw.sendall(b"word\n")
    tell("attach", raw.recv(100))
    tell("attach ends", (raw.recv(100), talk.wait()["StatusCode"]))
    tied.close()
    raw.close()
    talk.remove()


def files(web):
    tell("put", web.put_archive("/", archive({"a/b.txt": b"content", "c.bin": bytes(100_000)})))
    bits, stat = web.get_archive("/a/b.txt")
    whole = io.BytesIO(b"".join(bits))
    with tarfile.open(fileobj=whole) as tar:
        tell("get archive", (stat["name"], stat["size"], tar.getnames(), tar.extractfile("b.txt").read()))
    fails("get of no file", web.get_archive, "/nothing")
    fails("put nowhere", web.put_archive, "/nothing", archive({"a": b"b"}))
    exported = io.BytesIO(b"".join(web.export()))
    with tarfile.open(fileobj=exported) as tar:
        tell("export", "a/b.txt" in tar.getnames())
    tell("diff", sorted(change["Path"] for change in web.diff()))


def images(web):
    snap = web.commit("snap", "1", message="note", author="me", changes=["ENV X=y"])
    tell("commit", (snap.tags, snap.attrs["Comment"], snap.attrs["Config"]["Env"]))
    tell("tag", (snap.tag("snap", "2"), sorted(client.images.get("snap:2").tags)))
    tell("history", [step["Comment"] for step in snap.history()][:1])
    saved = b"".join(snap.save(named=True))
    client.images.remove("snap:2")
    client.images.remove("snap:1")
    fails("get of no image", client.images.get, "snap:1")
    tell("load", [image.tags for image in client.images.load(saved)])
    tell("list", sorted(tag for image in client.images.list(filters={"reference": "s*"}) for tag in image.tags))
    client.images.remove("snap:1", force=True)
    fails("remove of no image", client.images.remove, "snap:1")
    context = archive({"Dockerfile": f"FROM {IMAGE}\nARG A\nCOPY f /f\nRUN echo $A > /made\n".encode(), "f": b"file"})
    built, told = client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag="built:1", buildargs={"A": "b"},
                                      network_mode="none", labels={"l": "m"}, rm=True, pull=False)
    steps = [line["stream"].strip() for line in told if line.get("stream", "").startswith("Step")]
    tell("build", (built.tags, steps, built.labels))
    tell("built", client.containers.run("built:1", "cat /f /made", network_mode="none", remove=True))
    broken = archive({"Dockerfile": f"FROM {IMAGE}\nRUN exit 9\n".encode()})
    fails("build that fails", client.images.build, fileobj=io.BytesIO(broken), custom_context=True, network_mode="none")
    fails("build of nonsense", client.images.build, fileobj=io.BytesIO(b"NONSENSE\n"))
    client.images.remove("built:1")
    fails("import", lambda: "status" in client.api.import_image_from_data(archive({"x": b"y"}), "made", "1"))
    client.images.remove("made:1")
    tell("prune", sorted(client.images.prune(filters={"label": "none"})))


def registry():
    name = os.environ["REGISTRY"]
    account = {"username": "robot", "password": "right"}
    client.images.get(IMAGE).tag(f"{name}/team/py", "1")
    fails("login", lambda: client.login(registry=name, **account)["Status"])
    fails("login with another password", client.login, username="robot", password="wrong", registry=name, reauth=True)
    pushed = client.images.push(f"{name}/team/py", "1", auth_config=account, stream=True, decode=True)
    tell("push", [line["aux"]["Tag"] for line in pushed if "aux" in line])
    client.images.remove(f"{name}/team/py:1")
    tell("pull", client.images.pull(f"{name}/team/py", "1", auth_config=account).tags)
    lines = client.api.pull(f"{name}/team/py", "1", auth_config=account, stream=True, decode=True)
    tell("pull in a stream", [line["status"].split(" ")[0] for line in lines][-1:])
    tell("distribution", sorted(client.images.get_registry_data(f"{name}/team/py:1", auth_config=account).attrs))
    fails("pull of nothing", client.images.pull, f"{name}/team/nothing", "1", auth_config=account)
    fails("pull by a stranger", client.images.pull, f"{name}/team/py", "1", auth_config={"username": "x", "password": "y"})
    client.images.remove(f"{name}/team/py:1")


def networks():
    pool = docker.types.IPAMPool(subnet="10.213.8.0/24", gateway="10.213.8.1")
    made = client.networks.create("private", driver="bridge", labels={"l": "m"}, internal=True,
                                  ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    tell("network", (made.name, made.attrs["Internal"], made.attrs["IPAM"]["Config"], made.attrs["Labels"]))
    tell("networks", [network.name for network in client.networks.list(filters={"label": "l=m"})])
    peer = client.containers.run(IMAGE, LOOP, detach=True, network="private", name="peer")
    made.reload()
    tell("in it", [container.name for container in made.containers])
    made.disconnect(peer)
    made.connect(peer, aliases=["friend"], ipv4_address="10.213.8.9")
    peer.reload()
    tell("address", peer.attrs["NetworkSettings"]["Networks"]["private"]["IPAddress"])
    fails("connect again", made.connect, peer)
    fails("remove while in use", made.remove)
    peer.remove(force=True)
    made.remove()
    fails("get of no network", client.networks.get, "private")
    tell("prune", client.networks.prune(filters={"label": "none"}))


def volumes():
    made = client.volumes.create("data", labels={"l": "m"})
    tell("volume", (made.name, made.attrs["Driver"], made.attrs["Labels"]))
    tell("volumes", [volume.name for volume in client.volumes.list(filters={"label": "l=m"})])
    tell("used", run("sh -c 'echo kept > /d/f; cat /d/f'", volumes={"data": {"bind": "/d", "mode": "rw"}}, remove=True))
    fails("read-only", run, ["sh", "-c", "echo > /d/g"], volumes={"data": {"bind": "/d", "mode": "ro"}}, remove=True)
    made.remove()
    fails("get of no volume", client.volumes.get, "data")
    tell("prune", sorted(client.volumes.prune(filters={"label": "none"})))


def events():
    seen = []
    since = int(time.time())
    following = client.events(decode=True, filters={"container": "seen", "event": ["create", "start", "die", "destroy"]})

    def follow():
        for event in following:
            seen.append((event["Action"], event["Actor"]["Attributes"]["name"]))
            if event["Action"] == "destroy":
                break

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(1)
    run("true", name="seen", remove=True)
    thread.join(20)
    following.close()
    tell("events", seen)
    past = client.events(since=since, until=int(time.time()) + 1, decode=True, filters={"container": "seen", "event": "die"})
    tell("events of the past", [event["Action"] for event in past])


engine()
containers()
logs()
web = run(LOOP, detach=True, name="web")
commands(web)
files(web)
images(web)
web.remove(force=True)
attach()
registry()
networks()
volumes()
events()
