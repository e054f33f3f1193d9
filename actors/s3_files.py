"""Objects on S3, or on a store that speaks its API: pyarrow where it is enough, boto3 for what it cannot do."""

from __future__ import annotations

import errno
import functools
import threading
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from raymaker.actors.backends import SILENCE_S, ArrowFiles, Found
from raymaker.actors.plain_http import SIGNED_FOR_S, PlainReader, can_read_straight
from raymaker.actors.ranges import Facts, S3Part, checksum_of_answer

COPY_LIMIT_BYTES = 4 * 1024**3
"""What one request copies at most on S3 (it allows 5 GB)."""
CONNECT_TIMEOUT_S = 5.0
MOST_READS_COUNT = 64
"""How many ranges of one bucket are read at once."""


def load_boto3() -> None:
    """Load what the first use of S3 loads otherwise, which takes a tenth of a second and more."""
    import boto3  # noqa: F401


class S3Files(ArrowFiles):
    """One bucket of S3 or of a store that speaks its API."""

    def __init__(
        self,
        bucket: str,
        endpoint_url: str | None,
        access_key: str | None,
        secret_key: str | None,
        region: str | None,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Reach a bucket at `endpoint_url`, or at AWS in the bucket's own region."""
        endpoint = urlsplit(endpoint_url) if endpoint_url else None
        region = (region or "us-east-1") if endpoint else fs.resolve_s3_region(bucket)
        filesystem = fs.S3FileSystem(
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            scheme=endpoint.scheme if endpoint else None,
            endpoint_override=f"{endpoint.netloc}{endpoint.path}".rstrip("/") if endpoint else None,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=silence_s,
            background_writes=False,  # otherwise parts pile up in memory while the network is slow
        )
        super().__init__("s3", filesystem)
        self._client_options = (endpoint_url, access_key, secret_key, region)
        self._silence_s = silence_s
        self._making = threading.Lock()

    def find(self, path: str) -> Found:
        """As for any filesystem, but a bucket that does not exist is an error and not an empty list."""
        found = super().find(path)
        bucket = path.partition("/")[0]
        if not found and self._fs.get_file_info(bucket).type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, f"there is no bucket {bucket}")
        return found

    def look(self, path: str) -> Facts:
        """Ask for the object's head, with its checksums, which takes the right to read it."""
        with self._making:
            client, _ = self._readers
        bucket, _, key = path.partition("/")
        answer = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        return Facts(
            answer["ETag"], answer["ContentLength"], answer["LastModified"].timestamp(), checksum_of_answer(answer)
        )

    def open_part(self, path: str, start: int, stop: int, version: str | None) -> S3Part:
        """Ask for a range with its version, which pyarrow does not send along."""
        with self._making:
            client, straight = self._readers
        if straight is not None and (body := straight.open(path, start, stop, version)) is not None:
            return S3Part(body.headers["ETag"], body.headers["Content-Range"], body)
        bucket, _, key = path.partition("/")
        condition = {} if version is None else {"IfMatch": version}
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **condition)
        if "ContentRange" not in answer:
            raise ValueError("the store does not give out parts of objects")
        return S3Part(answer["ETag"], answer["ContentRange"], answer["Body"])

    def copy(self, source: str, target: str) -> None:
        """Copy within the store, by boto3 and in parts where the object is too large for one request."""
        if (self.size(source) or 0) <= COPY_LIMIT_BYTES:
            super().copy(source, target)
            return
        bucket, _, key = source.partition("/")
        target_bucket, _, target_key = target.partition("/")
        client = self._client()
        try:
            client.copy({"Bucket": bucket, "Key": key}, target_bucket, target_key)
        finally:
            client.close()

    def delete(self, path: str) -> None:
        """Remove the object, and all below it as a folder."""
        # Not through pyarrow, which leaves an empty folder object where it deletes a folder's last object.
        bucket, _, prefix = path.partition("/")
        if not prefix.strip("/"):
            raise ValueError("a whole bucket is never deleted: name a folder in it")
        client = self._client()
        try:
            client.delete_object(Bucket=bucket, Key=prefix)
            for page in client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix.rstrip("/") + "/"
            ):
                if keys := [{"Key": item["Key"]} for item in page.get("Contents", ())]:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        finally:
            client.close()

    @functools.cached_property
    def _readers(self) -> tuple[Any, PlainReader | None]:
        """What reads ranges: boto3, and where the store is spoken to without TLS what is quicker."""
        endpoint_url = self._client_options[0]
        client = self._client(
            max_pool_connections=MOST_READS_COUNT,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=self._silence_s,
            retries={"total_max_attempts": 1},  # patience is storage.py's
            response_checksum_validation="when_required",  # those of whole objects say nothing of ranges
            signature_version="s3v4",
        )
        if endpoint_url is None or not can_read_straight(endpoint_url):
            return client, None

        def sign(path: str) -> str:
            bucket, _, key = path.partition("/")
            place = {"Bucket": bucket, "Key": key}
            return str(client.generate_presigned_url("get_object", Params=place, ExpiresIn=SIGNED_FOR_S))

        timeouts = {"connect_timeout_s": CONNECT_TIMEOUT_S, "silence_s": self._silence_s}
        return client, PlainReader(endpoint_url, sign, **timeouts)

    def _client(self, **options: Any) -> Any:
        endpoint_url, access_key, secret_key, region = self._client_options
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=Config(s3={"addressing_style": "path" if endpoint_url else "auto"}, **options),
        )
