"""Which file asks for which, and what follows from it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesync.catalog.catalog import SqliteCatalog
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
NEW = Version(0, "e1", "e1", None, None, "", {})


@pytest.fixture
def catalog() -> Iterator[SqliteCatalog]:
    catalog = SqliteCatalog(Path(":memory:"))
    yield catalog
    catalog.close()


@pytest.fixture
def version(catalog: SqliteCatalog) -> Version:
    return catalog.add_version(NEW)


def reading(*targets: str, role: Role = Role.CONTENT, kind: Kind = Kind.TILESET, remarks: int = 0) -> ParsedContent:
    said = tuple(Diagnostic("unfollowed", f"{number}") for number in range(remarks))
    return ParsedContent(kind, tuple(Reference(target, role) for target in targets), said)


def put(catalog: SqliteCatalog, version: Version, name: str, said: ParsedContent, *, partly: bool = False) -> None:
    """Hold a file; one that is known already is held again, with another reading."""
    catalog.mark_wanted(version, [name])
    numbers = {blob.name: number for number, blob in catalog.list_wanted(version, 0, limit=99)}
    arrival = FileResult(numbers.get(name, 0), StoredFile(Blob(name, 1), SHA, 1), said, has_more_references=partly)
    if name in numbers:
        catalog.mark_stored(version, [arrival])
    else:
        catalog.add_stored_files(version, [arrival])


def put_all(catalog: SqliteCatalog, version: Version, **readings: ParsedContent) -> None:
    """Files by name; `root` is the root tileset."""
    for name, said in readings.items():
        put(catalog, version, ROOT if name == "root" else name, said)


def missing(catalog: SqliteCatalog, version: Version) -> list[tuple[str, str, str]]:
    return list(catalog.references.list_missing(version))


# --- the closure ----------------------------------------------------------------------------------------------------


@dataclass
class ReferenceOracle:
    """What a version holds, in plain Python: readings by name, and names that the container does not have."""

    held: dict[str, ParsedContent] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def reached(self) -> set[str]:
        found, pending = set[str](), [ROOT]
        while pending:
            if (name := pending.pop()) not in found:
                found.add(name)
                if name in self.held:
                    pending += [reference.target for reference in self.held[name].references]
        return found

    def unsatisfiable(self) -> list[tuple[str, str]]:
        """What is asked for and can be held by no copy, with who asks for it."""
        return [
            (remark.detail, name)
            for name in self.reached() & self.held.keys()
            for remark in self.held[name].diagnostics
            if remark.problem in {"unsafe name", "unreadable"}
        ]

    def compute_completeness(self) -> Completeness:
        reached, lost = self.reached(), len(self.unsatisfiable())
        return Completeness(
            referenced=len(reached) + lost,
            missing=len(reached - self.held.keys()) + lost,
            orphans=len(self.held.keys() - reached),
            unfollowed=sum(
                r.problem == "unfollowed" for name in reached & self.held.keys() for r in self.held[name].diagnostics
            ),
        )

    def find_referrers(self, name: str) -> set[tuple[str, str]]:
        """Who of those that are reached and there asks for a file, and what for."""
        return {
            (source, reference.role.value)
            for source in self.reached() & self.held.keys()
            for reference in self.held[source].references
            if reference.target == name
        }

    def check(self, catalog: SqliteCatalog, version: Version) -> None:
        """Everything that the catalog says is what the oracle says."""
        assert catalog.references.compute_completeness(version) == self.compute_completeness()
        lost = sorted((detail, source, "") for detail, source in self.unsatisfiable())
        found = missing(catalog, version)
        absent = [row for row in found if row[2]]
        assert sorted(row for row in found if not row[2]) == lost
        assert [name for name, _, _ in absent] == sorted(
            name for name in self.reached() - self.held.keys() if self.find_referrers(name)
        )
        assert all((asker, role) in self.find_referrers(name) for name, asker, role in absent)


NAMES = [ROOT, "a", "b", "c", "d/e", "d/f", "ä"]
REMARKS = st.builds(
    Diagnostic, st.sampled_from(["unfollowed", "unsafe name", "unreadable", "query", "cycle"]), st.sampled_from("xyz")
)
READINGS = st.builds(
    ParsedContent,
    kind=st.sampled_from([Kind.TILESET, Kind.SUBTREE, Kind.GLB]),
    references=st.lists(
        st.builds(Reference, st.sampled_from(NAMES), st.sampled_from([Role.CONTENT, Role.SCHEMA])),
        max_size=4,
        unique=True,
    ).map(tuple),
    diagnostics=st.lists(REMARKS, max_size=2, unique=True).map(tuple),
)
GRAPHS = st.dictionaries(st.sampled_from(NAMES), READINGS)


@given(GRAPHS)
@settings(max_examples=200)
def test_the_closure_is_that_of_the_oracle(graph: dict[str, ParsedContent]) -> None:
    """What is referenced, missing, an orphan or unfollowed, and who misses what, is what a plain search finds."""
    catalog = SqliteCatalog(Path(":memory:"))
    version, other = catalog.add_version(NEW), catalog.add_version(replace(NEW, name="other"))
    for name, said in graph.items():
        put(catalog, version, name, said)
        put(catalog, other, name, ParsedContent(references=(Reference("elsewhere", Role.CONTENT),)))
    ReferenceOracle(dict(graph)).check(catalog, version)
    catalog.close()


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), READINGS),
    st.tuples(st.just("parts"), st.sampled_from(NAMES), READINGS),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("miss"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("reopen"), st.just(""), st.none()),
)


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=150)
def test_whatever_happens_to_files_the_closure_holds(steps: list[tuple[str, str, ParsedContent | None]]) -> None:
    """Files that come, come again, in parts, leave the listing or go missing: only what is said last counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite3"
        catalog, oracle = SqliteCatalog(path), ReferenceOracle()
        version = catalog.add_version(NEW)
        for step, name, said in steps:
            if step == "reopen":
                catalog.close()
                catalog = SqliteCatalog(path)
            elif step == "leave":
                version = relisted(catalog, version, without=name)
                oracle.held.pop(name, None)
            elif step == "miss":
                catalog.mark_wanted(version, [name])
                catalog.mark_missing(version, [number for number, _ in catalog.list_wanted(version, 0, limit=9)])
                if oracle.held.pop(name, None):
                    oracle.absent.add(name)
            elif said is not None and name not in oracle.absent:
                if step == "parts":
                    add_part(catalog, version, name, said)
                else:
                    put(catalog, version, name, said)
                oracle.held[name] = said
        oracle.check(catalog, version)
        (again,) = catalog.versions()
        assert (again.name, again.listing_number) == (version.name, version.listing_number)
        catalog.close()


