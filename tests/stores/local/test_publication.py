"""Publication of a local destination: manifest, pointer, latest.json and symlink."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tilesync.core.manifest import encode_line
from tilesync.errors import DestinationError
from tilesync.model import ExportFacts, Version
from tilesync.stores.local import publication as publication_module
from tilesync.stores.local.fs import sync_filesystem
from tilesync.stores.local.publication import LocalPublication

VERSION = Version(1, "e1", "e1", facts=ExportFacts(imodel="i", changeset="c", modified="2026", record={"id": "e1"}))
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
    publication.write_manifest(version, [encode_line({"version": version.name})])
    publication.point_at(version, [pointer], latest(version))


def test_publishing_writes_all_documents(root: Path, publication: LocalPublication) -> None:
    """After publishing, manifest, pointer, latest.json and symlink exist, and no temporary file."""
    publish(publication, VERSION)
    assert (root / "tileset.json").read_bytes() == POINTER
    assert json.loads((root / "latest.json").read_bytes()) == latest(VERSION)
    assert os.readlink(root / "current") == "versions/e1"
    assert (root / "manifests/e1.jsonl").read_bytes() == b'{"version":"e1"}\n'
    assert os.listdir(root / ".tilesync/parts") == []
    assert publication.points_at(VERSION, SHA)


def test_the_next_version_replaces_the_pointer_alone(root: Path, publication: LocalPublication) -> None:
    """A new version replaces pointer, latest.json and symlink; manifest and folder of the old one are kept."""
    publish(publication, VERSION)
    publish(publication, NEXT, b'{"root":{"x":1}}')
    assert publication.manifest_names() == ["e1", "e2"]
    assert os.readlink(root / "current") == "versions/e2"
    assert publication.points_at(NEXT, digest(b'{"root":{"x":1}}'))
    assert not publication.points_at(VERSION, SHA)
    assert (root / "versions/e1").is_dir()


class Killed(BaseException):
    """Raised in place of the end of the process."""


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Count each rename, symlink and fsync as a step, and kill the process before step number `step`."""
    steps = [0]

    def counted(function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **kwargs: object) -> None:
            if steps[0] == step:
                raise Killed
            steps[0] += 1
            function(*args, **kwargs)

        return call

    for name in ("replace", "symlink", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: steps[0]


@pytest.mark.parametrize("first", [True, False], ids=["first publication", "a later one"])
def test_killed_anywhere_the_pointer_is_old_or_new(root: Path, publication: LocalPublication, first: bool) -> None:
    """A kill before any step leaves the old pointer or the new one, and publishing can be repeated."""
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
    """Files are synced first, then manifest, pointer, latest.json and symlink are renamed, in this order."""
    renames: list[str] = []
    replace_ = os.replace

    def note(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folder = Path(os.readlink(f"/proc/self/fd/{dst_dir_fd}"))
        renames.append((folder / new).relative_to(root).as_posix())
        replace_(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def note_barrier(folder: Path) -> None:
        renames.append("barrier")
        sync_filesystem(folder)

    monkeypatch.setattr(os, "replace", note)
    monkeypatch.setattr(publication_module, "sync_filesystem", note_barrier)
    publish(publication, VERSION)
    assert renames == ["barrier", "manifests/e1.jsonl", "tileset.json", "latest.json", "current"]


def test_an_error_of_the_disk_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An early sync reports an error of the disk: the system reports it only once."""

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(publication_module, "sync_filesystem", fail)
    with pytest.raises(DestinationError, match="cannot sync the files"):
        LocalPublication(tmp_path, tmp_path / ".tilesync").sync_files()


@pytest.mark.parametrize("name", ["tileset.json", "latest.json", "manifests/e1.jsonl"])
def test_points_at_detects_removed_files(root: Path, publication: LocalPublication, name: str) -> None:
    """`points_at` detects each removed file of a publication, so that the next run restores it."""
    publish(publication, VERSION)
    (root / name).unlink()
    assert not publication.points_at(VERSION, SHA)
    publish(publication, VERSION)
    assert publication.points_at(VERSION, SHA)


def test_points_at_detects_changed_files(root: Path, publication: LocalPublication) -> None:
    """`points_at` detects a changed pointer or latest.json, and a missing version."""
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


def test_is_complete_checks_the_symlink(root: Path, publication: LocalPublication) -> None:
    """A publication is complete while `current` leads to its version, and after it is published again."""
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
def test_folder_at_the_path_of_a_document_is_named(root: Path, publication: LocalPublication, name: str) -> None:
    """A folder at the path of a document is named in the error, so that its owner can move it."""
    (root / name).mkdir()
    with pytest.raises(DestinationError, match=f"cannot write {name} in {root}"):
        publish(publication, VERSION)


def test_foreign_folder_named_current_is_kept(root: Path, publication: LocalPublication) -> None:
    """A foreign folder named `current` is not replaced, and publishing works without the symlink."""
    (root / "current").mkdir()
    (root / "current/mine").write_text("mine")
    publish(publication, VERSION)
    assert (root / "current/mine").read_text() == "mine"
    assert publication.pointer_digest() == SHA
    assert (root / "tileset.json").read_bytes() == POINTER
    assert publication.latest() == latest(VERSION)


@pytest.mark.parametrize(
    "content",
    ["", "torn", "[]", "null", '{"version": "e1"}', '{"manifest": "m"}', '"version manifest"'],
)
def test_foreign_latest_json_counts_as_missing(root: Path, publication: LocalPublication, content: str) -> None:
    """A latest.json that tilesync did not write counts as missing."""
    (root / "latest.json").write_text(content)
    assert publication.latest() is None


def test_foreign_documents_are_refused(root: Path, publication: LocalPublication) -> None:
    """A tileset or latest.json without a sign of tilesync is refused, also a folder or a symlink."""
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
    """A pointer or latest.json that is a symlink is not read, and publishing replaces only the link."""
    (tmp_path / "outside").write_text(json.dumps(latest(VERSION)))
    for name in ("tileset.json", "latest.json"):
        (root / name).symlink_to(tmp_path / "outside")
    assert publication.pointer_digest() is None
    assert publication.latest() is None
    publish(publication, VERSION)
    assert (tmp_path / "outside").read_text() == json.dumps(latest(VERSION))
    assert not (root / "tileset.json").is_symlink()


def test_manifests_are_read_lazily(root: Path, publication: LocalPublication) -> None:
    """A manifest is read line by line: the lines before a damaged one come first, then the error names the file."""
    publication.write_manifest(VERSION, (encode_line({"n": number}) for number in range(3)))
    with (root / "manifests/e1.jsonl").open("ab") as file:
        file.write(b'{"n": 3\n')
    lines = publication.manifest("e1")
    assert [next(lines) for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(DestinationError, match=r"e1\.jsonl is damaged"):
        next(lines)


@pytest.mark.parametrize("data", [b"\xff\n", b"{", b"not json\n"])
def test_damaged_manifests(root: Path, publication: LocalPublication, data: bytes) -> None:
    """A manifest that is not JSON, not UTF-8 or missing is an error of the destination."""
    (root / "manifests").mkdir()
    (root / "manifests/e1.jsonl").write_bytes(data)
    with pytest.raises(DestinationError, match="damaged"):
        list(publication.manifest("e1"))
    with pytest.raises(DestinationError, match="cannot read"):
        list(publication.manifest("e2"))


def test_a_manifest_is_replaced_whole(root: Path, publication: LocalPublication) -> None:
    """The old manifest is kept while a new one is written, also if its lines fail half-way."""
    publication.write_manifest(VERSION, [encode_line({"old": 1})])

    def failing() -> Iterator[bytes]:
        yield encode_line({"new": 1})
        assert (root / "manifests/e1.jsonl").read_bytes() == b'{"old":1}\n'
        raise Killed

    with pytest.raises(Killed):
        publication.write_manifest(VERSION, failing())
    assert list(publication.manifest("e1")) == [{"old": 1}]


def test_manifest_names(root: Path, publication: LocalPublication) -> None:
    """Only manifests are listed, by the names of their versions, also names with dots."""
    for name in ("e1", "e1-2", "v1.2"):
        publication.write_manifest(replace(VERSION, name=name), [])
    (root / "manifests/notes.txt").touch()
    assert publication.manifest_names() == ["e1", "e1-2", "v1.2"]
