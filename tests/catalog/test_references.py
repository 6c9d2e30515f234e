"""Reference index: completeness, missing and damaged files, and diagnostics."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tests.support.examples import examples
from tilesync.catalog.catalog import Catalog
from tilesync.model import (
    ROOT,
    Blob,
    Completeness,
    DamagedFile,
    Diagnostic,
    FileResult,
    Inventory,
    Kind,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    Version,
)
from tilesync.model.tiles import ABSOLUTE_URL, DAMAGED, EMPTY_TILE, REQUIRED_BUFFER_BYTES, ROOT_LEADS_AWAY, UNFOLLOWED

SHA = b"s" * 32
NEW = Version(0, "e1", "e1")


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    catalog = Catalog(Path(":memory:"))
    yield catalog
    catalog.close()


@pytest.fixture
def version(catalog: Catalog) -> Version:
    return catalog.add_version(NEW)


def content_of(
    *targets: str, role: Role = Role.CONTENT, kind: Kind = Kind.TILESET, diagnostic_count: int = 0
) -> ParsedContent:
    diagnostics = tuple(Diagnostic("unfollowed", f"{number}") for number in range(diagnostic_count))
    return ParsedContent(kind, tuple(Reference(target, role) for target in targets), diagnostics)


def put(catalog: Catalog, version: Version, name: str, content: ParsedContent, *, partly: bool = False) -> None:
    """Store a file; a known file is stored again with another content."""
    catalog.mark_wanted(version, [name])
    numbers = {blob.name: number for number, blob in catalog.list_wanted(version, 0, limit=99)}
    result = FileResult(numbers.get(name, 0), StoredFile(Blob(name, 1), SHA, 1), content, has_more_references=partly)
    if name in numbers:
        catalog.mark_stored(version, [result])
    else:
        catalog.add_stored_files(version, [result])


def put_all(catalog: Catalog, version: Version, **contents: ParsedContent) -> None:
    """Store files by name; `root` is the root tileset."""
    for name, content in contents.items():
        put(catalog, version, ROOT if name == "root" else name, content)


def missing(catalog: Catalog, version: Version) -> list[tuple[str, str, str]]:
    return list(catalog.references.list_missing(version))


# --- the closure ----------------------------------------------------------------------------------------------------


@dataclass
class ReferenceOracle:
    """Contents of a version in plain Python: content by name, and names that the container does not have."""

    stored: dict[str, ParsedContent] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def reached(self) -> set[str]:
        result, pending = set[str](), [ROOT]
        while pending:
            if (name := pending.pop()) not in result:
                result.add(name)
                if name in self.stored:
                    pending += [reference.target for reference in self.stored[name].references]
        return result

    def unsatisfiable(self) -> list[tuple[str, str]]:
        """List references that no copy can satisfy, with the file that has them."""
        return [
            (diagnostic.detail, name)
            for name in self.reached() & self.stored.keys()
            for diagnostic in self.stored[name].diagnostics
            if diagnostic.problem in {"unsafe name", "unreadable"}
        ]

    def compute_completeness(self) -> Completeness:
        reached, lost = self.reached(), len(self.unsatisfiable())
        return Completeness(
            referenced=len(reached) + lost,
            missing=len(reached - self.stored.keys()) + lost,
            orphans=len(self.stored.keys() - reached),
            unfollowed=sum(
                r.problem == "unfollowed"
                for name in reached & self.stored.keys()
                for r in self.stored[name].diagnostics
            ),
        )

    def find_referrers(self, name: str) -> set[tuple[str, str]]:
        """Find the stored and reached files that reference a file, with the role."""
        return {
            (source, reference.role.value)
            for source in self.reached() & self.stored.keys()
            for reference in self.stored[source].references
            if reference.target == name
        }

    def check(self, catalog: Catalog, version: Version) -> None:
        """Check that the catalog agrees with the oracle."""
        assert catalog.references.compute_completeness(version) == self.compute_completeness()
        lost = sorted((detail, source, "") for detail, source in self.unsatisfiable())
        result = missing(catalog, version)
        absent = [row for row in result if row[2]]
        assert sorted(row for row in result if not row[2]) == lost
        assert [name for name, _, _ in absent] == sorted(
            name for name in self.reached() - self.stored.keys() if self.find_referrers(name)
        )
        assert all((asker, role) in self.find_referrers(name) for name, asker, role in absent)


NAMES = [ROOT, "a", "b", "c", "d/e", "d/f", "ä"]
DIAGNOSTICS = st.builds(
    Diagnostic, st.sampled_from(["unfollowed", "unsafe name", "unreadable", "query", "cycle"]), st.sampled_from("xyz")
)
CONTENTS = st.builds(
    ParsedContent,
    kind=st.sampled_from([Kind.TILESET, Kind.SUBTREE, Kind.GLB]),
    references=st.lists(
        st.builds(Reference, st.sampled_from(NAMES), st.sampled_from([Role.CONTENT, Role.SCHEMA])),
        max_size=4,
        unique=True,
    ).map(tuple),
    diagnostics=st.lists(DIAGNOSTICS, max_size=2, unique=True).map(tuple),
)
GRAPHS = st.dictionaries(st.sampled_from(NAMES), CONTENTS)


@given(GRAPHS)
@examples(200)
def test_the_closure_is_that_of_the_oracle(graph: dict[str, ParsedContent]) -> None:
    """Referenced, missing, orphan and unfollowed counts, and referrers, match a plain search."""
    catalog = Catalog(Path(":memory:"))
    version, other = catalog.add_version(NEW), catalog.add_version(replace(NEW, name="other"))
    for name, content in graph.items():
        put(catalog, version, name, content)
        put(catalog, other, name, ParsedContent(references=(Reference("elsewhere", Role.CONTENT),)))
    ReferenceOracle(dict(graph)).check(catalog, version)
    catalog.close()


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), CONTENTS),
    st.tuples(st.just("parts"), st.sampled_from(NAMES), CONTENTS),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("miss"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("reopen"), st.just(""), st.none()),
)


@given(st.lists(STEPS, max_size=12))
@examples(150)
def test_the_closure_follows_every_change_of_the_files(steps: list[tuple[str, str, ParsedContent | None]]) -> None:
    """Files are added, also in parts, replaced, removed or missing: only their last content counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite3"
        catalog, oracle = Catalog(path), ReferenceOracle()
        version = catalog.add_version(NEW)
        for step, name, content in steps:
            if step == "reopen":
                catalog.close()
                catalog = Catalog(path)
            elif step == "leave":
                version = relisted(catalog, version, without=name)
                oracle.stored.pop(name, None)
            elif step == "miss":
                catalog.mark_wanted(version, [name])
                catalog.mark_missing(version, [number for number, _ in catalog.list_wanted(version, 0, limit=9)])
                if oracle.stored.pop(name, None):
                    oracle.absent.add(name)
            elif content is not None and name not in oracle.absent:
                if step == "parts":
                    add_part(catalog, version, name, content)
                else:
                    put(catalog, version, name, content)
                oracle.stored[name] = content
        oracle.check(catalog, version)
        (again,) = catalog.versions()
        assert (again.name, again.listing.number) == (version.name, version.listing.number)
        catalog.close()