def relisted(catalog: SqliteCatalog, version: Version, *, without: str) -> Version:
    """The version after a new listing that has what is held, but for one name."""
    version = replace(version, listing_number=version.listing_number + 1)
    catalog.update_version(version)
    rows = [(held.blob, held) for _, held in catalog.list_stored(version, limit=99) if held.blob.name != without]
    catalog.add_page(version, rows, [])
    catalog.finish_listing(version)
    return version


def add_part(catalog: SqliteCatalog, version: Version, name: str, said: ParsedContent) -> None:
    """A file that says what it says in three parts."""
    one = ParsedContent(references=said.references[:1], diagnostics=said.diagnostics[1:])
    two = ParsedContent(references=said.references[1:2])
    catalog.references.add(version, name, reading("stale", remarks=9), replace_existing=True)
    catalog.references.add(version, name, one, replace_existing=True)
    catalog.references.add(version, name, two)
    last = said._replace(references=said.references[2:], diagnostics=said.diagnostics[:1])
    put(catalog, version, name, last, partly=True)


# --- what counts ----------------------------------------------------------------------------------------------------


def test_cycles_end(catalog: SqliteCatalog, version: Version) -> None:
    """Files that ask for each other, for the root or for themselves are each counted once."""
    put_all(catalog, version, root=reading("a", ROOT), a=reading("b", "a"), b=reading("a", ROOT))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3)
    assert missing(catalog, version) == []


