"""Plan of a run: actions for blobs, and the choice of a version."""

from dataclasses import replace
from typing import Any

import pytest

from tilesync.core.plan import Action, choose_version, decide
from tilesync.model import EVERYTHING, Blob, Content, Export, ExportFacts, Globs, StoredFile, UnpackedFile, Version

MD5 = b"m" * 16
BLOB = Blob("a", 3, "e1", MD5)
VERSION = Version(1, "v", "e", facts=ExportFacts(imodel="i", changeset="c", modified="2026", record={"id": "e"}))


def make_stored(**changes: Any) -> StoredFile:
    return StoredFile(BLOB._replace(**changes), b"s" * 32, 1)


@pytest.mark.parametrize(
    ("blob", "stored", "action", "reason"),
    [
        (BLOB, None, Action.FETCH, "not stored yet"),
        (BLOB, make_stored(), Action.KEEP, "unchanged, same ETag"),
        (BLOB, make_stored(md5=None), Action.KEEP, "unchanged, same ETag"),
        (BLOB, make_stored(etag="e0"), Action.KEEP, "unchanged, same MD5"),
        (BLOB, make_stored(etag=""), Action.KEEP, "unchanged, same MD5"),
        (BLOB, make_stored(size=4), Action.FETCH, "size was 4, is 3"),
        (BLOB, make_stored(size=4, etag="e0", md5=None), Action.FETCH, "size was 4, is 3"),
        (BLOB, make_stored(etag="e0", md5=b"n" * 16), Action.FETCH, "ETag changed"),
        (BLOB, make_stored(etag="e0", md5=None), Action.FETCH, "ETag changed"),
        (BLOB._replace(md5=None), make_stored(etag="e0"), Action.FETCH, "ETag changed"),
        (BLOB._replace(etag="", md5=None), make_stored(etag="", md5=None), Action.FETCH, "nothing proves it unchanged"),
        (BLOB._replace(etag=""), make_stored(etag=""), Action.KEEP, "unchanged, same MD5"),
        (BLOB._replace(sha256=b"s" * 32), make_stored(etag="e0", md5=None), Action.KEEP, "unchanged, same SHA-256"),
        (BLOB._replace(sha256=b"t" * 32), make_stored(), Action.FETCH, "SHA-256 changed"),
        (BLOB._replace(sha256=b"s" * 32), make_stored(size=4), Action.FETCH, "size was 4, is 3"),
    ],
)
def test_decisions(blob: Blob, stored: StoredFile | None, action: Action, reason: str) -> None:
    """A file is kept only with proof, by SHA-256, ETag or MD5 at the same size, and every decision has its reason."""
    decision = decide(blob, stored)
    assert (decision.action, decision.reason) == (action, reason)


def test_fetched_files_are_kept() -> None:
    """After a plan is done, the next plan keeps every file that has an ETag or an MD5."""
    for blob in (BLOB, BLOB._replace(etag=""), BLOB._replace(md5=None)):
        assert decide(blob, StoredFile(blob, b"s" * 32, 1)).action is Action.KEEP


def test_unpacked_files_are_compared_by_stored_bytes() -> None:
    """An unpacked file is compared by the stored bytes of its container."""
    stored = StoredFile(BLOB, b"u" * 32, 1, unpacked=UnpackedFile(10 * BLOB.size, b"s" * 32))
    assert decide(BLOB, stored).action is Action.KEEP
    assert decide(BLOB._replace(sha256=b"s" * 32, etag="other"), stored).action is Action.KEEP
    assert decide(BLOB._replace(sha256=b"u" * 32), stored).action is Action.FETCH
    assert decide(BLOB._replace(size=10 * BLOB.size), stored).action is Action.FETCH


def test_other_content_is_another_version() -> None:
    """A version in another content form is neither reused nor continued."""
    export = Export("e", "Complete", modified="2026")
    stored, unpacked = (replace(VERSION, content=content).with_summary(published_at="t") for content in Content)
    unfinished = [replace(VERSION, content=content) for content in Content]
    for content, existing, begun in zip(Content, (stored, unpacked), unfinished, strict=True):
        choice = choose_version([stored, unpacked], export, EVERYTHING, content)
        assert (choice.existing, choice.candidates, choice.is_unchanged, choice.content) == (
            existing,
            (existing,),
            True,
            content,
        )
        assert choose_version(unfinished, export, EVERYTHING, content).unfinished == begun
        others = [each for each in (stored, unpacked, *unfinished) if each.content is not content]
        assert choose_version(others, export, EVERYTHING, content).candidates == ()
        assert choose_version(others, export, EVERYTHING, content).unfinished is None


