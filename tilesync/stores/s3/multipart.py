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
from tilesync.model.storage import Found, Label
from tilesync.stores.s3.errors import ENDPOINT, Act, NotThere, found, refuse
from tilesync.transport.connect_errors import is_unresolved
from tilesync.transport.retry_after import asked_wait

PART: Final = 8 << 20
"""Bytes of a part, and of what is put at once, at most: five are the least of all parts but the last."""

_MOST: Final = 9_000
"""Parts of an upload; 10,000 are allowed, and a size may be told too small."""

COPIED_AT_ONCE: Final = 5 << 30
"""Bytes of an object that CopyObject copies at most."""


def part_of(size: int) -> int:
    """How large the parts of an object of about that size are."""
    return max(PART, -(-size // _MOST))


def etag_of(digests: Sequence[bytes]) -> str:
    """The ETag of an object that was put in parts with these MD5s, and that no key of KMS or a customer encrypts."""
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


class Parts:
    """One attempt each, by whole names. Raises what follows from the answer; Transient for what another may cure."""

    def __init__(self, client: Any, bucket: str, shown: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self._client = client
        self._bucket = bucket
        self._shown = shown
        self._no_answer = BotoCoreError
        self._refused = ClientError

    def create(self, name: str, label: Label) -> str:
        """Begin an upload; its id."""
        with self._mapped(name):
            told = self._client.create_multipart_upload(Bucket=self._bucket, Key=name, **_labelled(label))
            return str(told["UploadId"])

    def send(self, name: str, upload: str, number: int, data: bytes | bytearray) -> tuple[str, bytes]:
        """Send a part, counted from 1; the service checks it, and sent again it takes the place. Its ETag and MD5."""
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        with self._mapped(name):
            told = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            return str(told["ETag"]), md5

    def complete(self, name: str, upload: str, etags: Sequence[str], *, instead_of: str | None = None) -> str:
        """Put it in place, as `instead_of` allows; its ETag. Raises NotThere where there is no such upload any more."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with self._mapped(name, act="write" if instead_of is None else "replace"):
            told = self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **_condition(instead_of),
            )
            return found(name, 0, told["ETag"]).etag

    def abort(self, name: str, upload: str) -> None:
        """Give an upload up, with all its parts. Raises NotThere where there is none."""
        with self._mapped(name):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)

    def begun(self, name: str) -> list[str]:
        """The ids of the uploads of this very name that are neither complete nor given up."""
        with self._mapped(name):
            told = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=name)
            return [str(each["UploadId"]) for each in told.get("Uploads", []) if each["Key"] == name]

    def copy(self, of: Found, whole_name: str, name: str) -> Found | None:
        """Copy an object, served as it is; None where it is not there as it was found."""
        source = {"Bucket": self._bucket, "Key": whole_name}
        try:
            with self._mapped(name):
                told = self._client.copy_object(
                    Bucket=self._bucket, Key=name, CopySource=source, CopySourceIfMatch=f'"{of.etag}"'
                )
                return found(name, of.size, told["CopyObjectResult"]["ETag"])
        except (NotThere, ConditionFailed):
            return None

    @contextmanager
    def _mapped(self, name: str, *, act: Act = "write") -> Iterator[None]:
        """Errors of botocore as ours. Theirs are dropped: they hold URLs and answers."""
        try:
            yield
        except self._refused as error:
            status, code, wait = _told(error.response)
        except self._no_answer as error:
            raise unanswered(error, self._shown) from None
        else:
            return
        refuse(status, code, name, self._shown, wait=wait, act=act)


def unanswered(error: Exception, shown: str) -> Transient:
    """The error of ours for a request of botocore that got no answer; what it says may hold URLs."""
    if is_unresolved(str(error) + str(getattr(error, "kwargs", {}).get("error", ""))):
        return UnknownHost(f"the host of {shown} does not resolve", hint=ENDPOINT)
    return Transient(f"the request failed ({type(error).__name__})")


def _told(answer: Mapping[str, Any]) -> tuple[int, str, float | None]:
    """Status, code and Retry-After of an answer. That to a HEAD has no code: botocore takes the status for it."""
    about = answer.get("ResponseMetadata", {})
    code = str(answer.get("Error", {}).get("Code", ""))
    wait = asked_wait(about.get("HTTPHeaders", {}).get)
    return int(about.get("HTTPStatusCode", 0)), "" if code.isdecimal() else code, wait


def _labelled(label: Label) -> dict[str, str]:
    said = {
        "ContentType": label.content_type,
        "ContentEncoding": label.content_encoding,
        "CacheControl": label.cache_control,
    }
    return {key: value for key, value in said.items() if value}


def _condition(instead_of: str | None) -> dict[str, str]:
    if instead_of is None:
        return {}
    return {"IfMatch": f'"{instead_of}"'} if instead_of else {"IfNoneMatch": "*"}