def test_the_root_counts(catalog: SqliteCatalog, version: Version) -> None:
    """A version without a root misses it, and everything in it is an orphan; nobody asks for the root."""
    put_all(catalog, version, a=reading("b"), b=reading())
    assert catalog.references.compute_completeness(version) == Completeness(referenced=1, missing=1, orphans=2)
    assert missing(catalog, version) == []


def test_an_asker_is_itself_reached_and_there(catalog: SqliteCatalog, version: Version) -> None:
    """Who misses a file is never an orphan, nor a file that is not there itself."""
    put_all(catalog, version, root=reading("z", "bad"), z=reading("lost"), a_orphan=reading("lost", "not counted"))
    catalog.references.add(version, "bad", reading("lost", "unread", kind=Kind.NONE))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=4, missing=2, orphans=1)
    assert missing(catalog, version) == [("bad", ROOT, "content"), ("lost", "z", "content")]


def test_only_what_is_held_asks(catalog: SqliteCatalog, version: Version) -> None:
    """What is to be fetched again, or was read in part, asks for nothing and lacks nothing until it is held."""
    lost = (Diagnostic("unreadable", "x"), Diagnostic("unsafe name", "y"))
    put_all(
        catalog,
        version,
        root=reading("a", "b"),
        a=reading("c", "d")._replace(diagnostics=lost),
        c=ParsedContent(Kind.NONE),
    )
    catalog.references.add(version, "b", reading("d", "e")._replace(diagnostics=lost))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=7, missing=4)
    catalog.mark_wanted(version, ["a"])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=1, orphans=1)
    assert missing(catalog, version) == [("b", ROOT, "content")]
    put(catalog, version, "a", reading("b"))
    catalog.mark_wanted(version, [ROOT])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=1, orphans=2)


def test_a_file_held_again_has_only_its_new_references(catalog: SqliteCatalog, version: Version) -> None:
    """What a file said before it was replaced does not count, remarks included."""
    put_all(catalog, version, root=reading("a", remarks=2), a=reading("b"))
    put(catalog, version, ROOT, reading("c"))
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["c"]
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, orphans=1)
    assert list(catalog.references.list_diagnostics(version)) == []


def test_parts_add_up(catalog: SqliteCatalog, version: Version) -> None:
    """What was told while a file passed is kept when the rest of it arrives; what was told before that is not."""
    catalog.references.add(version, ROOT, reading("stale", remarks=1))
    catalog.references.add(version, ROOT, reading("a"), replace_existing=True)
    catalog.references.add(version, ROOT, reading("b", remarks=1))
    put(catalog, version, ROOT, reading("c"), partly=True)
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["a", "b", "c"]
    assert catalog.references.compute_completeness(version).unfollowed == 1
    put(catalog, version, ROOT, reading("d"), partly=False)
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["d"]


def test_what_is_grown_has_its_own_end(catalog: SqliteCatalog, version: Version) -> None:
    """What following says is void when following begins anew, or when the file itself comes anew; else both stand."""
    put(catalog, version, ROOT, reading("a", remarks=1))
    grown = ParsedContent(references=(Reference("s", Role.SUBTREE),), diagnostics=(Diagnostic("unfollowed", "grown"),))
    catalog.references.add(version, ROOT, grown, derived=True, replace_existing=True)
    catalog.references.add(version, ROOT, ParsedContent(references=(Reference("a", Role.CONTENT),)), derived=True)
    assert catalog.references.list_targets(version, ROOT, Role.SUBTREE) == ["s"]
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=2, unfollowed=2)
    catalog.references.add(version, ROOT, ParsedContent(), derived=True, replace_existing=True)
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, unfollowed=1)
    catalog.references.add(version, ROOT, grown, derived=True)
    put(catalog, version, ROOT, reading("a"))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1)


