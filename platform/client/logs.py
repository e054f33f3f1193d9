"""Reading the log of a job or an endpoint through the CloudWatch Logs pair, from its start or as it is written."""

from __future__ import annotations

import datetime as dt
import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.errors import RequestRefused
from raymaker.platform.client.polling import Clock, pause_s

TRAINING_GROUP = "/aws/sagemaker/TrainingJobs"
ENDPOINT_GROUP = "/aws/sagemaker/Endpoints/"


@dataclass(frozen=True)
class LogEvent:
    """One line of a log, without its newline, and the stream that it stands in."""

    time: dt.datetime
    text: str
    stream: str

    @property
    def host(self) -> str:
        """The container that said it, of a training job: `algo-1` of the stream `<job>/algo-1-<attempt>`."""
        return host_of(self.stream)


@dataclass
class LogReader:
    """Reads all streams of `group` whose names begin with `prefix`, each line once."""

    connection: Connection
    group: str
    prefix: str = ""
    _tokens: dict[str, str] = field(default_factory=dict)
    """Where each stream was left."""

    def read_new(self) -> Iterator[LogEvent]:
        """Yield every line that has come since the last call, those of all streams in the order of their times."""
        streams = [self._read_stream(stream) for stream in self._streams()]
        yield from heapq.merge(*streams, key=attrgetter("time"))

    def follow(self, ended: Callable[[], bool], clock: Clock | None = None) -> Iterator[LogEvent]:
        """Yield lines as they come, until `ended` and nothing is left to read."""
        clock = clock or Clock()
        quiet_since = clock.now()
        while True:
            last_round = ended()  # asked before reading, so that what was said before the end is read after it
            for event in self.read_new():
                quiet_since = clock.now()
                yield event
            if last_round:
                return
            clock.sleep(pause_s(clock.now() - quiet_since))

    def last_lines(self, count: int, host: str | None = None) -> list[str]:
        """Return the last lines of the stream that was begun last, of `host` where that has said anything."""
        streams = self._streams()
        streams = [stream for stream in streams if host_of(stream) == host] or streams
        if not streams:
            return []
        answer = self._get_events(streams[-1], limit=count, startFromHead=False)
        return [event["message"] for event in answer["events"]]

    def _streams(self) -> list[str]:
        """Name the streams in the order of their first lines. A log that nobody has written to yet has none."""
        asked = {"logStreamNamePrefix": self.prefix} if self.prefix else {}
        try:
            found = list(
                self.connection.items("describe_log_streams", "logStreams", "logs", logGroupName=self.group, **asked)
            )
        except RequestRefused as error:
            if error.code == "ResourceNotFoundException":
                return []
            raise
        found.sort(key=lambda stream: (stream.get("firstEventTimestamp", 0), stream["logStreamName"]))
        return [stream["logStreamName"] for stream in found]

    def _read_stream(self, stream: str) -> Iterator[LogEvent]:
        while True:
            token = self._tokens.get(stream)
            answer = self._get_events(stream, startFromHead=True, **({"nextToken": token} if token else {}))
            for event in answer["events"]:
                time = dt.datetime.fromtimestamp(event["timestamp"] / 1000, dt.UTC)
                yield LogEvent(time, event["message"], stream)
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token:  # CloudWatch's way to say that the end is reached
                return

    def _get_events(self, stream: str, **request: Any) -> Answer:
        return self.connection.call("get_log_events", "logs", logGroupName=self.group, logStreamName=stream, **request)


def host_of(stream: str) -> str:
    """Name the container whose stream this is; other streams have their own name's last part."""
    name = stream.rpartition("/")[2]
    found = re.match(r"algo-\d+", name)
    return found.group() if found else name