def relisted(catalog: Catalog, version: Version, *, without: str) -> Version:
    """Relist the version with all stored files but one."""
    version = replace(version, listing=version.listing.restart())
    catalog.update_version(version)
    rows = [
        (stored.blob, stored) for _, stored in catalog.list_stored(version, limit=99) if stored.blob.name != without
    ]
    catalog.add_page(version, rows, [])
    catalog.finish_listing(version)
    return version


def add_part(catalog: Catalog, version: Version, name: str, content: ParsedContent) -> None:
    """Store a file whose references come in three parts."""
    one = ParsedContent(references=content.references[:1], diagnostics=content.diagnostics[1:])
    two = ParsedContent(references=content.references[1:2])
    catalog.references.add(version, name, content_of("stale", diagnostic_count=9), replace_existing=True)
    catalog.references.add(version, name, one, replace_existing=True)
    catalog.references.add(version, name, two)
    last = content._replace(references=content.references[2:], diagnostics=content.diagnostics[:1])
    put(catalog, version, name, last, partly=True)


# --- what counts ----------------------------------------------------------------------------------------------------


def test_cycles_end(catalog: Catalog, version: Version) -> None:
    """Files that reference each other, the root or themselves are counted once each."""
    put_all(catalog, version, root=content_of("a", ROOT), a=content_of("b", "a"), b=content_of("a", ROOT))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3)
    assert missing(catalog, version) == []


def test_the_root_counts(catalog: Catalog, version: Version) -> None:
    """A version without a root misses it, without a referrer, and all its files are orphans."""
    put_all(catalog, version, a=content_of("b"), b=content_of())
    assert catalog.references.compute_completeness(version) == Completeness(referenced=1, missing=1, orphans=2)
    assert missing(catalog, version) == []


