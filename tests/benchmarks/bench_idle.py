"""What a platform that does nothing takes of memory and CPU, with four machines and their containers that wait.

Beside it, in the same run, what of that are the processes of Ray and Serve, which would be there without any of ours.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing

import docker
from bench_jobs import run_jobs

from support.measure import MIB, cpu_of_home, memory_of_home, name_of, print_table
from support.platform import Platform, running_platform

MACHINES = 4
CALM_S = 30.0
LOOK_S = 60.0
LOOKS = 12
OURS = ("ray::ControlActor", "ray::Machine", "ray::Janitor", "ray::ServeReplica:raymaker-frontend")
"""What the names of our own processes begin with."""


def main() -> None:
    """Bring a platform up, let it come to rest, and look at it for a minute."""
    with ExitStack() as stack:
        engine = stack.enter_context(closing(docker.from_env()))
        output = stack.enter_context(tempfile.TemporaryDirectory())
        platform = stack.enter_context(running_platform(driver="docker", warm_min=MACHINES, standby_containers=1))
        sagemaker = stack.enter_context(closing(platform.client("sagemaker")))
        run_jobs(sagemaker, "warm-up", 2 * MACHINES, output)
        time.sleep(CALM_S)
        waiting = engine.containers.list(filters={"label": ["raymaker.standby", f"raymaker.home={platform.home}"]})
        report(platform, len(waiting))


def report(platform: Platform, container_count: int) -> None:
    """Print both by process, and in sum."""
    peaks: Counter[str] = Counter()
    before, begun = cpu_of_home(platform.home), time.monotonic()
    for _ in range(LOOKS):
        seen: Counter[str] = Counter()
        for pid, size in memory_of_home(platform.home).items():
            seen[name_of(pid)] += size
        peaks |= seen
        time.sleep(LOOK_S / LOOKS)
    after, took_s = cpu_of_home(platform.home), time.monotonic() - begun
    shares: Counter[str] = Counter()
    for pid, cpu_s in after.items():
        shares[name_of(pid)] += (cpu_s - before.get(pid, 0.0)) / took_s
    ours = [name for name in peaks if name.startswith(OURS)]
    rows = [[name, f"{peaks[name] / MIB:.0f} MiB", f"{shares[name]:.1%}"] for name, _ in peaks.most_common()]
    for title, names in (("ours", ours), ("Ray's and Serve's", peaks.keys() - set(ours)), ("all", list(peaks))):
        memory, share = sum(peaks[name] for name in names), sum(shares[name] for name in names)
        rows.append([f"in sum: {title}", f"{memory / MIB:.0f} MiB", f"{share:.1%}"])
    title = f"an idle platform, {MACHINES} machines and {container_count} containers that wait, over {LOOK_S:.0f} s"
    print_table(title, ["", "peak memory (PSS)", "of a CPU"], rows)


if __name__ == "__main__":
    main()
