"""What mends a place that viewers cannot use: the command, or JSON, filled in; for web servers see web_servers.py.

Sources: `az storage`, `aws s3api`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tilesync.model.storage import AzureLocation, ObjectHeaders, S3Location

ANY_ORIGIN = "*"
"""Any origin."""


class Remedies(Protocol):
    """What mends a place, by what is wrong with it. `origin`: that of the viewer's page, `*` where any may come. Files
    go by their names from the top, and by the label that they should have.
    """

    def access(self) -> str:
        """Nobody may read it."""

    def cors(self, origin: str) -> str:
        """Pages of other origins may not read it."""

    def preflight(self, origin: str) -> str:
        """Pages of other origins may not ask for parts of files."""

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """A file is served with another type."""

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """Files of these kinds are stored packed; of the first this is the label."""

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """A file is cached for too long, or not long enough."""

    def hide_state(self) -> str:
        """The state is served."""

    def for_server(self, server: str | None) -> Remedies:
        """The same, where something that calls itself so answers."""


@dataclass(frozen=True)
class AzureRemedies:
    """A container of an Azure storage account."""

    place: AzureLocation

    def access(self) -> str:
        """Public, or by a signed URL."""
        account = self.place.account
        allow = ["az", "storage", "account", "update", "--name", account, "--allow-blob-public-access", "true"]
        command = ["az", "storage", "container", "set-permission", "--account-name", account]
        command += ["--name", self.place.container, "--public-access", "blob"]
        return (
            "let everybody read its blobs (the first line where the account forbids that):\n"
            f"{shlex.join(allow)}\n{shlex.join(command)}\n"
            f"or mint a viewer URL that reads for a while:\n{shlex.join(['tilesync', 'link', str(self.place)])}"
        )

    def cors(self, origin: str) -> str:
        """A rule of the account's blob service."""
        command = ["az", "storage", "cors", "add", "--account-name", self.place.account, "--services", "b"]
        command += ["--methods", "GET", "HEAD", "OPTIONS", "--origins", origin]
        command += ["--allowed-headers", ANY_ORIGIN, "--exposed-headers", ANY_ORIGIN, "--max-age", "3600"]
        return f"add a rule to the account (a CDN before it must pass Origin on):\n{shlex.join(command)}"

    def preflight(self, origin: str) -> str:
        """The same rule."""
        return self.cors(origin)

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Properties of the blob."""
        command = ["az", "storage", "blob", "update", "--account-name", self.place.account]
        command += ["--container-name", self.place.container, "--name", f"{self.place.prefix}{name}"]
        command += ["--content-type", headers.content_type]
        command += ["--content-encoding", headers.content_encoding] if headers.content_encoding else []
        command += ["--content-cache", headers.cache_control] if headers.cache_control else []
        return f"set the properties of each such blob right:\n{shlex.join(command)}"

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """Properties of each blob."""
        return self.content_type(names[0], headers)

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """Properties of the blob."""
        return self.content_type(name, headers)

    def hide_state(self) -> str:
        """Nothing: what lies there is no secret."""
        return ""

    def for_server(self, server: str | None) -> Remedies:
        """The same: what mends a store goes to the store."""
        return self


@dataclass(frozen=True)
class BucketRemedies:
    """An S3 bucket; `endpoint`: its service's address, where that is not Amazon's."""

    place: S3Location
    endpoint: str | None = None

    def access(self) -> str:
        """A policy that lets everybody read what viewers need."""
        lead = f"arn:aws:s3:::{self.place.bucket}/{self.place.prefix}"
        statement = {
            "Effect": "Allow",
            "Principal": ANY_ORIGIN,
            "Action": "s3:GetObject",
            "Resource": [f"{lead}{name}" for name in ("tileset.json", "latest.json", "versions/*")],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        block = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=false,RestrictPublicBuckets=false"
        return "\n".join(
            [
                "let everybody read it (this replaces its policy), or put a CDN before it that may:",
                self._make_command("put-public-access-block", "--public-access-block-configuration", block),
                self._make_command("put-bucket-policy", "--policy", policy),
            ]
        )

    def cors(self, origin: str) -> str:
        """A configuration of the bucket."""
        rule = {
            "AllowedOrigins": [origin],
            "AllowedMethods": ["GET", "HEAD"],
            "AllowedHeaders": [ANY_ORIGIN],
            "ExposeHeaders": ["Content-Length", "Content-Range", "ETag"],
            "MaxAgeSeconds": 3600,
        }
        what = "give the bucket these rules (they replace those that it has; a CDN before it must pass Origin on):"
        return f"{what}\n{self._make_command('put-bucket-cors', '--cors-configuration', json.dumps({'CORSRules': [rule]}))}"

    def preflight(self, origin: str) -> str:
        """The same rule."""
        return self.cors(origin)

    def content_type(self, name: str, headers: ObjectHeaders) -> str:
        """Metadata of the object: they are replaced together, by a copy onto itself."""
        url = f"s3://{self.place.bucket}/{self.place.prefix}{name}"
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
        return f"set the metadata of each such object right:\n{shlex.join([*command, *self._endpoint_options()])}"

    def content_encoding(self, names: Sequence[str], headers: ObjectHeaders) -> str:
        """Metadata of each object."""
        return self.content_type(names[0], headers)

    def caching(self, name: str, headers: ObjectHeaders) -> str:
        """Metadata of the object."""
        return self.content_type(name, headers)

    def hide_state(self) -> str:
        """Nothing: what lies there is no secret."""
        return ""

    def for_server(self, server: str | None) -> Remedies:
        """The same: what mends a store goes to the store."""
        return self

    def _make_command(self, *words: str) -> str:
        verb, *more = words
        return shlex.join(["aws", "s3api", verb, "--bucket", self.place.bucket, *more, *self._endpoint_options()])

    def _endpoint_options(self) -> list[str]:
        return ["--endpoint-url", self.endpoint] if self.endpoint else []