def test_a_referrer_is_reached_and_stored(catalog: Catalog, version: Version) -> None:
    """The referrer of a missing file is never an orphan and never missing itself."""
    put_all(
        catalog, version, root=content_of("z", "bad"), z=content_of("lost"), a_orphan=content_of("lost", "not counted")
    )
    catalog.references.add(version, "bad", content_of("lost", "unread", kind=Kind.NONE))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=4, missing=2, orphans=1)
    assert missing(catalog, version) == [("bad", ROOT, "content"), ("lost", "z", "content")]


def test_only_stored_files_have_references(catalog: Catalog, version: Version) -> None:
    """A file to be fetched again, or read in part, has no references until it is stored."""
    lost = (Diagnostic("unreadable", "x"), Diagnostic("unsafe name", "y"))
    put_all(
        catalog,
        version,
        root=content_of("a", "b"),
        a=content_of("c", "d")._replace(diagnostics=lost),
        c=ParsedContent(Kind.NONE),
    )
    catalog.references.add(version, "b", content_of("d", "e")._replace(diagnostics=lost))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=7, missing=4)
    catalog.mark_wanted(version, ["a"])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=1, orphans=1)
    assert missing(catalog, version) == [("b", ROOT, "content")]
    put(catalog, version, "a", content_of("b"))
    catalog.mark_wanted(version, [ROOT])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=1, orphans=2)


def test_a_file_stored_again_has_only_its_new_references(catalog: Catalog, version: Version) -> None:
    """References and diagnostics of a replaced file no longer count."""
    put_all(catalog, version, root=content_of("a", diagnostic_count=2), a=content_of("b"))
    put(catalog, version, ROOT, content_of("c"))
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["c"]
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, orphans=1)
    assert list(catalog.references.list_diagnostics(version)) == []


def test_parts_add_up(catalog: Catalog, version: Version) -> None:
    """Parts added while a file passes stay when the rest arrives; older ones do not."""
    catalog.references.add(version, ROOT, content_of("stale", diagnostic_count=1))
    catalog.references.add(version, ROOT, content_of("a"), replace_existing=True)
    catalog.references.add(version, ROOT, content_of("b", diagnostic_count=1))
    put(catalog, version, ROOT, content_of("c"), partly=True)
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["a", "b", "c"]
    assert catalog.references.compute_completeness(version).unfollowed == 1
    put(catalog, version, ROOT, content_of("d"), partly=False)
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["d"]


def test_derived_references(catalog: Catalog, version: Version) -> None:
    """Derived references go when they are derived again or the file itself comes again; else both stay."""
    put(catalog, version, ROOT, content_of("a", diagnostic_count=1))
    grown = ParsedContent(references=(Reference("s", Role.SUBTREE),), diagnostics=(Diagnostic("unfollowed", "grown"),))
    catalog.references.add(version, ROOT, grown, derived=True, replace_existing=True)
    catalog.references.add(version, ROOT, ParsedContent(references=(Reference("a", Role.CONTENT),)), derived=True)
    assert catalog.references.list_targets(version, ROOT, Role.SUBTREE) == ["s"]
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=2, unfollowed=2)
    catalog.references.add(version, ROOT, ParsedContent(), derived=True, replace_existing=True)
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, unfollowed=1)
    catalog.references.add(version, ROOT, grown, derived=True)
    put(catalog, version, ROOT, content_of("a"))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1)


def test_one_file_in_two_roles(catalog: Catalog, version: Version) -> None:
    """A file referenced in two roles is one file, and both roles are kept."""
    references = (Reference("a", Role.SCHEMA), Reference("a", Role.CONTENT))
    put(catalog, version, ROOT, ParsedContent(Kind.TILESET, references))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1)
    assert catalog.references.list_targets(version, ROOT, Role.SCHEMA) == ["a"]
    assert [name for name, _, _ in missing(catalog, version)] == ["a"]
    assert catalog.references.list_targets(version, ROOT, Role.IMAGE) == []


