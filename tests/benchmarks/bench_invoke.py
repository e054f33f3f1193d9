"""InvokeEndpoint beside nginx in front of the same container, the container itself, and a plain Serve application.

That application answers by itself: nothing that Serve carries can be quicker. The container is noop_server.c, which
answers faster than anything that could stand before it. wrk is the client of all, on connections that are kept; all
take turns, and ratios are of the medians over all rounds. One endpoint captures all that it is asked.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import docker

from raymaker.platform.client.connection import Connection
from support.measure import MIB, memory_of_home, print_table
from support.noop_hosting import (
    LARGEST,
    LARGEST_BODY_BYTES,
    ROW,
    Sample,
    Wrk,
    container_address,
    create_endpoint,
    deploy_beside,
    noop_image,
    running_nginx,
)
from support.platform import Platform, running_platform

ROUNDS = 7
CLIENT_COUNTS = (1, 32)
PLAIN, CAPTURING = "bench-plain", "bench-capturing"
STRAIGHT, NGINX, OURS, CAPTURED = "straight to the container", "nginx", "InvokeEndpoint", "InvokeEndpoint, captured"
SERVE = "plain Serve, no container"
MOST_OF_P50, LEAST_OF_RATE, MOST_OF_CAPTURE = 5.0, 0.1, 1.05

NOOP = """
import sys
import ray
from ray import serve
from ray.serve.schema import LoggingConfig

ray.init(address=sys.argv[1], namespace="bench")

class Answer:  # a function would be taken for what makes the application
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"11")]})
        await send({"type": "http.response.body", "body": b'{"score":1}'})

@serve.deployment(
    ray_actor_options={"num_cpus": 0},
    max_ongoing_requests=100,
    logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
)
@serve.ingress(Answer())
class Noop:
    pass

serve.run(Noop.bind(), name="bench-noop", route_prefix="/bench-noop")
"""


def main() -> None:
    """Measure all ways in turns: small bodies with one and many clients, then the largest body."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = stack.enter_context(noop_image(engine, folder))
        here = stack.enter_context(running_platform(driver="docker"))
        bring_up(here, image, folder)
        deploy_beside(here, NOOP)
        address = container_address(engine, PLAIN)
        nginx = stack.enter_context(running_nginx(folder, address))
        ways = {
            STRAIGHT: f"http://{address}/invocations",
            NGINX: f"http://127.0.0.1:{nginx}/invocations",
            OURS: f"{here.url}/endpoints/{PLAIN}/invocations",
            CAPTURED: f"{here.url}/endpoints/{CAPTURING}/invocations",
            SERVE: f"{here.url}/bench-noop",
        }
        small, large = Wrk.sending(ROW, folder), Wrk.sending(LARGEST, folder)
        for count in CLIENT_COUNTS:
            report(count, small.measure(ways, count, ROUNDS))
        del ways[CAPTURED], ways[SERVE]
        report_large(large.measure(ways, 1, ROUNDS))


def bring_up(here: Platform, image: str, folder: Path) -> None:
    """Create both endpoints, and print what one takes."""
    model = {"PrimaryContainer": {"Image": image}}
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": (folder / "captured").as_uri(),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    with contextlib.closing(Connection(here.url)) as connection:
        create_endpoint(connection, CAPTURING, model, DataCaptureConfig=capture)
        before = memory_of_home(here.home)
        create_endpoint(connection, PLAIN, model)
    after = memory_of_home(here.home)
    held = sum(size for pid, size in after.items() if pid not in before)
    print(f"memory of one more replica, its container left out: {held / MIB:.0f} MiB (PSS)")


def report(client_count: int, middle: dict[str, Sample]) -> None:
    """Print medians over the rounds, each with its ratio to nginx's."""
    nginx, ours = middle[NGINX], middle[OURS]
    rows = [
        [
            way,
            f"{seen.p50_us:.0f} us",
            f"{seen.p50_us / nginx.p50_us:.2f}",
            f"{seen.p99_us:.0f} us",
            f"{seen.p99_us / nginx.p99_us:.2f}",
            f"{seen.per_s:.0f}/s",
            f"{seen.per_s / nginx.per_s:.3f}",
        ]
        for way, seen in middle.items()
    ]
    title = f"{client_count} client{'s' * (client_count > 1)}, median of {ROUNDS} rounds"
    print_table(title, ["", "p50", "of nginx", "p99", "of nginx", "rate", "of nginx"], rows)
    if client_count == 1:
        say("p50", ours.p50_us / nginx.p50_us, "nginx's", most=MOST_OF_P50)
        say("p50 with capture", middle[CAPTURED].p50_us / ours.p50_us, "that without", most=MOST_OF_CAPTURE)
    else:
        say("rate", ours.per_s / nginx.per_s, "nginx's", least=LEAST_OF_RATE)


def report_large(middle: dict[str, Sample]) -> None:
    """Print how fast the largest body goes through."""
    rows = [
        [
            way,
            f"{seen.p50_us / 1000:.1f} ms",
            f"{seen.per_s * LARGEST_BODY_BYTES / MIB:.0f} MiB/s",
            f"{seen.per_s / middle[NGINX].per_s:.3f}",
        ]
        for way, seen in middle.items()
    ]
    title = f"bodies of {LARGEST_BODY_BYTES // MIB} MiB, 1 client, median of {ROUNDS} rounds"
    print_table(title, ["", "p50", "throughput", "of nginx"], rows)


def say(what: str, ratio: float, beside: str, *, most: float | None = None, least: float | None = None) -> None:
    """Print a ratio, and whether it is where it should be."""
    bound = f"at most {most:g}" if most is not None else f"at least {least:g}"
    is_reached = ratio <= most if most is not None else least is not None and ratio >= least
    print(f"{what}: {ratio:.2f} times {beside}; {bound}: {'reached' if is_reached else 'MISSED'}")


if __name__ == "__main__":
    main()
