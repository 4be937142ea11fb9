"""The rules of this house that no linter knows, held over `engine/` and `web/`; and the exceptions, each by name."""

import subprocess
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import house_rules
from tests.house_rules import Finding, Module, Rule

ROOT = Path(__file__).parent.parent

# At most eight. Each logs the traceback and turns it into an outcome: (file, function).
CATCH_ALLS = {
    ("engine/host.py", "run"),
    ("engine/runs/run.py", "_perform"),
    ("engine/runs/run.py", "_settle"),
    ("engine/runs/answering.py", "run"),
    ("engine/runs/title.py", "find_title"),
    ("web/app.py", "_answer"),
    ("web/connection.py", "serve"),
}
MOST_CATCH_ALLS = 8

# The files that own tasks; design.md's ownership tree, as paths.
OWNERS = {
    "engine/agents/calls.py",
    "engine/backend.py",
    "engine/hosts.py",
    "engine/mcp/servers.py",
    "engine/reopening.py",
    "engine/store/sqlite.py",
    "engine/tools/jobs.py",
    "engine/workspace.py",
    "web/commands/asking.py",
    "web/overdue.py",
    "web/serve.py",
}

# The reaper and the worker of the searches are programs of their own, without Trio.
CLOCK = {"engine/clock.py", "engine/tools/reaper.py", "engine/tools/search/worker.py"}

# Too heavy for those who do not use them: (file, imported module).
LAZY_IMPORTS: set[tuple[str, str]] = set()