def test_missing_and_wanted_files(catalog: Catalog) -> None:
    """A file in state MISSING is absent; a wanted one is not."""
    version = catalog.add_version(replace(NEW, name="walk", inventory=Inventory.WALK))
    for name in (ROOT, "miss", "want"):
        catalog.add_wanted(version, name)
    numbers = {blob.name: number for number, blob in catalog.list_wanted(version, 0, limit=9)}
    stored = StoredFile(Blob(ROOT, 1), SHA, 1)
    catalog.mark_stored(version, [FileResult(numbers[ROOT], stored, content_of("miss", "want"))])
    catalog.mark_missing(version, [numbers["miss"]])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=1)
    assert missing(catalog, version) == [("miss", ROOT, "content")]


def test_versions_do_not_mix(catalog: Catalog, version: Version) -> None:
    """The same names in another version are other files."""
    other = catalog.add_version(replace(NEW, name="e2"))
    put_all(catalog, version, root=content_of("a", diagnostic_count=1), a=ParsedContent())
    put_all(catalog, other, root=content_of("b", "c", diagnostic_count=3))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, unfollowed=1)
    assert catalog.references.compute_completeness(other) == Completeness(referenced=3, missing=2, unfollowed=3)
    assert [name for name, _, _ in missing(catalog, other)] == ["b", "c"]
    assert catalog.references.find_referrers(other, ["a", "b"]) == {"b": ROOT}
    put(catalog, other, ROOT, content_of())
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["a"]
    catalog.delete_version(version)
    assert catalog.query("SELECT * FROM reference") == []
    assert catalog.query("SELECT * FROM remark") == []


def test_reopening(tmp_path: Path) -> None:
    """A reopened catalog gives the same completeness and the same names."""
    catalog = Catalog(tmp_path / "c")
    version = catalog.add_version(NEW)
    put_all(
        catalog, version, root=content_of("a", "b", diagnostic_count=2), a=content_of("lost"), orphan=ParsedContent()
    )
    put(catalog, version, "implicit", content_of()._replace(has_implicit_tiling=True))
    result = (
        catalog.references.compute_completeness(version),
        missing(catalog, version),
        list(catalog.references.list_diagnostics(version)),
    )
    catalog.close()
    catalog = Catalog(tmp_path / "c")
    settled = catalog.references.compute_completeness(version)
    assert (settled, missing(catalog, version), list(catalog.references.list_diagnostics(version))) == result
    assert settled == Completeness(referenced=4, missing=2, orphans=2, unfollowed=2)
    assert catalog.references.list_implicit_tilesets(version) == ["implicit"]
    catalog.close()


# --- who, and what else ---------------------------------------------------------------------------------------------


def test_find_referrers(catalog: Catalog, version: Version) -> None:
    """Referrers are found for any number of files, stored or not."""
    put_all(catalog, version, root=content_of(*(f"{number}" for number in range(3000))), a=content_of("0", "a"))
    names = [f"{number}" for number in range(1, 4000)]
    assert catalog.references.find_referrers(version, names) == dict.fromkeys(names[:2999], ROOT)
    assert catalog.references.find_referrers(version, ["0", ROOT, "a"]) == {"0": "a", "a": "a"}
    assert catalog.references.find_referrers(version, []) == {}


def test_list_diagnostics(catalog: Catalog, version: Version) -> None:
    """Diagnostics come by problem, then by file, without those that mean a missing file."""
    contents = {
        name: ParsedContent(diagnostics=(Diagnostic("query", "q"), Diagnostic("cycle", "c"))) for name in ("b", "a")
    }
    put_all(
        catalog,
        version,
        **contents,
        c=ParsedContent(diagnostics=(Diagnostic("unreadable", "x"), Diagnostic("unsafe name", "y"))),
    )
    cycle, query = Diagnostic("cycle", "c"), Diagnostic("query", "q")
    assert list(catalog.references.list_diagnostics(version)) == [
        ("a", cycle),
        ("b", cycle),
        ("a", query),
        ("b", query),
    ]


def test_contents_that_are_no_tiles(catalog: Catalog, version: Version) -> None:
    """An empty content, or one that no viewer shows, gets one diagnostic; a schema or orphan of that kind none."""
    kinds = {"glb": Kind.GLB, "empty": Kind.EMPTY, "none": Kind.NONE, "json": Kind.JSON, "set": Kind.TILESET}
    put_all(
        catalog, version, **{name: ParsedContent(kind) for name, kind in kinds.items()}, orphan=ParsedContent(Kind.NONE)
    )
    put_all(catalog, version, root=content_of(*kinds, "lost"), other=content_of("none"))
    schema = ParsedContent(Kind.TILESET, (Reference("schema", Role.SCHEMA),))
    put_all(catalog, version, third=schema, schema=ParsedContent(Kind.SCHEMA))
    assert list(catalog.references.list_diagnostics(version)) == [
        ("empty", Diagnostic("empty content", "is empty")),
        ("json", Diagnostic("unknown content", "is json that no viewer is known to show")),
        ("none", Diagnostic("unknown content", "is of a kind that no viewer is known to show")),
    ]
    catalog.mark_wanted(version, ["json", "none"])
    assert list(catalog.references.list_diagnostics(version)) == [("empty", Diagnostic("empty content", "is empty"))]


