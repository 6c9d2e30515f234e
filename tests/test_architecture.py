"""Test the architecture: layers, sizes of files and folders, and documentation."""

import ast
import functools
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilesync
from tests.support.mirrored_modules import MODULES_WITHOUT_TEST_FILE, TEST_FILES_WITHOUT_MODULE

PACKAGE = Path(tilesync.__file__).parent
TESTS = Path(__file__).parent
PROJECT = TESTS.parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
"""All modules except the outermost, which exports public names of all packages."""

LAYERS = [
    {"__main__"},
    {"cli"},
    {"aio", "testing"},
    {"fleets"},
    {"api"},
    {"checks"},
    {"app"},
    {"jobs", "sources", "stores", "demo", "monitoring", "serving"},
    {"itwin"},
    {"transport", "cluster"},
    {"azure", "tiles"},
    {"protocols"},
    {"catalog"},
    {"core"},
    {"runtime"},
    {"model"},
    {"events", "errors", "__init__"},
    {"values"},
]
"""From top to bottom. A package may import from the layers below, but not from others in its own layer."""

PURE = {"azure", "core", "errors", "events", "model", "protocols", "tiles", "values"}
"""Packages that do no I/O."""

COMPILED_DATACLASSES = {"tiles", "serving", "demo"}
"""Packages that may use the dataclasses of the standard library: they have values of which there are thousands, or are
loaded by few commands.
"""

MOST_MODULES = 17
"""Maximum modules in one folder, so that a reader can find one."""

MAX_TEST_FILE_LINES = 600

IMPURE = {
    "asyncio",
    "logging",
    "pathlib",
    "os",
    "time",
    "threading",
    "socket",
    "io",
    "shutil",
    "tempfile",
    "subprocess",
}

PROTOCOLS = {
    "PackageWriter": "Zip, tar, and SQLite",
    "Admission": "decided by the jobs, asked by the stores, which must not import them",
    "BlobRequest": "callable with keyword arguments",
    "Body": "a blob of a container, and a file of a mirror",
    "Clock": "tests set the time",
    "Destination": "local, and object store",
    "ClusterClient": "Dask, and a fake cluster whose workers fail on purpose",
    "DisplayClass": "callable with keyword arguments",
    "Draft": "local, and object store",
    "EachExport": "callable with a keyword argument",
    "ExportsResolver": "the service, and a mirror",
    "Files": "local, and object store",
    "Lease": "Azure, and S3",
    "LeaseRequest": "callable with keyword arguments",
    "Link": "tests count renewals",
    "Objects": "Azure, and S3",
    "OpenedFile": "a file of a folder, and one of a store or a package",
    "PoolCallbacks": "fulfilled by the pool, which imports its connections",
    "PublicFiles": "a folder, a store, and a package",
    "Publication": "local, and object store",
    "PutBody": "callable with a keyword argument",
    "PutRequest": "callable with keyword arguments",
    "ReadOnlyPublication": "local, and object store",
    "Remedies": "Azure, S3, and web servers",
    "RunInThread": "callable whose result has the type of its argument",
    "ScanHandler": "parse a document, and rewrite its URIs",
    "ServedFile": "a file of a folder, of a store, of a package, and of a live export",
    "ServedTileset": "a mirror, a package, and a live export",
    "Source": "a container, and a mirror",
    "SourceResolver": "the service, a link, and a mirror",
    "StoredFiles": "local, and object store",
    "TaskPool": "processes of this machine, and a cluster",
    "TokenProvider": "a token, and a share key",
    "Upload": "Azure, and S3",
    "WorkerStore": "made by Azure, passed on by the object stores, which must not import it",
    "WorkerTarget": "local, and Azure",
    "WorkerTask": "fetch, verify, and warm up",
    "Workers": "assembled by the app, called by the jobs, which must not import it",
}
"""Why each Protocol is not the class that fulfils it: two classes of the product or a fake of the tests do, a layer or
an import cycle forbids it, or `Callable` cannot state the arguments.
"""

