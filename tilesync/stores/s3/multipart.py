"""Objects of a bucket in parts, and copies within it, through boto3: the one door for its errors.

obstore can do both, but not so that a part is sent again, an upload that failed is given up for good, or a copy is
made of one version alone. Source: Amazon S3 API Reference, "CreateMultipartUpload", "UploadPart",
"CompleteMultipartUpload", "AbortMultipartUpload", "CopyObject".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tilesync.errors import ConditionFailed, Transient, UnknownHost
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.stores.s3.errors import ENDPOINT_HINT, NotThere, ObjectOperation, make_object_info, raise_for_response
from tilesync.transport.connect_errors import is_unresolved
from tilesync.transport.retry_after import retry_after_seconds

PART_BYTES: Final = 8 << 20
"""Bytes of a part, and of what is put at once, at most: five are the least of all parts but the last."""

_MAX_PARTS: Final = 9_000
"""Parts of an upload; 10,000 are allowed, and a size may be told too small."""

MAX_COPY_OBJECT_BYTES: Final = 5 << 30
"""Bytes of an object that CopyObject copies at most."""


def choose_part_bytes(size: int) -> int:
    """How large the parts of an object of about that size are."""
    return max(PART_BYTES, -(-size // _MAX_PARTS))


def compute_multipart_etag(digests: Sequence[bytes]) -> str:
    """The ETag of an object that was put in parts with these MD5s, and that no key of KMS or a customer encrypts."""
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


class MultipartClient:
    """One attempt each, by whole names. Raises what follows from the answer; Transient for what another may cure."""

    def __init__(self, client: Any, bucket: str, display_name: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = client
        self._bucket = bucket
        self._display_name = display_name
        self._no_response_error = BotoCoreError
        self._response_error = ClientError

    def create_upload(self, name: str, label: ObjectHeaders) -> str:
        """Begin an upload; its id."""
        with self._translate_errors(name):
            told = self._client.create_multipart_upload(Bucket=self._bucket, Key=name, **_header_arguments(label))
            return str(told["UploadId"])

    def upload_part(self, name: str, upload: str, number: int, data: bytes | bytearray) -> tuple[str, bytes]:
        """Send a part, counted from 1; the service checks it, and sent again it takes the place. Its ETag and MD5."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        with self._translate_errors(name):
            told = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            return str(told["ETag"]), md5

    def complete_upload(self, name: str, upload: str, etags: Sequence[str], *, expected_etag: str | None = None) -> str:
        """Put it in place, as `instead_of` allows; its ETag. Raises NotThere where there is no such upload any more."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._translate_errors(name, operation="write" if expected_etag is None else "replace"):
            told = self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **_condition_arguments(expected_etag),
            )
            return make_object_info(name, 0, told["ETag"]).etag

    def abort_upload(self, name: str, upload: str) -> None:
        """Give an upload up, with all its parts. Raises NotThere where there is none."""
        with self._translate_errors(name):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def list_unfinished_uploads(self, name: str) -> list[str]:
        """The ids of the uploads of this very name that are neither complete nor given up."""
        with self._translate_errors(name):
            told = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=name)
            return [str(each["UploadId"]) for each in told.get("Uploads", []) if each["Key"] == name]

    def copy_object(self, original: ObjectInfo, whole_name: str, name: str) -> ObjectInfo | None:
        """Copy an object, served as it is; None where it is not there as it was found."""
        source = {"Bucket": self._bucket, "Key": whole_name}
        try:
            with self._translate_errors(name):
                told = self._client.copy_object(
                    Bucket=self._bucket, Key=name, CopySource=source, CopySourceIfMatch=f'"{original.etag}"'
                )
                return make_object_info(name, original.size, told["CopyObjectResult"]["ETag"])
        except (NotThere, ConditionFailed):
            return None

    @contextmanager
    def _translate_errors(self, name: str, *, operation: ObjectOperation = "write") -> Iterator[None]:
        """Errors of botocore as ours. Theirs are dropped: they hold URLs and answers."""
        try:
            yield
        except self._response_error as error:
            status, code, wait = _parse_error_response(error.response)
        except self._no_response_error as error:
            raise no_response_error(error, self._display_name) from None
        else:
            return
        raise_for_response(status, code, name, self._display_name, retry_after_s=wait, operation=operation)


def no_response_error(error: Exception, display_name: str) -> Transient:
    """The error of ours for a request of botocore that got no answer; what it says may hold URLs."""
    if is_unresolved(str(error) + str(getattr(error, "kwargs", {}).get("error", ""))):
        return UnknownHost(f"the host of {display_name} does not resolve", hint=ENDPOINT_HINT)
    return Transient(f"the request failed ({type(error).__name__})")


def _parse_error_response(answer: Mapping[str, Any]) -> tuple[int, str, float | None]:
    """Status, code and Retry-After of an answer. That to a HEAD has no code: botocore takes the status for it."""
    about = answer.get("ResponseMetadata", {})
    code = str(answer.get("Error", {}).get("Code", ""))
    wait = retry_after_seconds(about.get("HTTPHeaders", {}).get)
    return int(about.get("HTTPStatusCode", 0)), "" if code.isdecimal() else code, wait


def _header_arguments(label: ObjectHeaders) -> dict[str, str]:
    said = {
        "ContentType": label.content_type,
        "ContentEncoding": label.content_encoding,
        "CacheControl": label.cache_control,
    }
    return {key: value for key, value in said.items() if value}


def _condition_arguments(expected_etag: str | None) -> dict[str, str]:
    if expected_etag is None:
        return {}
    return {"IfMatch": f'"{expected_etag}"'} if expected_etag else {"IfNoneMatch": "*"}