def test_tileset_references(catalog: Catalog, version: Version) -> None:
    """Only a stored tileset with another as content counts as a tileset reference."""
    put_all(catalog, version, root=content_of("a", "glb", "lost"), a=content_of(ROOT), glb=ParsedContent(Kind.GLB))
    put(catalog, version, "s", content_of("a", kind=Kind.SUBTREE))
    put(catalog, version, "t", content_of("a", role=Role.SCHEMA))
    assert sorted(catalog.references.list_tileset_references(version)) == [("a", ROOT), (ROOT, "a")]


def test_implicit_tilesets(catalog: Catalog, version: Version) -> None:
    """Implicit tilesets are listed while they are stored."""
    for name in ("b", "a", "c"):
        put(catalog, version, name, content_of()._replace(has_implicit_tiling=name != "c"))
    assert sorted(catalog.references.list_implicit_tilesets(version)) == ["a", "b"]
    put(catalog, version, "a", content_of())
    catalog.mark_wanted(version, ["b"])
    assert catalog.references.list_implicit_tilesets(version) == []


def test_a_case_insensitive_disk(catalog: Catalog) -> None:
    """On a case-insensitive disk names compare without case and keep their spelling: files their own, missing ones the
    referenced.
    """
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(replace(NEW, name="folds"))
    put(catalog, version, "Tileset.JSON", content_of("A/SUB.json", "a/ß.glb", "Lost.glb", diagnostic_count=1))
    put(catalog, version, "a/Sub.json", content_of("TILESET.json", "LOST.GLB")._replace(has_implicit_tiling=True))
    put(catalog, version, "A/SS.glb", ParsedContent(Kind.NONE))
    put(catalog, version, "Orphan", ParsedContent())
    assert catalog.references.compute_completeness(version) == Completeness(
        referenced=4, missing=1, orphans=1, unfollowed=1
    )
    ((name, asker, _),) = missing(catalog, version)
    assert (name, asker) in {("Lost.glb", "Tileset.JSON"), ("LOST.GLB", "a/Sub.json")}
    assert set(catalog.references.list_targets(version, "tileset.json", Role.CONTENT)) == {
        "A/SUB.json",
        "a/ß.glb",
        "Lost.glb",
    }
    assert catalog.references.list_implicit_tilesets(version) == ["a/Sub.json"]
    askers = catalog.references.find_referrers(version, ["a/SUB.JSON", "tileset.json", "orphan"])
    assert askers == {"a/SUB.JSON": "Tileset.JSON", "tileset.json": "a/Sub.json"}
    assert [name for name, _ in catalog.references.list_diagnostics(version)] == ["Tileset.JSON", "A/SS.glb"]
    between = [("Tileset.JSON", "a/Sub.json"), ("a/Sub.json", "Tileset.JSON")]
    assert sorted(catalog.references.list_tileset_references(version)) == between


@pytest.mark.scale
def test_many_references_are_quick(tmp_path: Path) -> None:
    """Completeness of 200,000 references, in a tree and in one long chain, does not take quadratic time."""
    catalog = Catalog(tmp_path / "c")
    version = catalog.add_version(NEW)

    def name(number: int) -> str:
        return f"tiles/{number:06d}.json" if number else ROOT

    most = 20_000
    tree = [content_of(*(name(10 * number + one) for one in range(1, 11))) for number in range(most)]
    chain = [content_of(f"chain/{number + 1}") for number in range(most)]
    files = [*zip(map(name, range(most)), tree, strict=True)]
    files += [(f"chain/{number}", contents) for number, contents in enumerate(chain)]
    files[most - 1] = (files[most - 1][0], content_of("chain/0"))
    catalog.add_stored_files(
        version, [FileResult(0, StoredFile(Blob(each, 1), SHA, 1), contents) for each, contents in files]
    )
    with limit_cpu_time():
        result = catalog.references.compute_completeness(version)
    assert result.referenced == (10 * most - 9) + (most + 1)
    assert len(missing(catalog, version)) == result.missing
    assert result.orphans == 0
    catalog.close()