def test_one_file_in_two_roles(catalog: SqliteCatalog, version: Version) -> None:
    """A file that is asked for in two roles is one file, and each role is told apart."""
    said = (Reference("a", Role.SCHEMA), Reference("a", Role.CONTENT))
    put(catalog, version, ROOT, ParsedContent(Kind.TILESET, said))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1)
    assert catalog.references.list_targets(version, ROOT, Role.SCHEMA) == ["a"]
    assert [name for name, _, _ in missing(catalog, version)] == ["a"]
    assert catalog.references.list_targets(version, ROOT, Role.IMAGE) == []


def test_what_a_walk_did_not_get_is_missing(catalog: SqliteCatalog) -> None:
    """A file that is known to be missing is not there; one that is still wanted is."""
    version = catalog.add_version(replace(NEW, name="walk", inventory=Inventory.WALK))
    for name in (ROOT, "miss", "want"):
        catalog.add_wanted(version, name)
    numbers = {blob.name: number for number, blob in catalog.list_wanted(version, 0, limit=9)}
    held = StoredFile(Blob(ROOT, 1), SHA, 1)
    catalog.mark_stored(version, [FileResult(numbers[ROOT], held, reading("miss", "want"))])
    catalog.mark_missing(version, [numbers["miss"]])
    assert catalog.references.compute_completeness(version) == Completeness(referenced=3, missing=1)
    assert missing(catalog, version) == [("miss", ROOT, "content")]


def test_versions_do_not_mix(catalog: SqliteCatalog, version: Version) -> None:
    """The same names in another version are other files, held again, remarked or forgotten there alone."""
    other = catalog.add_version(replace(NEW, name="e2"))
    put_all(catalog, version, root=reading("a", remarks=1), a=ParsedContent())
    put_all(catalog, other, root=reading("b", "c", remarks=3))
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, unfollowed=1)
    assert catalog.references.compute_completeness(other) == Completeness(referenced=3, missing=2, unfollowed=3)
    assert [name for name, _, _ in missing(catalog, other)] == ["b", "c"]
    assert catalog.references.find_referrers(other, ["a", "b"]) == {"b": ROOT}
    put(catalog, other, ROOT, reading())
    assert catalog.references.list_targets(version, ROOT, Role.CONTENT) == ["a"]
    catalog.delete_version(version)
    assert catalog.query("SELECT * FROM reference") == []
    assert catalog.query("SELECT * FROM remark") == []


def test_it_is_all_there_after_closing(tmp_path: Path) -> None:
    """Closed and opened, a catalog settles to the same, and names the same."""
    catalog = SqliteCatalog(tmp_path / "c")
    version = catalog.add_version(NEW)
    put_all(catalog, version, root=reading("a", "b", remarks=2), a=reading("lost"), orphan=ParsedContent())
    put(catalog, version, "implicit", reading()._replace(has_implicit_tiling=True))
    found = (
        catalog.references.compute_completeness(version),
        missing(catalog, version),
        list(catalog.references.list_diagnostics(version)),
    )
    catalog.close()
    catalog = SqliteCatalog(tmp_path / "c")
    settled = catalog.references.compute_completeness(version)
    assert (settled, missing(catalog, version), list(catalog.references.list_diagnostics(version))) == found
    assert settled == Completeness(referenced=4, missing=2, orphans=2, unfollowed=2)
    assert catalog.references.list_implicit_tilesets(version) == ["implicit"]
    catalog.close()


# --- who, and what else ---------------------------------------------------------------------------------------------


def test_askers(catalog: SqliteCatalog, version: Version) -> None:
    """Of any number of files it is told who asks for each, where anyone does, be they there or not."""
    put_all(catalog, version, root=reading(*(f"{number}" for number in range(3000))), a=reading("0", "a"))
    names = [f"{number}" for number in range(1, 4000)]
    assert catalog.references.find_referrers(version, names) == dict.fromkeys(names[:2999], ROOT)
    assert catalog.references.find_referrers(version, ["0", ROOT, "a"]) == {"0": "a", "a": "a"}
    assert catalog.references.find_referrers(version, []) == {}


