"""What ends an evaluation. Training goes on."""

from __future__ import annotations

from raymaker.actors.errors import WorkError


class EvaluationDataError(WorkError):
    """The data cannot be evaluated with: the text names object, record and column."""


class AnswerError(WorkError):
    """The scoring container's answer cannot be read as the request says, or none came."""
