"""ListMachines: the processes that run jobs on one machine, those that wait for one, and containers that wait."""

from __future__ import annotations

from raymaker.platform.operations.naming import as_time
from raymaker.platform.operations.registry import Answer, Context, Request, operation
from raymaker.platform.pools.seen import MachineStatus, SeenMachine

_ORDER = (MachineStatus.RUNNING, MachineStatus.KEPT, MachineStatus.WAITING, MachineStatus.WARMING)


@operation("ListMachines")
def list_machines(context: Context, _request: Request) -> Answer:
    """Tell of all machines, those that run something first, and of how many should wait. Raises ServiceUnavailable."""
    pool = context.cluster.pool()
    ordered = sorted(pool.machines, key=lambda it: (_ORDER.index(it.status), it.job_name or "", it.name))
    return {
        "Machines": [_describe(machine) for machine in ordered],
        "MinWaitingCount": pool.least,
        "MaxWaitingCount": pool.most,
        "WantedWaitingCount": pool.wanted,
        "RecentStartCount": pool.recent_starts,
        "WaitingContainers": [
            {"NodeId": it.node_id, "Image": it.image, "WaitingSince": as_time(it.since)}
            for it in sorted(pool.containers, key=lambda it: (it.node_id, it.since))
        ],
    }


def _describe(machine: SeenMachine) -> Answer:
    return {
        "MachineName": machine.name,
        "NodeId": machine.node_id,
        "MachineStatus": machine.status.value,
        "TrainingJobName": machine.job_name,
        "Attempt": machine.attempt,
        "RunCount": machine.run_count,
        "KeptUntil": as_time(machine.kept_until),
        "IdleSince": as_time(machine.since) if machine.since and machine.job_name is None else None,
    }
