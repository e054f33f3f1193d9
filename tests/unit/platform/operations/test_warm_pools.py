"""Warm pools as a client sees them: DescribeTrainingJob, ListTrainingJobs, UpdateTrainingJob, DeleteTrainingJob."""

from __future__ import annotations

from typing import Any

import pytest

from raymaker.actors.reports import Outcome
from raymaker.platform.database import training
from raymaker.platform.errors import ResourceInUse, ValidationException

from .conftest import Api

KEPT = {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1, "KeepAlivePeriodInSeconds": 600}


@pytest.fixture
def kept(api: Api) -> Api:
    """A platform on which something is kept of the job `job`."""
    api.create_job("job", ResourceConfig=KEPT)
    api.complete_job("job")
    return api


def pool(api: Api, name: str = "job") -> dict[str, Any]:
    found: dict[str, Any] = api("DescribeTrainingJob", TrainingJobName=name)["WarmPoolStatus"]
    return found


def keep(api: Api, period_s: int, name: str = "job", **more: Any) -> dict[str, Any]:
    return api("UpdateTrainingJob", TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": period_s, **more})


def test_the_status_is_told_from_start_to_end(api: Api) -> None:
    api.create_job("job", ResourceConfig=KEPT)
    assert "WarmPoolStatus" not in api("DescribeTrainingJob", TrainingJobName="job")
    api.start_job("job")
    assert pool(api) == {"Status": "InUse"}
    api.create_job("other")
    api.complete_job("other")
    assert "WarmPoolStatus" not in api("DescribeTrainingJob", TrainingJobName="other")


def test_what_is_kept_is_told_with_its_time(kept: Api) -> None:
    kept.now += 10
    told = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 10, "KeptUntil": kept.now + 590}
    assert pool(kept) == told
    (summary,) = kept("ListTrainingJobs")["TrainingJobSummaries"]
    assert summary["WarmPoolStatus"] == told


def test_jobs_are_listed_by_their_pools(kept: Api) -> None:
    for number in range(3):
        kept.create_job(f"kept-{number}", ResourceConfig=KEPT)
        kept.complete_job(f"kept-{number}")
    kept.create_job("waits")
    training.start_on_pool(kept.context.database, "waits", "kept-0", kept.now + 3)

    def names(status: str, **more: Any) -> list[str]:
        found = kept("ListTrainingJobs", WarmPoolStatusEquals=status, **more)
        return [it["TrainingJobName"] for it in found["TrainingJobSummaries"]]

    assert names("Available") == ["job", "kept-1", "kept-2"]
    assert names("Available", NameContains="kept", MaxResults=1) == ["kept-1"]
    assert (names("Reused"), names("InUse"), names("Terminated")) == (["kept-0"], ["waits"], [])
    assert pool(kept, "kept-0") == {
        "Status": "Reused",
        "ResourceRetainedBillableTimeInSeconds": 3,
        "ReusedByJob": "waits",
    }


def test_what_is_kept_is_kept_longer_or_given_back(kept: Api) -> None:
    woken = kept.cluster.wake_count
    assert keep(kept, 3600)["Revision"] == 1
    assert pool(kept)["KeptUntil"] == kept.now + 3600
    kept.now += 5
    keep(kept, 0)
    assert kept.cluster.wake_count == woken + 2
    assert pool(kept) == {
        "Status": "Terminated",
        "ResourceRetainedBillableTimeInSeconds": 5,
        "TerminationReason": "KeepAlivePeriodInSeconds was taken back",
    }
    with pytest.raises(ValidationException, match="nothing is kept of training job job: its warm pool is Terminated"):
        keep(kept, 60)


def test_only_the_period_changes_after_the_end(kept: Api) -> None:
    with pytest.raises(ValidationException, match="is all that can be changed"):
        keep(kept, 60, InstanceCount=2)
    with pytest.raises(ValidationException, match="Only a job that trains"):
        kept("UpdateTrainingJob", TrainingJobName="job", ProfilerConfig={"DisableProfiler": True})


def test_a_job_that_was_started_without_a_period_gets_none(api: Api) -> None:
    api.create_job("job")
    keep(api, 60)  # it waits still
    api.start_job("job")
    assert pool(api) == {"Status": "InUse"}
    api.create_job("other")
    api.start_job("other")
    with pytest.raises(ValidationException, match=r"ResourceConfig.KeepAlivePeriodInSeconds.*give it to Create"):
        keep(api, 60, "other")
    keep(api, 0, "other")
    api.report("other", "Completed", Outcome.COMPLETED)
    with pytest.raises(ValidationException, match="it has no warm pool"):
        keep(api, 0, "other")


def test_a_job_of_which_something_is_kept_is_not_deleted(kept: Api) -> None:
    with pytest.raises(ResourceInUse, match="KeepAlivePeriodInSeconds to 0"):
        kept("DeleteTrainingJob", TrainingJobName="job")
    keep(kept, 0)
    kept("DeleteTrainingJob", TrainingJobName="job")


def test_there_are_no_pools_of_spot_instances(api: Api) -> None:
    with pytest.raises(ValidationException, match="EnableManagedSpotTraining"):
        api.create_job("job", ResourceConfig=KEPT, EnableManagedSpotTraining=True)