# --- what is broken, or leads elsewhere -----------------------------------------------------------------------------


def test_damaged_files(catalog: Catalog, version: Version) -> None:
    """Damaged files have their referrer in the most important role; images, schemas and short buffers are checked by
    kind and size; sound or unreferenced files are left out.
    """
    broken = ParsedContent(Kind.GLB, diagnostics=(Diagnostic(DAMAGED, "it is cut off"),))
    images = tuple(Reference(name, Role.IMAGE) for name in ("a", "empty", "json", "odd", "png"))
    model = (*images, Reference("short", Role.BUFFER), Reference("long", Role.BUFFER), Reference("none", Role.SCHEMA))
    needs = (
        Diagnostic(REQUIRED_BUFFER_BYTES, "100 short"),
        Diagnostic(REQUIRED_BUFFER_BYTES, "1 long"),
        Diagnostic(REQUIRED_BUFFER_BYTES, "9 gone"),
    )
    put_all(
        catalog,
        version,
        **{ROOT: content_of("a", "model")},
        model=ParsedContent(Kind.GLTF, model, needs),
        a=broken,
        orphan=broken,
        **{
            "empty": ParsedContent(Kind.EMPTY),
            "json": ParsedContent(Kind.JSON),
            "odd": ParsedContent(),
            "png": ParsedContent(Kind.IMAGE),
        },
        **{
            "short": ParsedContent(),
            "long": ParsedContent(),
            "none": ParsedContent(),
            "free": ParsedContent(Kind.EMPTY),
        },
    )
    catalog.references.compute_completeness(version)
    assert catalog.references.has_suspect_files(version)
    result = {each.name: each for each in catalog.references.list_damaged(version)}
    assert result["a"] == DamagedFile("a", "it is cut off", ROOT, "content", has_stated_md5=result["a"].has_stated_md5)
    assert result["orphan"] == DamagedFile("orphan", "it is cut off", has_stated_md5=result["orphan"].has_stated_md5)
    assert {name: each.reason for name, each in result.items() if name not in {"a", "orphan"}} == {
        "empty": "it is empty",
        "json": "it holds json, no image",
        "none": "it holds no schema",
        "short": result["short"].reason,
    }
    assert result["short"].reason.endswith("but 100 are required")
    assert result["short"].role == "buffer"
    hidden = {diagnostic.problem for _, diagnostic in catalog.references.list_diagnostics(version)}
    assert not hidden & {DAMAGED, REQUIRED_BUFFER_BYTES}


def test_a_sound_version_has_no_suspects(catalog: Catalog, version: Version) -> None:
    """A sound version has no suspect files, so nothing more is read."""
    put_all(catalog, version, **{ROOT: content_of("a")}, a=ParsedContent(Kind.GLB))
    assert not catalog.references.has_suspect_files(version)
    assert catalog.references.list_damaged(version) == []


def test_unfollowed_uris_are_counted(catalog: Catalog, version: Version) -> None:
    """Each URI counts, also where one diagnostic stands for many; those of orphans do not."""
    leads_away = Diagnostic(ROOT_LEADS_AWAY, "12 URIs lead elsewhere: the first, https://h/0 leads to another host (h)")
    put_all(
        catalog,
        version,
        **{ROOT: content_of("a")._replace(diagnostics=(leads_away,))},
        a=ParsedContent(
            diagnostics=(
                Diagnostic(ABSOLUTE_URL, "x leads back"),
                Diagnostic(UNFOLLOWED, "7.glb is in an extension"),
            )
        ),
        orphan=ParsedContent(diagnostics=(Diagnostic(UNFOLLOWED, "x"), leads_away)),
    )
    assert catalog.references.compute_completeness(version).unfollowed == 12 + 1 + 1
    assert catalog.references.list_leading_elsewhere(version) == [("a", "x leads back"), (ROOT, leads_away.detail)]


def test_an_empty_tile_is_missing_for_its_referrer(catalog: Catalog, version: Version) -> None:
    """An empty tile counts as missing where a file references it, though it is stored."""
    hollow = ParsedContent(Kind.EMPTY, diagnostics=(Diagnostic(EMPTY_TILE, "it is empty"),))
    put_all(catalog, version, **{ROOT: content_of("a")}, a=hollow, orphan=hollow)
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, orphans=1)
    assert missing(catalog, version) == [("a", ROOT, "content")]
