"""What leads to the versions of a local destination."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilesync.errors import DestinationError
from tilesync.model import Version
from tilesync.stores.local import publication as module
from tilesync.stores.local.fs import sync_filesystem
from tilesync.stores.local.publication import LocalPublication

VERSION = Version(1, "e1", "e1", "i", "c", "2026", {"id": "e1"})
NEXT = replace(VERSION, name="e2")
POINTER = b'{"root":{}}'


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SHA = digest(POINTER)


def latest(version: Version) -> dict[str, str]:
    return {"version": version.name, "manifest": f"manifests/{version.name}.jsonl", "finished": "ä"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d/versions/e1").mkdir(parents=True)
    (tmp_path / "d/versions/e2").mkdir()
    (tmp_path / "d/.tilesync/parts").mkdir(parents=True)
    return tmp_path / "d"


@pytest.fixture
def publication(root: Path) -> LocalPublication:
    return LocalPublication(root, root / ".tilesync")


def publish(publication: LocalPublication, version: Version, pointer: bytes = POINTER) -> None:
    publication.write_manifest(version, [{"version": version.name}])
    publication.point_at(version, [pointer], latest(version))


def test_what_leads_to_a_version(root: Path, publication: LocalPublication) -> None:
    """Published means: manifest, pointer, latest.json and the symlink are there, and no temporary file is."""
    publish(publication, VERSION)
    assert (root / "tileset.json").read_bytes() == POINTER
    assert json.loads((root / "latest.json").read_bytes()) == latest(VERSION)
    assert os.readlink(root / "current") == "versions/e1"
    assert (root / "manifests/e1.jsonl").read_bytes() == b'{"version":"e1"}\n'
    assert os.listdir(root / ".tilesync/parts") == []
    assert publication.points_at(VERSION, SHA)


def test_the_next_version_replaces_the_pointer_alone(root: Path, publication: LocalPublication) -> None:
    """A new version moves what leads to it; the manifest and folder of the old one stand."""
    publish(publication, VERSION)
    publish(publication, NEXT, b'{"root":{"x":1}}')
    assert publication.manifest_names() == ["e1", "e2"]
    assert os.readlink(root / "current") == "versions/e2"
    assert publication.points_at(NEXT, digest(b'{"root":{"x":1}}'))
    assert not publication.points_at(VERSION, SHA)
    assert (root / "versions/e1").is_dir()


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Let every rename and link count as a step, and end the process before step number `step`."""
    steps = [0]

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **kwargs: object) -> None:
            if steps[0] == step:
                raise Killed
            steps[0] += 1
            real(*args, **kwargs)

        return call

    for name in ("replace", "symlink", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: steps[0]


@pytest.mark.parametrize("first", [True, False], ids=["first publication", "a later one"])
def test_killed_anywhere_the_pointer_is_old_or_new(root: Path, publication: LocalPublication, first: bool) -> None:
    """Killed before any of its steps, publishing leaves the old pointer or the new one, and can be done again."""
    old = None if first else SHA
    for step in range(100):
        for stale in ("tileset.json", "latest.json", "current", "manifests/e1.jsonl", "manifests/e2.jsonl"):
            (root / stale).unlink(missing_ok=True)
        if not first:
            publish(publication, VERSION)
        with pytest.MonkeyPatch.context() as patch:
            taken = killed_at(patch, step)
            try:
                publish(publication, NEXT, b"{}")
            except Killed:
                assert taken() == step
            else:
                break
        assert publication.pointer_digest() in {old, digest(b"{}")}
        if publication.pointer_digest() == digest(b"{}"):
            assert "e2" in publication.manifest_names()
        else:
            assert (publication.latest() or {}).get("version") == (None if first else "e1")
        LocalPublication(root, root / ".tilesync").refuse_foreign()
        publish(publication, NEXT, b"{}")
        assert publication.points_at(NEXT, digest(b"{}"))
    assert 8 <= step < 100


def test_order_of_publishing(root: Path, publication: LocalPublication, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are made durable first, then come manifest, pointer, latest.json and symlink, in this order."""
    seen: list[str] = []
    replace_ = os.replace

    def note(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folder = Path(os.readlink(f"/proc/self/fd/{dst_dir_fd}"))
        seen.append((folder / new).relative_to(root).as_posix())
        replace_(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def note_barrier(folder: Path) -> None:
        seen.append("barrier")
        sync_filesystem(folder)

    monkeypatch.setattr(os, "replace", note)
    monkeypatch.setattr(module, "sync_filesystem", note_barrier)
    publish(publication, VERSION)
    assert seen == ["barrier", "manifests/e1.jsonl", "tileset.json", "latest.json", "current"]


@pytest.mark.parametrize("name", ["tileset.json", "latest.json", "manifests/e1.jsonl"])
def test_points_at_sees_what_was_removed(root: Path, publication: LocalPublication, name: str) -> None:
    """Whatever of a publication is missing is seen, so that the next run puts it back."""
    publish(publication, VERSION)
    (root / name).unlink()
    assert not publication.points_at(VERSION, SHA)
    publish(publication, VERSION)
    assert publication.points_at(VERSION, SHA)


def test_points_at_sees_what_was_changed(root: Path, publication: LocalPublication) -> None:
    """A pointer or latest.json that says something else, and a version that is gone, are seen."""
    for change in (
        lambda: (root / "tileset.json").write_bytes(b"{}"),
        lambda: (root / "latest.json").write_text(json.dumps(latest(NEXT))),
        lambda: (root / "latest.json").write_text("torn"),
        lambda: (root / "versions/e1").rename(root / "versions/away"),
    ):
        publish(publication, VERSION)
        assert publication.points_at(VERSION, SHA)
        change()
        assert not publication.points_at(VERSION, SHA)


def test_complete_is_about_the_symlink(root: Path, publication: LocalPublication) -> None:
    """A publication is complete while `current` leads to its version, and again when it is published again."""
    assert not publication.is_complete(VERSION)
    for change in (
        lambda: None,
        lambda: (root / "current").symlink_to("versions/e2"),
        lambda: (root / "current").mkdir(),
        lambda: (root / "current").write_text("versions/e1"),
    ):
        publish(publication, VERSION)
        assert publication.is_complete(VERSION)
        assert not publication.is_complete(NEXT)
        (root / "current").unlink()
        change()
        assert not publication.is_complete(VERSION)
        if (root / "current").is_dir() and not (root / "current").is_symlink():
            (root / "current").rmdir()


@pytest.mark.parametrize("name", ["tileset.json", "latest.json"])
def test_a_folder_in_the_place_of_a_document_is_named(root: Path, publication: LocalPublication, name: str) -> None:
    """What cannot be replaced is told by its name, so that somebody can move it away."""
    (root / name).mkdir()
    with pytest.raises(DestinationError, match=f"cannot write {name} in {root}"):
        publish(publication, VERSION)


def test_a_folder_named_current_stays(root: Path, publication: LocalPublication) -> None:
    """A folder of the user's that is called `current` is not replaced, and publishing works without the symlink."""
    (root / "current").mkdir()
    (root / "current/mine").write_text("mine")
    publish(publication, VERSION)
    assert (root / "current/mine").read_text() == "mine"
    assert publication.pointer_digest() == SHA
    assert (root / "tileset.json").read_bytes() == POINTER
    assert publication.latest() == latest(VERSION)


@pytest.mark.parametrize(
    "said",
    ["", "torn", "[]", "null", '{"version": "e1"}', '{"manifest": "m"}', '"version manifest"'],
)
def test_a_latest_that_is_not_ours(root: Path, publication: LocalPublication, said: str) -> None:
    """A latest.json that tilesync did not write is none."""
    (root / "latest.json").write_text(said)
    assert publication.latest() is None


def test_what_is_foreign(root: Path, publication: LocalPublication) -> None:
    """A tileset without any sign of tilesync is refused, be it a file, a folder or a symlink; so is a latest.json."""
    publication.refuse_foreign()
    for name in ("tileset.json", "latest.json"):
        for make in (Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")):
            make(root / name)
            with pytest.raises(DestinationError, match=f"{name} that tilesync did not write"):
                publication.refuse_foreign()
            (root / name).rmdir() if (root / name).is_dir() else (root / name).unlink()
    publish(publication, VERSION)
    publication.refuse_foreign()


def test_linked_pointers_are_not_followed(root: Path, publication: LocalPublication, tmp_path: Path) -> None:
    """A pointer or latest.json that is a symlink is not read, and publishing replaces the link alone."""
    (tmp_path / "outside").write_text(json.dumps(latest(VERSION)))
    for name in ("tileset.json", "latest.json"):
        (root / name).symlink_to(tmp_path / "outside")
    assert publication.pointer_digest() is None
    assert publication.latest() is None
    publish(publication, VERSION)
    assert (tmp_path / "outside").read_text() == json.dumps(latest(VERSION))
    assert not (root / "tileset.json").is_symlink()


def test_manifests_are_read_lazily(root: Path, publication: LocalPublication) -> None:
    """A manifest is read line by line: what comes before a damaged line is told, then the damage with its file."""
    publication.write_manifest(VERSION, ({"n": number} for number in range(3)))
    with (root / "manifests/e1.jsonl").open("ab") as file:
        file.write(b'{"n": 3\n')
    lines = publication.manifest("e1")
    assert [next(lines) for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(DestinationError, match=r"e1\.jsonl is damaged"):
        next(lines)


@pytest.mark.parametrize("data", [b"\xff\n", b"{", b"not json\n"])
def test_damaged_manifests(root: Path, publication: LocalPublication, data: bytes) -> None:
    """A manifest that is no JSON or no UTF-8 is an error of the destination, as is one that is missing."""
    (root / "manifests").mkdir()
    (root / "manifests/e1.jsonl").write_bytes(data)
    with pytest.raises(DestinationError, match="damaged"):
        list(publication.manifest("e1"))
    with pytest.raises(DestinationError, match="cannot read"):
        list(publication.manifest("e2"))


def test_a_manifest_is_replaced_whole(root: Path, publication: LocalPublication) -> None:
    """While a manifest is written anew the old one stands, also when its lines fail half-way."""
    publication.write_manifest(VERSION, [{"old": 1}])

    def failing() -> Iterator[dict[str, int]]:
        yield {"new": 1}
        assert (root / "manifests/e1.jsonl").read_bytes() == b'{"old":1}\n'
        raise Killed

    with pytest.raises(Killed):
        publication.write_manifest(VERSION, failing())
    assert list(publication.manifest("e1")) == [{"old": 1}]


def test_manifest_names(root: Path, publication: LocalPublication) -> None:
    """Only manifests are told as such, by the names of their versions, dots and all."""
    for name in ("e1", "e1-2", "v1.2"):
        publication.write_manifest(replace(VERSION, name=name), [])
    (root / "manifests/notes.txt").touch()
    assert publication.manifest_names() == ["e1", "e1-2", "v1.2"]
