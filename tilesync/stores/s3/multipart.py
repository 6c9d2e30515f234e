"""Multipart uploads and copies in a bucket, through boto3. Its errors are translated here and nowhere else.

obstore can do both, but it cannot send one part again, abort a failed upload reliably, or copy only an object with a
known ETag. Source: Amazon S3 API Reference, "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
"AbortMultipartUpload", "CopyObject".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tilesync.errors import ConditionFailed, DestinationError, Transient, UnknownHost
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.stores.s3.errors import ENDPOINT_HINT, NotThere, ObjectOperation, make_object_info, raise_for_response
from tilesync.transport.connect_errors import is_unresolved
from tilesync.transport.retry import retry_after_seconds

PART_BYTES: Final = 8 << 20
"""Minimum part size, and the largest object sent in one request. S3 requires 5 MiB for all parts but the last."""

_MAX_PARTS: Final = 9_000
"""Maximum planned parts of an upload. S3 allows 10,000; the rest is a reserve for a stated size that is too small."""

MAX_COPY_OBJECT_BYTES: Final = 5 << 30
"""Bytes of the largest object that CopyObject copies."""

_ETAG_OF_NOTHING: Final = "0" * 32


def choose_part_bytes(size: int) -> int:
    """Return the part size for an object of about this size."""
    return max(PART_BYTES, -(-size // _MAX_PARTS))


def compute_multipart_etag(digests: Sequence[bytes]) -> str:
    """Return the ETag of an object from the MD5s of its parts. Not for encryption with KMS or customer keys."""
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


class MultipartClient:
    """Multipart requests, one attempt each, by full names. Raises Transient if another attempt may succeed."""

    def __init__(self, client: Any, bucket: str, display_name: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = client
        self._bucket = bucket
        self._display_name = display_name
        self._no_response_error = BotoCoreError
        self._response_error = ClientError

    def create_upload(self, name: str, object_headers: ObjectHeaders) -> str:
        """Begin an upload, and return its id."""
        with self._translate_errors(name):
            response = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=name, **_header_arguments(object_headers)
            )
            return str(response["UploadId"])

    def upload_part(self, name: str, upload: str, number: int, data: bytes | bytearray) -> tuple[str, bytes]:
        """Send a part, counted from 1, and return its ETag and MD5. Sent again, it replaces the first one."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        with self._translate_errors(name):
            response = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            return str(response["ETag"]), md5

    def complete_upload(self, name: str, upload: str, etags: Sequence[str], *, expected_etag: str | None = None) -> str:
        """Complete an upload if the object has `expected_etag`, and return its ETag. Raises NotThere for no upload."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._translate_errors(name, operation="write" if expected_etag is None else "replace"):
            response = self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **_condition_arguments(expected_etag),
            )
            return make_object_info(name, 0, response["ETag"]).etag

    def abort_upload(self, name: str, upload: str) -> None:
        """Abort an upload and delete its parts. Raises NotThere if there is none."""
        with self._translate_errors(name):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def list_unfinished_uploads(self, name: str) -> list[str]:
        """List the ids of the uploads of this object that are neither complete nor aborted."""
        with self._translate_errors(name):
            response = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=name)
            return [str(each["UploadId"]) for each in response.get("Uploads", []) if each["Key"] == name]

    def copy_object(self, original: ObjectInfo, full_name: str, name: str) -> ObjectInfo | None:
        """Copy an object with its headers; None if it was changed or deleted."""
        try:
            return make_object_info(name, original.size, self._copy_with_etag(full_name, original.etag, name))
        except (NotThere, ConditionFailed):
            return None

    def refuses_stale_copy(self, full_name: str, name: str) -> bool:
        """Return whether a copy under the condition of an ETag that no object has is refused for that reason."""
        try:
            self._copy_with_etag(full_name, _ETAG_OF_NOTHING, name)
        except ConditionFailed:
            return True
        except DestinationError:  # refused for another reason, which proves nothing
            return False
        return False

    def _copy_with_etag(self, full_name: str, etag: str, name: str) -> str:
        """Copy an object if it has this ETag, and return that of the copy."""
        source = {"Bucket": self._bucket, "Key": full_name}
        with self._translate_errors(name):
            response = self._client.copy_object(
                Bucket=self._bucket, Key=name, CopySource=source, CopySourceIfMatch=f'"{etag}"'
            )
            return str(response["CopyObjectResult"]["ETag"])

    @contextmanager
    def _translate_errors(self, name: str, *, operation: ObjectOperation = "write") -> Iterator[None]:
        """Translate errors of botocore. Their texts are dropped: they hold URLs and responses."""
        try:
            yield
        except self._response_error as error:
            status, code, retry_after_s = _parse_error_response(error.response)
        except self._no_response_error as error:
            raise no_response_error(error, self._display_name) from None
        else:
            return
        raise_for_response(status, code, name, self._display_name, retry_after_s=retry_after_s, operation=operation)


def no_response_error(error: Exception, display_name: str) -> Transient:
    """Return the error for a request of botocore without a response. Its text is dropped: it may hold URLs."""
    if is_unresolved(str(error) + str(getattr(error, "kwargs", {}).get("error", ""))):
        return UnknownHost(f"the host of {display_name} does not resolve", hint=ENDPOINT_HINT)
    return Transient(f"the request failed ({type(error).__name__})")


def _parse_error_response(response: Mapping[str, Any]) -> tuple[int, str, float | None]:
    """Return status, error code and Retry-After. A response to HEAD has no code: botocore gives the status for it."""
    metadata = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    retry_after_s = retry_after_seconds(metadata.get("HTTPHeaders", {}).get)
    return int(metadata.get("HTTPStatusCode", 0)), "" if code.isdecimal() else code, retry_after_s


def _header_arguments(object_headers: ObjectHeaders) -> dict[str, str]:
    arguments = {
        "ContentType": object_headers.content_type,
        "ContentEncoding": object_headers.content_encoding,
        "CacheControl": object_headers.cache_control,
    }
    return {key: value for key, value in arguments.items() if value}


def _condition_arguments(expected_etag: str | None) -> dict[str, str]:
    if expected_etag is None:
        return {}
    return {"IfMatch": f'"{expected_etag}"'} if expected_etag else {"IfNoneMatch": "*"}