LAZY_PACKAGES = {"httpx", "pyreqwest", "azure", "sqlite3", "tqdm", "aiofiles", "filelock", "certifi", "asyncio"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a tree, in full; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(path: Path) -> set[str]:
    """Return the packages of tilesync that a file imports from; `from tilesync import __version__` is `__init__`."""
    known = set()
    for name in imports(parsed(path)):
        first, _, rest = name.partition(".")
        if first == "tilesync":
            part = rest.split(".")[0]
            known.add(part if any(part in layer for layer in LAYERS) else "__init__")
    return known


def level(of: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if of in layer)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    """A file imports only from its own package and from the layers below."""
    own = package_of(path)
    assert {other for other in imported_packages(path) - {own} if level(other) <= level(own)} == set()


def module_of(path: Path) -> str:
    return ".".join(["tilesync", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def test_no_import_cycles() -> None:
    """There are no import cycles, not even inside functions or for types alone."""
    modules = {module_of(path): path for path in SOURCES}
    known = {
        module: {
            result
            for name in imports(parsed(path))
            if (result := name if name in modules else name.rpartition(".")[0]) in modules and result != module
        }
        for module, path in modules.items()
    }
    list(graphlib.TopologicalSorter(known).static_order())


def test_no_folder_is_crowded() -> None:
    """No folder has more than MOST_MODULES modules besides its `__init__.py`."""
    crowded = {}
    for folder in {path.parent for path in SOURCES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(modules) > MOST_MODULES:
            crowded[name_of(folder)] = len(modules)
    assert crowded == {}


def test_the_command_line_calls_only_the_api() -> None:
    """Below the API, commands import only rules and values: whatever they can do, every program can do."""
    below = {"checks", "app", "jobs", "sources", "stores", "itwin", "transport", "azure", "tiles", "catalog"}
    reached = {name_of(path): imported_packages(path) & below for path in SOURCES if package_of(path) == "cli"}
    assert {name: sorted(packages) for name, packages in reached.items() if packages} == {}


def test_every_package_is_in_a_layer() -> None:
    """Each module and package of tilesync is in a layer, and each one that is listed there exists."""
    assert {package_of(path) for path in SOURCES} | {"__init__"} == set().union(*LAYERS)


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if package_of(path) in PURE],
    ids=name_of,
)
def test_pure_packages_do_no_io(path: Path) -> None:
    """Packages of rules and values import nothing that does I/O, and no third-party package."""
    used = {name.split(".")[0] for name in imports(parsed(path))}
    assert not used & IMPURE
    assert used <= sys.stdlib_module_names | {"tilesync"}


def test_foreign_packages_are_imported_in_few_places() -> None:
    """Each third-party package is imported by two files at most; click belongs to the command line alone."""
    users: dict[str, set[str]] = {}
    for path in SOURCES:
        for name in imports(parsed(path)):
            package = name.split(".")[0]
            if package not in sys.stdlib_module_names | {"tilesync"}:
                users.setdefault(package, set()).add(name_of(path))
    assert all(user.startswith("cli/") for user in users.pop("click"))
    assert {package: sorted(files) for package, files in users.items() if len(files) > 2} == {}
    assert {"httpx", "pyreqwest"} <= users.keys()


def test_the_command_line_is_light() -> None:
    """Importing the commands loads none of the large packages: each command imports what it needs."""
    code = "import sys, json, tilesync.cli.main; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LAZY_PACKAGES & set(json.loads(result.stdout))


def test_only_a_destination_loads_sqlite() -> None:
    """Commands that open no destination do without the database: only types name the catalog."""
    code = "import sys, tilesync.api.aio, tilesync.app.commands, tilesync.checks.commands; print([*sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'tilesync.checks.commands'" in result.stdout
    assert "'sqlite3'" not in result.stdout


def test_dataclasses_are_not_compiled_at_each_start() -> None:
    """Each class takes ten times as long with the standard library's `dataclass`: see `tilesync.values`."""
    compiled = {name_of(path) for path in SOURCES if "dataclasses.dataclass" in imports(parsed(path))}
    assert {name for name in compiled if name.partition("/")[0] not in COMPILED_DATACLASSES} == {"values.py"}


def test_worker_loads_little() -> None:
    """A worker process that fetches loads no module that only others need: it starts while the first files wait."""
    code = "import sys, tilesync.app.worker_tasks, tilesync.stores.local.writer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unneeded = {
        "httpx",
        "pyreqwest",
        "email",
        "statistics",
        "tilesync.events",
        "tilesync.jobs.versions.file_check",
        "tilesync.catalog.catalog",
    }
    assert unneeded.isdisjoint(loaded)


def test_every_protocol_has_its_reason() -> None:
    """There is no Protocol but those listed above, and each of these exists."""
    result = {
        node.name
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
    }
    assert result == PROTOCOLS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_too_long(path: Path) -> None:
    """No file is longer than 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public modules, classes and functions without a docstring; what a private class or function holds is private."""
    waiting: list[tuple[str, ast.Module | ast.ClassDef]] = [("module", tree)]
    while waiting:
        name, node = waiting.pop()
        if ast.get_docstring(node) is None:
            yield name
        for child in node.body:
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                waiting.append((child.name, child))
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and owes_a_docstring(child):
                yield f"{name}.{child.name}"


def owes_a_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return not function.name.startswith("_") and ast.get_docstring(function) is None and not is_overload(function)


def is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in function.decorator_list)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_code_has_docstrings(path: Path) -> None:
    """Each public module, class, method and function has a docstring."""
    assert list(undocumented(parsed(path))) == []


def test_every_test_has_a_docstring() -> None:
    """Each test function has a docstring, of one sentence."""
    missing = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                docstring = ast.get_docstring(node)
                if docstring is None or not docstring.endswith("."):
                    missing.append(f"{path.relative_to(TESTS)}:{node.lineno} {node.name}")
    assert missing == []