def test_the_content_of_an_unpacked_source_is_kept() -> None:
    """Unpacked files stay unpacked, whatever is requested; stored files take the requested form."""
    stored, unpacked = (replace(VERSION, content=content).with_summary(published_at="t") for content in Content)
    for requested in Content:
        assert choose_version([], make_export(unpacked), EVERYTHING, requested).content is Content.DECODED
        assert choose_version([], make_export(stored), EVERYTHING, requested).content is requested


def test_choose() -> None:
    """The oldest unfinished version is continued, the last published one is the existing one, and `modified` tells if
    it is unchanged.
    """
    export = Export("e", "Complete", modified="2026")
    one, two = (
        replace(VERSION, serial=1).with_summary(published_at="t"),
        replace(VERSION, serial=2).with_summary(published_at="t"),
    )
    begun, later = replace(VERSION, serial=3), replace(VERSION, serial=4)
    choices = [
        choose_version(versions, export, EVERYTHING)
        for versions in ([], [one], [one, two], [begun, later], [one, begun, two])
    ]
    assert [(c.unfinished, c.existing, c.is_unchanged) for c in choices] == [
        (None, None, False),
        (None, one, True),
        (None, two, True),
        (begun, None, False),
        (begun, two, False),
    ]


def test_other_globs_are_another_version() -> None:
    """A version published with other globs is not reused; an unfinished one is continued anyway."""
    export = Export("e", "Complete", modified="2026")
    all_of_it, some = (
        VERSION.with_summary(published_at="t"),
        replace(VERSION, globs=Globs(("*.glb",))).with_summary(published_at="t"),
    )
    begun = replace(VERSION, globs=Globs(exclude=("*.png",)))
    assert choose_version([some, all_of_it], export, some.globs).existing == some
    assert choose_version([some, all_of_it], export, EVERYTHING).existing == all_of_it
    assert choose_version([some, all_of_it], export, begun.globs).existing is None
    assert choose_version([some, begun], export, EVERYTHING).unfinished == begun


@pytest.mark.parametrize(("before", "now"), [("2026", "2027"), ("2026", ""), ("", "2026"), ("", "")])
def test_changed_or_unknown_is_not_unchanged(before: str, now: str) -> None:
    """An export with a changed or missing time is checked again."""
    version = VERSION.with_facts(modified=before).with_summary(published_at="t")
    assert not choose_version([version], Export("e", "Complete", modified=now), EVERYTHING).is_unchanged


def make_export(version: Version) -> Export:
    """Make the export of a version in another mirror."""
    return Export(version.export, "Complete", modified=version.facts.modified, stored_version=version)


def test_a_mirrored_version_is_matched_by_time_then_name() -> None:
    """Among versions of one export, the one with the same time is chosen, whatever its name; all are candidates."""
    one = replace(VERSION, name="e").with_facts(modified="1").with_summary(published_at="t")
    two = replace(VERSION, name="e-2").with_facts(modified="2").with_summary(published_at="t")
    bare, other = one.with_facts(modified=""), two.with_facts(modified="")
    choices = [
        choose_version([one, two], make_export(each), EVERYTHING)
        for each in (one, two, one.with_facts(modified="3"), bare)
    ]
    assert [(c.existing, c.is_unchanged) for c in choices] == [(one, True), (two, True), (one, False), (one, False)]
    assert choose_version([two, one], make_export(replace(two, name="e-3")), EVERYTHING).existing == two
    assert choose_version([bare, other], make_export(bare), EVERYTHING).candidates == (bare, other)
    assert choose_version([bare, other], make_export(other), EVERYTHING).candidates == (other, bare)
    assert choose_version([one, two], Export("e", "Complete", modified="1"), EVERYTHING).candidates == (two,)


def test_globs_of_a_mirrored_version_are_kept() -> None:
    """Files that it excludes stay excluded, and further filters make another version."""
    some = replace(VERSION, globs=Globs(("tiles/**",), ("*.png",))).with_summary(published_at="t")
    assert choose_version([some], make_export(some), EVERYTHING).existing == some
    assert choose_version([some], make_export(some), EVERYTHING).globs == some.globs
    assert choose_version([some], make_export(some), Globs(exclude=("*.b3dm",))).globs == Globs(
        ("tiles/**",), ("*.b3dm", "*.png")
    )
    assert choose_version([some], make_export(some), Globs(include=("a/**",))).globs == Globs(("a/**",), ("*.png",))
    assert choose_version([some], make_export(replace(some, globs=EVERYTHING)), EVERYTHING).existing is None
