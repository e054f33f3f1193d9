"""Sends records to a scoring container, a batch at a time, and reads what comes back."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from raymaker.actors.scoring import Address
from raymaker.serving.evaluation.answers import Prediction, read_answer
from raymaker.serving.evaluation.data import Record, request_type
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.spec import EvaluationSpec

OK = 200
MOST_ANSWER_BYTES = 256 * 1024 * 1024
SHOWN_BYTES = 300


class Scorer:
    """One connection to a container. `how_it_ended` says how it died, None while it lives."""

    def __init__(self, spec: EvaluationSpec, address: Address, how_it_ended: Callable[[], str | None]) -> None:
        self._spec = spec
        self._address = address
        self._how_it_ended = how_it_ended
        self._type = request_type(spec.data)

    def score(self, records: Iterable[Record]) -> Iterator[tuple[Sequence[Record], list[Prediction], float]]:
        """Yield batches of records with their results and the seconds that each took. Raises AnswerError."""
        # A JSON document is one record: there is no way of writing two.
        count = 1 if self._type == "application/json" else self._spec.batch_count
        with contextlib.closing(http.client.HTTPConnection(*self._address, timeout=self._spec.timeout_s)) as connection:
            left = iter(records)
            while batch := list(itertools.islice(left, count)):
                body, content_type, took_s = self._ask(connection, batch)
                try:
                    found = read_answer(body, content_type, len(batch), self._spec.problem, self._spec.answers)
                except AnswerError as error:
                    raise AnswerError(f"{_name(batch)}: {error}") from error
                yield batch, found, took_s

    def _ask(self, connection: http.client.HTTPConnection, batch: Sequence[Record]) -> tuple[bytes, str, float]:
        lines = "\n".join(record.features for record in batch)
        headers = {"Content-Type": self._type, "Accept": self._spec.accept or self._type}
        began_at = time.perf_counter()
        try:
            connection.request("POST", "/invocations", lines.encode() + b"\n", headers)
            answer = connection.getresponse()
            body = answer.read(MOST_ANSWER_BYTES)
        except TimeoutError as error:
            raise AnswerError(
                f"{_name(batch)}: the scoring container did not answer within {self._spec.timeout_s:g} s "
                "(EvaluationConfig.InvocationTimeoutInSeconds)"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            ended = self._how_it_ended()
            what = f"the scoring container ended: {ended}" if ended else f"no answer came: {error or error!r}"
            raise AnswerError(f"{_name(batch)}: {what}") from error
        took_s = time.perf_counter() - began_at
        if answer.status != OK:
            said = body[:SHOWN_BYTES].decode(errors="replace").strip()
            raise AnswerError(f"{_name(batch)}: the scoring container answered with status {answer.status}: {said}")
        return body, answer.headers.get("Content-Type", self._type), took_s


def _name(batch: Sequence[Record]) -> str:
    return batch[0].where if len(batch) == 1 else f"{batch[0].where} and the {len(batch) - 1} after it"