def _modules(*folders: str) -> list[Module]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [Module(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


MODULES = _modules("engine", "web")
TOLD_BY_PROTOCOLS = {name for module in MODULES for name in house_rules.protocol_methods(module)}

RULES: dict[str, Rule] = {
    "unbounded_shields": house_rules.unbounded_shields,
    "catch_alls": partial(house_rules.catch_alls, allowed=CATCH_ALLS),
    "nurseries": partial(house_rules.nurseries, allowed=OWNERS),
    "async_generators": house_rules.async_generators,
    "wall_clock": partial(house_rules.wall_clock, allowed=CLOCK),
    "sizes": house_rules.sizes,
    "file_names": house_rules.file_names,
    "open_ends": house_rules.open_ends,
    "inner_imports": partial(house_rules.inner_imports, allowed=LAZY_IMPORTS),
}


def _report(findings: Collection[Finding] | Iterator[Finding]) -> str:
    return "\n".join(map(str, findings))


@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps_the_rule(rule: str) -> None:
    report = _report(finding for module in MODULES for finding in RULES[rule](module))
    assert not report, report


def test_what_is_public_in_the_engine_says_what_it_is_for() -> None:
    engine = [module for module in MODULES if module.path.startswith("engine/")]
    report = _report(f for module in engine for f in house_rules.docstrings(module, TOLD_BY_PROTOCOLS))
    assert not report, report


def test_the_list_of_catch_alls_is_short_and_all_of_it_is_used() -> None:
    assert len(CATCH_ALLS) <= MOST_CATCH_ALLS
    for path, function in sorted(CATCH_ALLS):
        module = Module(path, (ROOT / path).read_text("utf-8"))
        assert any(house_rules.catch_alls(module)), f"{path} has no catch-all left"
        without = CATCH_ALLS - {(path, function)}
        assert any(house_rules.catch_alls(module, without)), f"{path}: {function} has no catch-all left"


@pytest.fixture(scope="module")
def checked_in() -> list[str]:
    """What belongs to the checkout: tracked, or about to be."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    paths = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True, timeout=20).stdout.split("\0")
    return [path for path in paths if (ROOT / path).is_file()]


def test_the_top_level_is_a_table_of_contents(checked_in: list[str]) -> None:
    report = _report(house_rules.top_level(checked_in))
    assert not report, report


def test_no_text_names_a_machine_or_a_registry(checked_in: list[str]) -> None:
    texts = ((path, (ROOT / path).read_bytes().decode("utf-8", "replace")) for path in checked_in)
    report = _report(finding for path, text in texts for finding in house_rules.machine_traces(path, text))
    assert not report, report


# -- each rule catches what it is for, and leaves alone what is meant to be allowed ------------------------------------

SHORT_FUNCTION = "def f():\n" + "    x = 1\n" * 59
A_PLACE = "/" + "work/main/engine"
A_REGISTRY = "https://py" + "pi.org/simple"

BREACHES = [
    ("unbounded_shields", "with trio.CancelScope(shield=True): ..."),
    ("unbounded_shields", "with CancelScope(shield=shielded): ..."),
    ("unbounded_shields", "with trio.CancelScope(shield=True, deadline=math.inf): ..."),
    ("unbounded_shields", "with trio.move_on_after(float('inf'), shield=True): ..."),
    ("unbounded_shields", "scope.shield = True"),
    ("unbounded_shields", "await closing(thing, shield=True)"),
    ("catch_alls", "try: ...\nexcept Exception: ..."),
    ("catch_alls", "try: ...\nexcept: ..."),
    ("catch_alls", "try: ...\nexcept BaseException:\n    pass"),
    ("catch_alls", "try: ...\nexcept (OSError, Exception) as error: ..."),
    ("catch_alls", "try: ...\nexcept* Exception: ..."),
    ("catch_alls", "try: ...\nexcept BaseExceptionGroup: ..."),
    ("catch_alls", "with contextlib.suppress(Exception): ..."),
    ("catch_alls", "try: ...\nexcept trio.Cancelled:\n    log()"),
    ("nurseries", "async def f():\n    async with trio.open_nursery() as nursery: ..."),
    ("nurseries", "from trio import open_nursery"),
    ("nurseries", "async def f():\n    async with anyio.create_task_group() as group: ..."),
    ("nurseries", "app.add_background_task(work)"),
    ("nurseries", "trio.lowlevel.spawn_system_task(work)"),
    ("async_generators", "async def f():\n    yield 1"),
    ("async_generators", "async def f():\n    while True:\n        x = yield 1"),
    ("async_generators", "async def f():\n    return (x async for x in y)"),
    ("wall_clock", "time.sleep(1)"),
    ("wall_clock", "start = time.time()"),
    ("wall_clock", "datetime.datetime.now(UTC)"),
    ("wall_clock", "from time import monotonic"),
    ("sizes", "x = 1\n" * 351),
    ("sizes", SHORT_FUNCTION + "    x = 1\n"),
    ("open_ends", "x = 1  # TODO: say more"),
    ("open_ends", "# FIXME(somebody) soon"),
    ("inner_imports", "def f():\n    import trio_asyncio"),
    ("inner_imports", "async def f():\n    if x:\n        from engine import clock"),
]

ALLOWED = [
    ("unbounded_shields", "with trio.move_on_after(SECONDS, shield=True) as scope: ..."),
    ("unbounded_shields", "with trio.fail_after(seconds=info.limit, shield=True): ..."),
    ("unbounded_shields", "with trio.CancelScope(shield=True, deadline=trio.current_time() + 2): ..."),
    ("unbounded_shields", "with trio.CancelScope(shield=False): ...\nscope.shield = False"),
    ("catch_alls", "try: ...\nexcept OSError: ..."),
    ("catch_alls", "try: ...\nexcept trio.Cancelled:\n    note()\n    raise"),
    ("nurseries", "def f(nursery: trio.Nursery):\n    nursery.start_soon(work)"),
    ("async_generators", "@asynccontextmanager\nasync def f():\n    yield 1"),
    ("async_generators", "@trio.as_safe_channel\nasync def f():\n    yield 1"),
    ("async_generators", "@pytest.fixture(scope='module')\nasync def f():\n    yield 1"),
    ("async_generators", "async def f():\n    def g():\n        yield 1\n    return [x async for x in y]"),
    ("wall_clock", "await trio.sleep(1)\nnow = clock.now_us()"),
    ("sizes", SHORT_FUNCTION + "y = 1\n" * 290),
    ("open_ends", "x = 'TODO'  # TODO(#12): say more"),
    ("inner_imports", "if TYPE_CHECKING:\n    import trio"),
]


@pytest.mark.parametrize(("rule", "source"), BREACHES)
def test_a_planted_breach_is_found(rule: str, source: str) -> None:
    assert len(list(RULES[rule](Module("engine/planted.py", source)))) == 1


@pytest.mark.parametrize(("rule", "source"), ALLOWED)
def test_what_is_allowed_is_left_alone(rule: str, source: str) -> None:
    assert not _report(RULES[rule](Module("engine/planted.py", source)))


@pytest.mark.parametrize("path", ["engine/utils.py", "engine/core/x.py", "web/session_manager.py", "engine/base.py"])
def test_a_name_that_says_nothing_is_found(path: str) -> None:
    assert list(house_rules.file_names(Module(path, "")))
    assert not list(house_rules.file_names(Module("engine/store/database.py", "")))


def test_exceptions_hold_for_their_own_place_only() -> None:
    caught = Module("engine/a.py", "def guard():\n    try: ...\n    except Exception: ...")
    assert not list(house_rules.catch_alls(caught, {("engine/a.py", "guard")}))
    assert list(house_rules.catch_alls(caught, {("engine/b.py", "guard"), ("engine/a.py", "other")}))

    opened = Module("engine/a.py", "trio.open_nursery()")
    assert not list(house_rules.nurseries(opened, {"engine/a.py"}))
    assert list(house_rules.nurseries(Module("engine/a.py", "spawn_system_task(f)"), {"engine/a.py"}))

    lazy = Module("engine/a.py", "def f():\n    import heavy")
    assert not list(house_rules.inner_imports(lazy, {("engine/a.py", "heavy")}))
    assert list(house_rules.inner_imports(lazy, {("engine/a.py", "other")}))

    assert not list(house_rules.wall_clock(Module("engine/clock.py", "time.time()"), CLOCK))


UNDOCUMENTED = [
    ("x = 1", "the module"),
    ('"""M."""\nclass Thing: ...', "Thing"),
    ('"""M."""\ndef work(): ...', "work"),
    ('"""M."""\nclass Thing:\n    """T."""\n    async def work(self): ...', "work"),
]
DOCUMENTED = [
    "",
    '"""M."""\ndef _work(): ...\nclass _Thing:\n    def work(self): ...',
    '"""M."""\nclass Thing:\n    """T."""\n    def __len__(self): ...\n    @overload\n    def work(self): ...',
    '"""M."""\nclass Thing:\n    """T."""\n    def told(self): ...',
    '"""M."""\ndef work():\n    """W."""\n    def inner(): ...',
]


@pytest.mark.parametrize(("source", "name"), UNDOCUMENTED)
def test_a_missing_docstring_is_found(source: str, name: str) -> None:
    (finding,) = house_rules.docstrings(Module("engine/planted.py", source))
    assert name in finding.problem


@pytest.mark.parametrize("source", DOCUMENTED)
def test_what_needs_no_docstring_is_left_alone(source: str) -> None:
    assert not list(house_rules.docstrings(Module("engine/planted.py", source), {"told"}))


def test_the_methods_of_a_protocol_are_told_once() -> None:
    source = 'class Store(Protocol):\n    """S."""\n    def told(self):\n        """T."""\n    def untold(self): ...'
    assert list(house_rules.protocol_methods(Module("engine/planted.py", source))) == ["told"]


def test_a_stranger_at_the_top_level_is_found() -> None:
    assert not list(house_rules.top_level(["engine/a/b.py", ".ci/run", ".gitignore", "LICENSE"]))
    assert [f.path for f in house_rules.top_level(["scratch.txt", "docs/a.md", "README.md"])] == ["docs", "scratch.txt"]


@pytest.mark.parametrize("text", [f"see {A_PLACE}", f"\n'{A_PLACE}'", f"--index-url {A_REGISTRY}"])
def test_a_trace_of_a_machine_is_found(text: str) -> None:
    assert len(list(house_rules.machine_traces("README.md", text))) == 1
    assert not list(house_rules.machine_traces("README.md", "home/work/x and https://example.org/work/main"))


def test_every_rule_has_a_planted_breach() -> None:
    assert {rule for rule, _ in BREACHES} | {"file_names"} == set(RULES)
