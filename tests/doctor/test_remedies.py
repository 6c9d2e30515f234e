"""What is printed can be run as it stands."""

from __future__ import annotations

import json
import shlex

from tilesync.doctor.remedies import AzureRemedies, BucketRemedies
from tilesync.model.storage import AzureLocation, ObjectHeaders, S3Location

LABEL = ObjectHeaders("model/gltf-binary", "gzip", "public, max-age=31536000, immutable")


def option(command: str, name: str) -> str:
    words = shlex.split(command)
    return words[words.index(name) + 1]


def test_the_json_for_a_bucket_is_whole() -> None:
    """Rules and policy survive the shell, name the origin, the bucket and the prefix; an endpoint is passed on."""
    mending = BucketRemedies(S3Location("pail", "it's/"), "https://minio.example")
    cors = mending.cors("https://v.example").splitlines()[-1]
    (rule,) = json.loads(option(cors, "--cors-configuration"))["CORSRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == (["https://v.example"], ["GET", "HEAD"])
    assert (option(cors, "--bucket"), option(cors, "--endpoint-url")) == ("pail", "https://minio.example")
    policy = json.loads(option(mending.access().splitlines()[-1], "--policy"))
    lead = "arn:aws:s3:::pail/it's/"
    assert policy["Statement"][0]["Resource"] == [f"{lead}tileset.json", f"{lead}latest.json", f"{lead}versions/*"]


def test_the_label_of_an_object_is_set_as_a_whole() -> None:
    """A copy onto itself replaces all metadata, so all are named; a blob's properties likewise."""
    bucket = BucketRemedies(S3Location("pail", "p/")).content_type("versions/v/a b.glb", LABEL).splitlines()[-1]
    assert shlex.split(bucket)[3:5] == ["s3://pail/p/versions/v/a b.glb"] * 2
    blob = AzureRemedies(AzureLocation("acct", "box", "p/")).caching("versions/v/a b.glb", LABEL).splitlines()[-1]
    assert option(blob, "--name") == "p/versions/v/a b.glb"
    for command in (bucket, blob):
        assert option(command, "--content-type") == "model/gltf-binary"
        assert option(command, "--content-encoding") == "gzip"
    assert option(bucket, "--cache-control") == option(blob, "--content-cache") == LABEL.cache_control
