"""What machines are to know of a training job and of the change that is under way, in their own words. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from raymaker.actors.spec import InstanceType, Manner, Standing, UpdateSpec
from raymaker.platform.changing.changes import changed_request, hear_timeout_s, manner_of
from raymaker.platform.records import TrainingJobRecord
from raymaker.platform.settings import Settings
from raymaker.platform.specs import training_spec

Catalogue = Mapping[str, InstanceType]


def standing_of(record: TrainingJobRecord, catalogue: Catalogue, settings: Settings) -> Standing:
    """Say what an attempt's machines are to know. Raises CatalogueError where its instance type is gone."""
    return Standing(
        spec=training_spec(record, catalogue, settings),
        update=_update_spec(record, catalogue, settings),
        deletes_model=record.deletes_model,
        training_started_at=record.started_at,
    )


def _update_spec(record: TrainingJobRecord, catalogue: Catalogue, settings: Settings) -> UpdateSpec | None:
    """The change that is under way, None where none is, and where it is in force already."""
    update = record.open_update
    if update is None:
        return None
    changes = update.changes
    changed = dataclasses.replace(record, request=changed_request(record.request, changes), revision=update.revision)
    return UpdateSpec(
        spec=training_spec(changed, catalogue, settings),
        manner=manner_of(record.request, changes) or Manner.TELL,
        changes_code="AlgorithmSource" in changes,
        may_restart=changes.get("IfNotHeard") == "Restart",
        hear_timeout_s=float(hear_timeout_s(changes)),
        deletes_model=changes.get("DeleteModelData", False),
    )
