"""What the documents tell their reader to run can be run, and what they name is there."""

import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import click
import pytest

from bench.__main__ import QUESTIONS
from engine.config import CONFIG_FILE, load_config, variable_of
from engine.models.offline_answer import answer_to
from engine.models.protocol import ModelMessage
from engine.records.message import Text
from engine.settings import EngineSettings
from tests.doubles.transcripts import ANY, Block, read_blocks
from web.cli import SUBCOMMANDS
from web.commands import exits
from web.routes.all_routes import ROUTES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WEB_README = ROOT / "web/README.md"
ENGINE_README = ROOT / "engine/README.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (README, WEB_README, ENGINE_README, ROOT / "CHANGELOG.md", *(ROOT / "engine/decisions").glob("*.md"))
)


# A path in backquotes; a link to a file; a command line, alone or behind variables; a row of an endpoint.
NAMED_PATH = re.compile(
    r"`((?:engine|web|tests|bench|runs|store|events|agents|models|tools|records)/[\w./*-]+\.\w+|(?:engine|web|tests|bench)/)`"
)
LINK = re.compile(r"\]\(([\w./-]+)(?:#[\w-]+)?\)")
COMMAND = re.compile(r"^(?:\$ )?(?:\w+=\S+ )*countermand ([a-z].*)$", re.MULTILINE)
MAKE = re.compile(r"(?:^|`|=\S+ )make ([a-z]+)", re.MULTILINE)
INLINE_COMMAND = re.compile(r"`countermand ([a-z][^`]*)`")
ENDPOINT = re.compile(r"^\| ([A-Z]+) \| `([^`]+)` \| (\w+) \|", re.MULTILINE)


def text_of(document: Path) -> str:
    """A document."""
    return document.read_text("utf-8")


def example_id(example: tuple[Block, str]) -> str:
    """Where an example begins."""
    return f"line {example[0].line}"


def examples() -> list[tuple[Block, str]]:
    """The Python blocks of the README, each with what is shown as its output."""
    blocks = read_blocks(README)
    return [
        (block, following.text if following.kind == "text" else "")
        for block, following in pairwise(blocks)
        if block.kind == "python"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", examples(), ids=example_id)
def test_a_python_example_prints_what_is_shown(
    example: tuple[Block, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block, shown = example
    monkeypatch.chdir(tmp_path)
    for name in ("COUNTERMAND_MODEL", "COUNTERMAND_OFFLINE_SCRIPT", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # As a script: it calls `trio.run` itself, and data that it stores goes to where it stands.
    exec(compile(block.text, f"{README.name}:{block.line}", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == shown


def test_the_answer_of_the_offline_model_is_shown_as_it_is() -> None:
    shown = next(block.text for block in read_blocks(README) if block.text.startswith("You asked"))
    prompt = re.search(r'make run PROMPT="([^"]+)"', text_of(README))
    assert prompt is not None
    answer = answer_to(ModelMessage(role="user", parts=(Text(prompt[1]),)))
    assert " ".join(answer.split()).startswith(" ".join(shown.removesuffix(f"{ANY}\n").split()))


def test_the_configuration_that_is_shown_is_understood(tmp_path: Path) -> None:
    shown, _ = [block.text for block in read_blocks(README) if block.kind == "toml"]
    (tmp_path / CONFIG_FILE).write_text(shown)
    config = load_config(tmp_path, {})
    assert config.engine.max_active_runs == 16
    assert set(config.models.providers) == {"local"}


def test_every_benchmark_is_told() -> None:
    table = text_of(README).partition("## Benchmarks")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(QUESTIONS)


def test_there_are_examples_for_the_engine_and_for_both_kinds_of_agents() -> None:
    together = "".join(block.text for block, _ in examples())
    assert "open_backend(" in together
    assert "agent=Shouter()" in together
    assert "agent=asyncio_agent(" in together


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in MAKE.findall(text_of(ROOT / path))}
    assert {"run", "test", "serve", "bench"} <= named <= targets


def command_lines() -> list[str]:
    """Every command line of `countermand` in the documents."""
    lines = set[str]()
    for path in (README, WEB_README):
        for block in read_blocks(path):
            lines.update(COMMAND.findall(block.text.replace("\\\n", "")) if block.kind != "text" else ())
        lines.update(INLINE_COMMAND.findall(text_of(path)))
    return sorted(lines)


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    command: click.Command = import_module(SUBCOMMANDS[name].module).command
    while isinstance(command, click.Group) and arguments:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(name, arguments)


def test_every_flag_of_serve_is_told() -> None:
    serve = import_module(SUBCOMMANDS["serve"].module).command
    told = text_of(README)
    flags = [name for option in serve.params for name in option.opts if name.startswith("--")]
    assert not [flag for flag in flags if f"`{flag}" not in told]


def test_every_variable_that_is_read_is_told_and_no_other() -> None:
    sources = "".join(text_of(path) for top in ("engine", "web") for path in (ROOT / top).rglob("*.py"))
    catalog = text_of(ROOT / "engine/models/catalog.toml")
    read = set(re.findall(r'"(COUNTERMAND_[A-Z_]+)"', sources))
    read |= set(re.findall(r'"([A-Z_]+)"', "".join(re.findall(r"_env = (.*)", catalog)))) | {"XDG_DATA_HOME"}
    table = text_of(README).partition("## Settings")[2].partition("\n## ")[0]
    # Those of `[engine]` are told by their keys.
    by_key = {variable_of(field) for field in EngineSettings.__struct_fields__} - {"COUNTERMAND_DATA_DIR"}
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", table)) - by_key == read - by_key


def test_every_exit_code_is_told() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    table = text_of(README).partition("| exit code |")[2].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == codes


def test_every_endpoint_is_in_the_tables_with_its_scope_and_no_other() -> None:
    told = {
        (method, path.replace("W", "/v1/workspaces/{id}", 1) if path.startswith("W") else path, scope)
        for method, path, scope in ENDPOINT.findall(text_of(WEB_README))
    }
    assert told == {(route.method, route.path, route.access) for route in ROUTES}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    path = ROOT / document
    text = text_of(path)
    named = [*NAMED_PATH.findall(text), *LINK.findall(text)]
    places = (ROOT, path.parent, ROOT / "engine")
    assert not [name for name in named if not any((place / name).exists() for place in places)]


def test_the_rules_are_kept_where_the_engine_says() -> None:
    """Each row of its table names files, and after each file what is in it; the last file has tests of the rule."""
    rows = re.findall(r"^\| (R\d\d) \|[^|]*\|(.*)\|$", text_of(ENGINE_README), re.MULTILINE)
    assert [rule for rule, _ in rows] == [f"R{number:02}" for number in range(1, 35)]
    for rule, row in rows:
        text = ""
        names = re.findall(r"`([^`]+)`", row)
        for name in names:
            if name.endswith((".py", ".sql")):
                file = next((top / name for top in (ROOT, ROOT / "engine") if (top / name).is_file()), None)
                assert file is not None, f"{rule}: there is no {name}"
                text = text_of(file)
            else:
                assert re.search(rf"\b{name}\b", text), f"{rule}: {name} is not where the table says"
        assert not names or re.search(rf"def test_(r\d\d_)*{rule.lower()}_", text), f"{rule}: no tests in {names[-1]}"