def test_each_module_has_its_test_file() -> None:
    """`tilesync/a/b.py` has `tests/a/test_b.py`, or stands in the table of exceptions with the place of its tests."""
    modules = {name_of(path) for path in SOURCES if path.name != "__init__.py"}
    untested = {name for name in modules if not (TESTS / name).with_name(f"test_{Path(name).name}").exists()}
    assert sorted(untested ^ MODULES_WITHOUT_TEST_FILE.keys()) == []
    named = {path for reason in MODULES_WITHOUT_TEST_FILE.values() for path in re.findall(r"tests/[\w/]+\.py", reason)}
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []


def test_each_test_file_has_its_module() -> None:
    """Outside `e2e`, `tests/a/test_b.py` is about `tilesync/a/b.py`, or stands in the table with its subject."""
    files = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    strays = {
        path.as_posix()
        for path in files
        if path.parts[0] != "e2e" and not (PACKAGE / path).with_name(path.name.removeprefix("test_")).exists()
    }
    assert sorted(strays ^ TEST_FILES_WITHOUT_MODULE.keys()) == []


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_test_files_are_short(path: Path) -> None:
    """No file of the tests is longer than 600 lines, and no test file takes anything from another one."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_TEST_FILE_LINES
    assert [name for name in imports(parsed(path)) if re.match(r"tests\.([\w.]+\.)?(test_|conftest)", name)] == []


def test_docstrings_begin_with_a_phrase_to_search_for() -> None:
    """No docstring begins with a half sentence: a verb or a noun of the field comes first."""
    vague = re.compile(r"(What|Whether|Which|Those|Likewise|Who|Where|How)\b")
    found = [
        f"{name_of(path)}: {text.splitlines()[0]}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if vague.match(text := ast.get_docstring(node) or "")
    ]
    assert found == []


def test_a_class_name_exists_once() -> None:
    """One name, one class: a reader who searches for it finds one definition."""
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_pages_name_files_that_exist(page: str) -> None:
    """Each path that a page for developers names exists, and the tree has a row for each package."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:tilesync|tests|scripts|docs)/[^` ]*)`|\]\(([^)#:]+)", text)
    assert [path for pair in paths for path in pair if path and not (PROJECT / path).exists()] == []
    if page == "ARCHITECTURE.md":
        tree = text[text.index("## The tree") : text.index("## Five paths through the code")]
        assert [each for layer in LAYERS[1:-2] for each in layer if f"`tilesync/{each}" not in tree] == []


LOCATION_REGISTRY = "app/locations.py"
"""The only module that tells the kinds of locations apart."""

STORE_CLASSES = {"Path", "AzureLocation", "S3Location"} | {
    node.name
    for folder in ("local", "object_store", "azure", "s3")
    for path in sorted((PACKAGE / "stores" / folder).rglob("*.py"))
    for node in parsed(path).body
    if isinstance(node, ast.ClassDef)
    and node.name.endswith(("Files", "Objects", "Publication", "Destination", "PutTarget"))
}


def type_tests(tree: ast.AST) -> Iterator[str]:
    """The names of the classes that a tree tests for, with isinstance or in a case of a match statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            yield from (part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name))
        elif isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.cls.id


def test_no_module_tests_for_the_class_of_a_store() -> None:
    """Only the registry of locations tests for a kind of location, and no module for the classes of a store."""
    assert {"LocalFiles", "ObjectFiles", "AzureObjects", "LocalPutTarget"} <= STORE_CLASSES
    found = {name_of(path): sorted(STORE_CLASSES & set(type_tests(parsed(path)))) for path in SOURCES}
    registry = found.pop(LOCATION_REGISTRY)
    assert registry == ["AzureLocation", "S3Location"]
    assert {name: classes for name, classes in found.items() if classes} == {}


def test_no_state_at_module_level() -> None:
    """No module of tilesync rebinds a global: state lives in objects."""
    culprits = [name_of(p) for p in SOURCES if any(isinstance(n, ast.Global) for n in ast.walk(parsed(p)))]
    assert culprits == []


def test_no_count_is_read_before_a_wait_and_written_after_it() -> None:
    """No shared count is updated by `self.count += await ...`, which would lose what others count meanwhile."""
    culprits = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.AugAssign)
        and not isinstance(node.target, ast.Name)
        and any(isinstance(part, ast.Await) for part in ast.walk(node.value))
    ]
    assert culprits == []


def test_no_logging_printing_or_bars_below_the_command_line() -> None:
    """Events go up: below `cli` nothing prints, logs or draws."""
    loud = {
        name_of(path): sorted(result)
        for path in SOURCES
        if package_of(path) != "cli"
        and (result := {name.split(".")[0] for name in imports(parsed(path))} & {"logging", "tqdm", "click"})
    }
    assert loud == {}
    calls = [node for path in SOURCES for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
