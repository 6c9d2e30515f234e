"""Probe for servers that misread object names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.s3 import BucketServer, S3Proxy, bucket_objects

if TYPE_CHECKING:
    pass


def test_misread_characters_are_found(bucket_server: BucketServer, bucket: str) -> None:
    """A server that reads a plus sign as a space is detected; a correct one is not; the probe leaves no objects."""
    with bucket_objects(bucket_server.url, bucket, prefix="a b/") as objects:
        assert objects.find_misread_characters() == []
    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket) as objects:

        def as_forms_do(target: str) -> str:
            path, _, query = target.partition("?")
            return f"{path.replace('+', '%20')}?{query}"

        proxy.rewrite = as_forms_do
        assert objects.find_misread_characters() == ["+"]
        proxy.rewrite = lambda target: target.replace("%2B", "%20").replace("~", "-")
        assert objects.find_misread_characters() == ["+", "~"]
    assert bucket_server.keys(bucket) == []
