"""Remedies: hints that repair the hosting of a destination, with the command or JSON filled in.

For web servers see web_servers.py. Sources: `az storage`, `aws s3api`.
"""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, Self

from tilesync.model.storage import AzureLocation, ObjectHeaders, S3Location
from tilesync.values import dataclass

ANY_ORIGIN = "*"
"""Allow all origins."""


class Remedies(Protocol):
    """Hints for one kind of host, by the problem they repair.

    `origin`: that of the viewer page, `*` for all. Files are named from the top of the destination, with the headers
    that they should have.
    """

    def access(self) -> str:
        """Hint: nobody can read the destination."""

    def credentials(self) -> str:
        """Hint: only those who have a token or a password can read it."""

    def cors(self, origin: str) -> str:
        """Hint: pages of other origins cannot read it."""

    def preflight(self, origin: str) -> str:
        """Hint: pages of other origins cannot request parts of files."""

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Hint: a file has the wrong media type."""

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """Hint: files of these kinds are stored as gzip; `headers` are those of the first one."""

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """Hint: a file is cached for too long, or not long enough."""

    def hide_state(self) -> str:
        """Hint: the state is served."""

    def for_server(self, server: str | None) -> Remedies:
        """Return the remedies for the server that calls itself `server`."""


class StoreRemedies(ABC):
    """Hints that all object stores share: each object has its own headers, and nothing in a store is secret."""

    @abstractmethod
    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Headers of an object."""

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """Headers of each object."""
        return self.content_type(names[0], headers)

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """Headers of the object."""
        return self.content_type(name, headers)

    def hide_state(self) -> str:
        """Empty: nothing in a store is secret."""
        return ""

    def for_server(self, server: str | None) -> Self:
        """Unchanged: the store needs the repair, not a server in front of it."""
        return self


@dataclass(frozen=True)
class AzureRemedies(StoreRemedies):
    """Hints for a container of an Azure storage account."""

    location: AzureLocation

    def credentials(self) -> str:
        """Public access: a viewer has no identity of Azure."""
        return self.access()

    def access(self) -> str:
        """Public access, or a signed URL."""
        account = self.location.account
        allow_command = ["az", "storage", "account", "update", "--name", account, "--allow-blob-public-access", "true"]
        command = ["az", "storage", "container", "set-permission", "--account-name", account]
        command += ["--name", self.location.container, "--public-access", "blob"]
        return (
            "make its blobs public (the first command only if the account forbids public access):\n"
            f"{shlex.join(allow_command)}\n{shlex.join(command)}\n"
            "or create a viewer URL that can read for a limited time:\n"
            f"{shlex.join(['tilesync', 'link', str(self.location)])}"
        )

    def cors(self, origin: str) -> str:
        """A CORS rule of the account's blob service."""
        command = ["az", "storage", "cors", "add", "--account-name", self.location.account, "--services", "b"]
        command += ["--methods", "GET", "HEAD", "OPTIONS", "--origins", origin]
        command += ["--allowed-headers", ANY_ORIGIN, "--exposed-headers", ANY_ORIGIN, "--max-age", "3600"]
        return f"add a CORS rule to the account (a CDN must forward the Origin header):\n{shlex.join(command)}"

    def preflight(self, origin: str) -> str:
        """The same CORS rule."""
        return self.cors(origin)

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Properties of the blob."""
        command = ["az", "storage", "blob", "update", "--account-name", self.location.account]
        command += ["--container-name", self.location.container, "--name", f"{self.location.prefix}{name}"]
        command += ["--content-type", headers.content_type]
        command += ["--content-encoding", headers.content_encoding] if headers.content_encoding else []
        command += ["--content-cache", headers.cache_control] if headers.cache_control else []
        return f"correct the properties of each such blob:\n{shlex.join(command)}"


@dataclass(frozen=True)
class BucketRemedies(StoreRemedies):
    """Hints for an S3 bucket; `endpoint`: the address of its service, if it is not Amazon's."""

    location: S3Location
    endpoint: str | None = None

    def credentials(self) -> str:
        """Public access: a viewer has no credentials of the store."""
        return self.access()

    def access(self) -> str:
        """A bucket policy that makes the files public that viewers need."""
        arn_prefix = f"arn:aws:s3:::{self.location.bucket}/{self.location.prefix}"
        statement = {
            "Effect": "Allow",
            "Principal": ANY_ORIGIN,
            "Action": "s3:GetObject",
            "Resource": [f"{arn_prefix}{name}" for name in ("tileset.json", "latest.json", "versions/*")],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        access_block = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=false,RestrictPublicBuckets=false"
        return "\n".join(
            [
                "make it public (this replaces its policy), or put a CDN with access in front of it:",
                self._make_command("put-public-access-block", "--public-access-block-configuration", access_block),
                self._make_command("put-bucket-policy", "--policy", policy),
            ]
        )

    def cors(self, origin: str) -> str:
        """A CORS configuration of the bucket."""
        rule = {
            "AllowedOrigins": [origin],
            "AllowedMethods": ["GET", "HEAD"],
            "AllowedHeaders": [ANY_ORIGIN],
            "ExposeHeaders": ["Content-Length", "Content-Range", "ETag"],
            "MaxAgeSeconds": 3600,
        }
        hint = "set these CORS rules (they replace the rules of the bucket; a CDN must forward the Origin header):"
        configuration = json.dumps({"CORSRules": [rule]})
        return f"{hint}\n{self._make_command('put-bucket-cors', '--cors-configuration', configuration)}"

    def preflight(self, origin: str) -> str:
        """The same CORS configuration."""
        return self.cors(origin)

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Metadata of the object. They can only be replaced together, by a copy of the object onto itself."""
        url = f"s3://{self.location.bucket}/{self.location.prefix}{name}"
        command = [
            "aws",
            "s3",
            "cp",
            url,
            url,
            "--metadata-directive",
            "REPLACE",
            "--content-type",
            headers.content_type,
        ]
        command += ["--content-encoding", headers.content_encoding] if headers.content_encoding else []
        command += ["--cache-control", headers.cache_control] if headers.cache_control else []
        return f"correct the metadata of each such object:\n{shlex.join([*command, *self._endpoint_options()])}"

    def _make_command(self, *words: str) -> str:
        verb, *more = words
        return shlex.join(["aws", "s3api", verb, "--bucket", self.location.bucket, *more, *self._endpoint_options()])

    def _endpoint_options(self) -> list[str]:
        return ["--endpoint-url", self.endpoint] if self.endpoint else []
