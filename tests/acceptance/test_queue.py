"""More jobs than there is room for, of two accounts, on the whole platform: in turns, in order, each to one end."""

from __future__ import annotations

import time
from collections import Counter

from sqlalchemy import select

from raymaker.platform import transitions
from raymaker.platform.database import training
from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import events
from support.faults import eventually
from support.jobs import ENDED, Jobs, fresh_name
from support.platform import Platform

OTHER_ACCOUNT = "222222222222"


def test_accounts_take_turns_and_whoever_waits_knows_its_place(platform: Platform, jobs: Jobs) -> None:
    """Eight jobs of one account were there before four of another; there is room for eight, or a little less."""
    stem = fresh_name("turn")
    ours, others = [f"{stem}-a{number}" for number in range(8)], [f"{stem}-b{number}" for number in range(4)]
    database = Database(platform.settings.resolved_database_url)
    example = jobs.describe(jobs.create(hyperparameters={"steps": 0}))
    account = example["TrainingJobArn"].split(":")[4]
    fields = ("AlgorithmSpecification", "OutputDataConfig", "ResourceConfig", "StoppingCondition", "RoleArn")
    request = {**{field: example[field] for field in fields}, "HyperParameters": {"steps": "20"}}
    with database.transaction() as connection:  # at once, and with accounts of which the frontend knows one
        for name in (*ours, *others):
            whose = account if name in ours else OTHER_ACCOUNT
            record = transitions.create_training_job(name, f"arn:{name}", whose, request, time.time())
            assert training.insert_training_job(connection, record)

    def message_of_last() -> str:
        return str(jobs.describe(ours[-1])["SecondaryStatusTransitions"][-1]["StatusMessage"])

    told = eventually(lambda: said if "behind" in (said := message_of_last()) else None, f"{ours[-1]} waits")
    assert told.startswith("Waiting for an instance of local, behind ")
    assert told.endswith(" of your jobs")
    assert all(jobs.finish(name)["TrainingJobStatus"] == "Completed" for name in (*ours, *others))

    names = {f"arn:{name}": name for name in (*ours, *others)}
    with database.reading() as connection:
        happened = connection.execute(
            select(events.c.subject, events.c.kind).where(events.c.subject.in_(names)).order_by(events.c.id)
        ).all()
    database.dispose()
    started = [names[subject] for subject, kind in happened if kind == "Starting"]
    assert [name for name in started if name in ours] == ours, "in order, and once each"
    assert [name for name in started if name in others] == others
    assert set(others) <= set(started[:8]), "though all of ours came before"
    assert Counter(kind for _, kind in happened if kind in ENDED) == {"Completed": 12}
