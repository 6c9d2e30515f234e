"""What the bytes of one blob prove."""

import gzip
import hashlib
import json
import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Proof
from tilesync.rules.content import ContentCheck


def chunk(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", len(data), kind) + data


def glb(*chunks: bytes, version: int = 2, length: int | None = None) -> bytes:
    body = b"".join(chunks)
    return struct.pack("<4sII", b"glTF", version, 12 + len(body) if length is None else length) + body


JSON = chunk(0x4E4F534A, json.dumps({"asset": {"version": "2.0"}}).encode() + b" ")
BIN = chunk(0x004E4942, b"\1\2\3\4" * 5)
WHOLE = glb(JSON, BIN)
ONE = glb(struct.pack("<II", 4, 0), b"{}  ", b"rest", version=1)
BOMB = glb(JSON, chunk(0x004E4942, b"\0" * 400_000))

SAMPLES = {
    "plain.bin": b"anything at all",
    "empty": b"",
    "empty.glb": b"",
    "tile.glb": WHOLE,
    "TILE.GLB": WHOLE + b"trailing bytes",
    "tile": WHOLE,
    "old.glb": ONE,
    "short.glb": WHOLE[:-1],
    "packed.glb": gzip.compress(WHOLE, mtime=0),
    "packed-in-parts.glb": gzip.compress(WHOLE[:9], mtime=0) + gzip.compress(WHOLE[9:], mtime=0),
    "packed-short.glb": gzip.compress(WHOLE, mtime=0)[:-3],
    "packed-bad.glb": gzip.compress(WHOLE, mtime=0)[:-6] + b"\xff" * 6,
    "packed-big.glb": gzip.compress(BOMB, mtime=0),
    "packed-none.glb": gzip.compress(b"no glTF here", mtime=0),
    "none.glb": b"<html>Sorry</html>",
    "tileset.json": b'{"root": {}}',
}


def result(name: str, data: bytes, cuts: list[int], *, md5: bytes | None = None) -> Proof | str:
    check = ContentCheck(Blob(name, len(data), md5=md5))
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        check.feed(data[start:end])
    try:
        return check.finish()
    except BlobDamaged as error:
        return str(error)


def whole(name: str, data: bytes) -> Proof | str:
    return result(name, data, [])


@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.integers(0, 2000), max_size=20))
def test_chunking_makes_no_difference(name: str, cuts: list[int]) -> None:
    """Proof or complaint, the result does not depend on how the bytes are cut."""
    data = SAMPLES[name]
    md5 = hashlib.md5(data).digest()
    assert result(name, data, cuts, md5=md5) == whole(name, data)


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"packed-big.glb"}))
def test_byte_by_byte_makes_no_difference(name: str) -> None:
    """Single bytes give the same result as one piece."""
    assert result(name, SAMPLES[name], list(range(len(SAMPLES[name])))) == whole(name, SAMPLES[name])


@pytest.mark.parametrize(
    "name",
    ["plain.bin", "empty", "tile.glb", "TILE.GLB", "tile", "old.glb", "packed.glb", "packed-in-parts.glb",
     "packed-big.glb", "tileset.json"],
)  # fmt: skip
def test_proofs(name: str) -> None:
    """Sound content is proved by its length and SHA-256."""
    data = SAMPLES[name]
    assert whole(name, data) == Proof(len(data), hashlib.sha256(data).digest())


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.glb", b"", "holds no glTF"),
        ("a.glb", b"gl", "holds no glTF"),
        ("a.glb", b"<htm", "GLB header is cut off"),
        ("none.glb", SAMPLES["none.glb"], "holds no glTF"),
        ("packed-none.glb", SAMPLES["packed-none.glb"], "holds no glTF"),
        ("packed-short.glb", SAMPLES["packed-short.glb"], "gzip payload is cut off"),
        ("packed-bad.glb", SAMPLES["packed-bad.glb"], "gzip payload is damaged"),
        ("a.glb", glb(JSON, version=3), "version 3"),
        ("a.glb", glb(BIN), "not JSON"),
        ("a.glb", glb(length=12), "chunk table is cut off"),
        ("a.glb", glb(JSON, BIN, length=len(WHOLE) - 4), "behind the declared length"),
        ("a.glb", glb(JSON, BIN, length=len(WHOLE) + 4), "cut off"),
        ("a.glb", glb(JSON, BIN, b"\0\0\0\0"), "chunk table is cut off"),
        ("a.glb", glb(struct.pack("<II", 0xFFFFFFFF, 0x4E4F534A)), "behind the declared length"),
        ("a.glb", glb(JSON, length=0), "behind the declared length"),
        ("no-suffix", WHOLE[:-1], "cut off"),
    ],
)
def test_damaged_content(name: str, data: bytes, words: str) -> None:
    """Each way to be no sound GLB is named, with the name of the blob."""
    complaint = whole(name, data)
    assert isinstance(complaint, str)
    assert complaint.startswith(f"{name}: ")
    assert words in complaint


