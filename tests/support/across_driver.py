"""Drives two machines of the exchange from a process of its own, since Ray's driver must be where a Ray node is.

    python -m support.across_driver ADDRESS FOLDER

Has them sum, with each engine; then, with gloo, over and over until they cannot. Says what came of it in JSON lines;
the machines say in FOLDER why they could go on no longer, since then nobody may reach them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import ray

from support.exchange_machines import Machines

ELEMENTS = 1_000_000


def main(address: str, folder: Path) -> None:
    ray.init(address=address, namespace="raymaker", log_to_driver=False)
    for name, has_torch in (("Objects", False), ("Gloo", True)):
        machines = Machines(2)
        engines = machines.open(f"sum-{name}", torch=(has_torch, has_torch))
        sums = machines.all("all_reduce", np.arange(ELEMENTS, dtype=np.float32), "sum")
        is_right = all(np.array_equal(it, 2 * np.arange(ELEMENTS, dtype=np.float32)) for it in sums)
        addresses = sorted(node["NodeManagerAddress"] for node in ray.nodes())
        say(addresses=addresses, engines=engines, is_right=is_right)
        machines.end()
    machines = Machines(2)
    machines.open("cut")
    for index, machine in enumerate(machines.actors):
        machine.sum_until_it_fails.remote(ELEMENTS, str(folder / str(index)))
    say(sums="endless")
    sys.stdin.read()


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
