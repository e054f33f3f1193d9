"""The command that shows the machines that run jobs, and the machines and containers that wait for some."""

from __future__ import annotations

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of


def pools(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the machines that run jobs of one instance or wait for one, and why so many; and containers that wait."""
    found = client_of(ctx).machines()
    if as_json:
        display.show_json(found)
        return
    rows = (
        (
            it["MachineName"].removeprefix("machine/"),
            (it.get("NodeId") or "")[:8],
            it["MachineStatus"],
            it.get("TrainingJobName"),
            it["RunCount"],
            it.get("IdleSince"),
            it.get("KeptUntil"),
        )
        for it in found["Machines"]
    )
    display.show_table(
        ("MACHINE", "NODE", "STATUS", "JOB", "JOBS BEFORE", "IDLE SINCE", "KEPT UNTIL"), rows, empty="no machines"
    )
    if found["WaitingContainers"]:
        waiting = ((it["Image"], it["NodeId"][:8], it["WaitingSince"]) for it in found["WaitingContainers"])
        display.show_table(("CONTAINER OF", "NODE", "WAITS SINCE"), waiting, empty="")
    typer.echo(
        f"{found['WantedWaitingCount']} should wait on each node (at least {found['MinWaitingCount']}, at most "
        f"{found['MaxWaitingCount']}): {found['RecentStartCount']} jobs started in the last "
        "minute; no more than its CPUs can run"
    )