@pytest.mark.parametrize("data", [WHOLE, ONE, gzip.compress(WHOLE, mtime=0)], ids=["v2", "v1", "gzip"])
def test_a_glb_cut_anywhere_is_damaged(data: bytes) -> None:
    """A GLB that lost its end at any byte is damaged, although its length is the listed one."""
    for end in range(len(data)):
        assert isinstance(whole("a.glb", data[:end]), str), end


def test_trailing_bytes_are_tolerated() -> None:
    """Bytes behind the declared length of a GLB do no harm, as in every viewer."""
    for tail in (b"x", b"\0" * 100, WHOLE):
        assert isinstance(whole("a.glb", WHOLE + tail), Proof)


def test_other_files_have_no_structure() -> None:
    """A gzip payload or text under another name is not looked into."""
    for data in (gzip.compress(b"x")[:-2], b"{", b"gl", b"b3dm"):
        assert isinstance(whole("a.json", data), Proof)


@pytest.mark.parametrize(("listed", "sent"), [(4, b"abc"), (2, b"abc"), (1, b""), (0, b"a")])
def test_wrong_lengths(listed: int, sent: bytes) -> None:
    """Fewer or more bytes than listed are damage, and both numbers are told."""
    check = ContentCheck(Blob("a", listed))
    check.feed(sent)
    with pytest.raises(BlobDamaged, match=f"{len(sent)} bytes came, the listing says {listed}"):
        check.finish()


def test_wrong_md5() -> None:
    """Bytes that do not have the listed MD5 are damage; without a listed one they are not."""
    check = ContentCheck(Blob("a", 3, md5=hashlib.md5(b"abd").digest()))
    check.feed(b"abc")
    with pytest.raises(BlobDamaged, match="MD5"):
        check.finish()
    assert isinstance(whole("a", b"abc"), Proof)


def test_every_problem_is_told() -> None:
    """Length, MD5 and structure are told together, not the first alone."""
    check = ContentCheck(Blob("a.glb", 9, md5=b"\0" * 16))
    check.feed(b"<html>")
    with pytest.raises(BlobDamaged, match=r"6 bytes came.*MD5.*GLB header is cut off"):
        check.finish()


def test_restart_forgets() -> None:
    """After a restart nothing of the earlier bytes counts, not even a finished complaint."""
    check = ContentCheck(Blob("a.glb", len(WHOLE), md5=hashlib.md5(WHOLE).digest()))
    check.feed(b"<html>" + random.Random(1).randbytes(100))
    check.restart()
    assert (check.size, check.sha256) == (0, hashlib.sha256().digest())
    check.feed(WHOLE)
    assert check.finish() == Proof(len(WHOLE), hashlib.sha256(WHOLE).digest())


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_judged(data: bytes, named: bool) -> None:
    """No content makes the check fail in another way than by saying that it is damaged."""
    assert isinstance(whole("a.glb" if named else "a", b"glTF" + data), Proof | str)
    assert isinstance(whole("a.glb" if named else "a", gzip.compress(data)[:-1] + data[:1]), Proof | str)
