"""`docs/traps.md`: every trap of a contract and the tests that fail without its rule.

A component names its traps in `tests/servers/{component}/traps.toml`; a test claims one with
`@pytest.mark.trap("id")`. A trap without a test fails the check, and so does an id that no file
has.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
FILE = TESTS.parent / "docs" / "traps.md"
HEAD = """\
# Traps

Where a component's contract misleads, and the test that fails without the rule against it. Written
by `make golden` from `tests/servers/*/traps.toml` and the marks of the tests; `make check` fails
where it is stale, where a trap has no test, and where a test claims a trap that nobody named.
"""


class Traps(NamedTuple):
    """The traps of one component by id, and what they were written from."""

    component: str
    source: str
    says: dict[str, str]


def named() -> list[Traps]:
    """The traps of every component that names some."""
    found = []
    for path in sorted(TESTS.glob("servers/*/traps.toml")):
        said = tomllib.loads(path.read_text("utf-8"))
        found.append(Traps(said["component"], said["source"], said["traps"]))
    return found


def claimed() -> dict[str, list[str]]:
    """The tests that claim each id, as `file::name`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.glob("servers/**/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for trap in _marks(node):
                    name = f"{path.relative_to(TESTS).as_posix()}::{node.name}"
                    found.setdefault(trap, []).append(name)
    return found


def wrong(traps: list[Traps], tests: dict[str, list[str]]) -> list[str]:
    """Traps without a test, tests that claim unknown traps, and ids that stand twice."""
    ids = [trap for one in traps for trap in one.says]
    found = [f"trap {trap} has no test" for trap in ids if trap not in tests]
    found += [f"{tests[trap][0]} claims unknown trap {trap}" for trap in tests if trap not in ids]
    return found + [f"trap {trap} is named twice" for trap in sorted(ids) if ids.count(trap) > 1]


def as_markdown() -> str:
    """The whole page."""
    tests = claimed()
    lines = [HEAD]
    for one in named():
        lines += [f"## {one.component}: {len(one.says)} traps", "", f"From {one.source}.", ""]
        lines += ["| id | trap | shown by |", "|---|---|---|"]
        for trap, says in one.says.items():
            shown = "<br>".join(f"`{test}`" for test in tests.get(trap, ()))
            lines.append(f"| {trap} | {says} | {shown} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def is_stale() -> bool:
    """Whether the page says something else than the files and the tests."""
    return not FILE.is_file() or FILE.read_text("utf-8") != as_markdown()


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(attr="trap"), args=[ast.Constant(value=str() as trap)]
            ):
                yield trap
