"""Remedies: the printed commands are valid."""

from __future__ import annotations

import json
import shlex

from tilesync.checks.remedies import AzureRemedies, BucketRemedies
from tilesync.model.storage import AzureLocation, ObjectHeaders, S3Location

HEADERS = ObjectHeaders("model/gltf-binary", "gzip", "public, max-age=31536000, immutable")


def option(command: str, name: str) -> str:
    words = shlex.split(command)
    return words[words.index(name) + 1]


def test_the_json_for_a_bucket_is_valid() -> None:
    """Rules and policy survive the shell, name the origin, the bucket and the prefix; an endpoint is passed on."""
    remedies = BucketRemedies(S3Location("pail", "it's/"), "https://minio.example")
    cors = remedies.cors("https://v.example").splitlines()[-1]
    (rule,) = json.loads(option(cors, "--cors-configuration"))["CORSRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == (["https://v.example"], ["GET", "HEAD"])
    assert (option(cors, "--bucket"), option(cors, "--endpoint-url")) == ("pail", "https://minio.example")
    policy = json.loads(option(remedies.access().splitlines()[-1], "--policy"))
    arn_prefix = "arn:aws:s3:::pail/it's/"
    assert policy["Statement"][0]["Resource"] == [
        f"{arn_prefix}tileset.json",
        f"{arn_prefix}latest.json",
        f"{arn_prefix}versions/*",
    ]


def test_all_headers_of_an_object_are_set() -> None:
    """A copy onto itself replaces all metadata, so the command names all headers; also for the properties of a blob."""
    bucket = BucketRemedies(S3Location("pail", "p/")).content_type("versions/v/a b.glb", HEADERS).splitlines()[-1]
    assert shlex.split(bucket)[3:5] == ["s3://pail/p/versions/v/a b.glb"] * 2
    blob = AzureRemedies(AzureLocation("acct", "box", "p/")).caching("versions/v/a b.glb", HEADERS).splitlines()[-1]
    assert option(blob, "--name") == "p/versions/v/a b.glb"
    for command in (bucket, blob):
        assert option(command, "--content-type") == "model/gltf-binary"
        assert option(command, "--content-encoding") == "gzip"
    assert option(bucket, "--cache-control") == option(blob, "--content-cache") == HEADERS.cache_control