def test_remarks_are_told_with_their_files(catalog: SqliteCatalog, version: Version) -> None:
    """Remarks come by problem, then by file; those that say that something is missing are no remarks."""
    said = {
        name: ParsedContent(diagnostics=(Diagnostic("query", "q"), Diagnostic("cycle", "c"))) for name in ("b", "a")
    }
    put_all(
        catalog,
        version,
        **said,
        c=ParsedContent(diagnostics=(Diagnostic("unreadable", "x"), Diagnostic("unsafe name", "y"))),
    )
    cycle, query = Diagnostic("cycle", "c"), Diagnostic("query", "q")
    assert list(catalog.references.list_diagnostics(version)) == [
        ("a", cycle),
        ("b", cycle),
        ("a", query),
        ("b", query),
    ]


def test_contents_that_are_no_tiles_are_remarked(catalog: SqliteCatalog, version: Version) -> None:
    """A content that is empty or that no viewer shows is remarked once; a schema or an orphan of that kind is not."""
    kinds = {"glb": Kind.GLB, "empty": Kind.EMPTY, "none": Kind.NONE, "json": Kind.JSON, "set": Kind.TILESET}
    put_all(
        catalog, version, **{name: ParsedContent(kind) for name, kind in kinds.items()}, orphan=ParsedContent(Kind.NONE)
    )
    put_all(catalog, version, root=reading(*kinds, "lost"), other=reading("none"))
    schema = ParsedContent(Kind.TILESET, (Reference("schema", Role.SCHEMA),))
    put_all(catalog, version, third=schema, schema=ParsedContent(Kind.SCHEMA))
    assert list(catalog.references.list_diagnostics(version)) == [
        ("empty", Diagnostic("empty content", "is empty")),
        ("json", Diagnostic("unknown content", "is json that no viewer is known to show")),
        ("none", Diagnostic("unknown content", "is of a kind that no viewer is known to show")),
    ]
    catalog.mark_wanted(version, ["json", "none"])
    assert list(catalog.references.list_diagnostics(version)) == [("empty", Diagnostic("empty content", "is empty"))]


def test_what_lies_between_tilesets(catalog: SqliteCatalog, version: Version) -> None:
    """Only that a held tileset has another as content is a step between tilesets."""
    put_all(catalog, version, root=reading("a", "glb", "lost"), a=reading(ROOT), glb=ParsedContent(Kind.GLB))
    put(catalog, version, "s", reading("a", kind=Kind.SUBTREE))
    put(catalog, version, "t", reading("a", role=Role.SCHEMA))
    assert sorted(catalog.references.list_tileset_references(version)) == [("a", ROOT), (ROOT, "a")]


def test_implicit_tilesets(catalog: SqliteCatalog, version: Version) -> None:
    """Implicit tilesets are told while they are held."""
    for name in ("b", "a", "c"):
        put(catalog, version, name, reading()._replace(has_implicit_tiling=name != "c"))
    assert sorted(catalog.references.list_implicit_tilesets(version)) == ["a", "b"]
    put(catalog, version, "a", reading())
    catalog.mark_wanted(version, ["b"])
    assert catalog.references.list_implicit_tilesets(version) == []


def test_a_disk_that_folds_case(catalog: SqliteCatalog) -> None:
    """Where case is folded names are compared without it, and told as they are: files by theirs, others as asked."""
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(replace(NEW, name="folds"))
    put(catalog, version, "Tileset.JSON", reading("A/SUB.json", "a/ß.glb", "Lost.glb", remarks=1))
    put(catalog, version, "a/Sub.json", reading("TILESET.json", "LOST.GLB")._replace(has_implicit_tiling=True))
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


