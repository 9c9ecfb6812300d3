"""What a test suite does with testcontainers, told line by line: the same at an engine's socket and through the Docker endpoint."""

import os

# An authority that the machine is told to trust would be taken for the one that docker is told to.
for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs


def tell(what, value):
    print(f"{what}: {value!r}", flush=True)


SCRIPT = "trap 'exit 0' TERM; echo $GREETING; echo ready; while true; do sleep 0.1; done"

with DockerContainer("demo:1").with_env("GREETING", "hello").with_command(["sh", "-c", SCRIPT]).with_kwargs(network_mode="none") as web:
    wait_for_logs(web, "ready", timeout=20)
    tell("logs", web.get_logs())
    tell("exec", web.exec(["sh", "-c", "echo $GREETING; exit 3"]))
    wrapped = web.get_wrapped_container()
    wrapped.reload()
    tell("state", (wrapped.status, wrapped.image.tags, "org.testcontainers" in wrapped.labels))
    name = wrapped.name
tell("afterwards", [one.name for one in web.get_docker_client().client.containers.list(all=True) if one.name == name])