def test_many_references_are_settled_quickly(tmp_path: Path) -> None:
    """Two hundred thousand references, in a tree and in one long chain, are settled in a few seconds."""
    catalog = SqliteCatalog(tmp_path / "c")
    version = catalog.add_version(NEW)

    def name(number: int) -> str:
        return f"tiles/{number:06d}.json" if number else ROOT

    most = 20_000
    tree = [reading(*(name(10 * number + one) for one in range(1, 11))) for number in range(most)]
    chain = [reading(f"chain/{number + 1}") for number in range(most)]
    files = [*zip(map(name, range(most)), tree, strict=True)]
    files += [(f"chain/{number}", said) for number, said in enumerate(chain)]
    files[most - 1] = (files[most - 1][0], reading("chain/0"))
    catalog.add_stored_files(version, [FileResult(0, StoredFile(Blob(each, 1), SHA, 1), said) for each, said in files])
    started = time.perf_counter()
    found = catalog.references.compute_completeness(version)
    assert found.referenced == (10 * most - 9) + (most + 1)
    assert len(missing(catalog, version)) == found.missing
    assert time.perf_counter() - started < 15
    assert found.orphans == 0
    catalog.close()


# --- what is broken, or leads elsewhere -----------------------------------------------------------------------------


def test_what_is_of_no_use(catalog: SqliteCatalog, version: Version) -> None:
    """Broken files with who asks for them, in the role without which most is lost; images, schemas and short buffers by
    what they are; and nothing of what is sound, or not asked for.
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
        **{ROOT: reading("a", "model")},
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
    found = {each.name: each for each in catalog.references.list_damaged(version)}
    assert found["a"] == DamagedFile("a", "it is cut off", ROOT, "content", has_stated_md5=found["a"].has_stated_md5)
    assert found["orphan"] == DamagedFile("orphan", "it is cut off", has_stated_md5=found["orphan"].has_stated_md5)
    assert {name: each.reason for name, each in found.items() if name not in {"a", "orphan"}} == {
        "empty": "it is empty",
        "json": "it holds json, no image",
        "none": "it holds no schema",
        "short": found["short"].reason,
    }
    assert found["short"].reason.endswith("is to have 100")
    assert found["short"].role == "buffer"
    hidden = {remark.problem for _, remark in catalog.references.list_diagnostics(version)}
    assert not hidden & {DAMAGED, REQUIRED_BUFFER_BYTES}


def test_nothing_is_doubtful_of_a_sound_version(catalog: SqliteCatalog, version: Version) -> None:
    """So nobody needs to look further."""
    put_all(catalog, version, **{ROOT: reading("a")}, a=ParsedContent(Kind.GLB))
    assert not catalog.references.has_suspect_files(version)
    assert catalog.references.list_damaged(version) == []


def test_where_files_lead_counts_in_the_closure(catalog: SqliteCatalog, version: Version) -> None:
    """Each URI counts, also where one remark stands for many; those of orphans do not."""
    away = Diagnostic(ROOT_LEADS_AWAY, "12 URIs lead elsewhere: the first, https://h/0 leads to another host (h)")
    put_all(
        catalog,
        version,
        **{ROOT: reading("a")._replace(diagnostics=(away,))},
        a=ParsedContent(
            diagnostics=(
                Diagnostic(ABSOLUTE_URL, "x leads back"),
                Diagnostic(UNFOLLOWED, "7.glb stands in an extension"),
            )
        ),
        orphan=ParsedContent(diagnostics=(Diagnostic(UNFOLLOWED, "x"), away)),
    )
    assert catalog.references.compute_completeness(version).unfollowed == 12 + 1 + 1
    assert catalog.references.list_leading_elsewhere(version) == [("a", "x leads back"), (ROOT, away.detail)]


def test_a_tile_without_bytes_is_missing_for_who_asks(catalog: SqliteCatalog, version: Version) -> None:
    """Though it is held; where nobody asks it is no matter."""
    hollow = ParsedContent(Kind.EMPTY, diagnostics=(Diagnostic(EMPTY_TILE, "it is empty"),))
    put_all(catalog, version, **{ROOT: reading("a")}, a=hollow, orphan=hollow)
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1, orphans=1)
    assert missing(catalog, version) == [("a", ROOT, "content")]
