"""Code that an answer spreads over several blocks: the block with the function, and what it needs of the others.

It may assume top-level statements that start at the margin. It will not parse, nor run: names are found by linear
scans, so a name that stands in a string or behind a dot does not count as needed.
"""

import builtins
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

STRING_OR_COMMENT = re.compile(  # closing quotes are optional: what is never closed is read once, not once per quote
    r"\"\"\"(?:[^\"\\]|\\.|\"(?!\"\"))*+(?:\"\"\")?|'''(?:[^'\\]|\\.|'(?!''))*+(?:''')?"
    r"|\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?|#[^\n]*+",
    re.DOTALL,
)
NAME = re.compile(r"(?<![.\w])[A-Za-z_]\w*+")
STATEMENT = re.compile(
    r"(?:(?:async[ \t]+)?def|class)[ \t]+(?P<defined>\w+)"
    r"|from[ \t]+(?P<module>[\w.]+)[ \t]+import[ \t]*+\(?(?P<names>[^)#]++)|import[ \t]+(?P<modules>[^\n#;]++)"
    r"|(?P<assigned>[A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)(?P<value>.*)",
    re.DOTALL,
)
BOUND = re.compile(
    r"\bdef[ \t]+\w++[ \t]*+\(([^)]*)|\bfor[ \t]+([^\n:]{1,80}?)[ \t]in\b|\blambda([^:\n]*+)"
    r"|(?<!\w)([A-Za-z_]\w*+)[ \t]*+=(?!=)"
)
DECORATED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]", re.MULTILINE)
TRIPLE_QUOTE = re.compile("\"\"\"|'''")
EMPTY_CONTAINER = re.compile(r"\s*(?:collections\.)?(?:defaultdict|Counter|OrderedDict|deque|dict|set|list)\(")


class Statement(NamedTuple):
    """A top-level statement that defines names; `*` stands for all names of a module."""

    text: str
    names: frozenset[str]
    assigns: bool


def merged(blocks: list[str], main: int, entry_point: str) -> str:
    """`blocks[main]` behind the imports, functions, classes and constants of the other blocks that it needs."""
    if len(blocks) == 1:
        return blocks[main]
    statements = [list(_statements(block)) for block in blocks]
    own = {name for statement in statements[main] for name in statement.names}
    ignored = own | {entry_point} | set(dir(builtins))
    bound = _names(" ".join(" ".join(match.groups("")) for match in BOUND.finditer(blocks[main])))
    definitions: dict[str, Statement] = {}
    for statement in _nearest_last(statements, main):
        local = bound if statement.assigns else frozenset()
        definitions |= dict.fromkeys(statement.names - ignored - local, statement)
    needed = _needed(_names(blocks[main]) | {"*"}, definitions)
    others = [s for number, found in enumerate(statements) if number != main for s in found]
    before = dict.fromkeys(statement.text.rstrip() for statement in others if statement in needed)
    return "\n\n".join([*before, blocks[main]])


def _nearest_last(statements: list[list[Statement]], main: int) -> Iterator[Statement]:
    """Those of the blocks after the main one, then those before it; what a usage example assigns is none of them."""
    for found in reversed(statements[main + 1 :]):
        yield from (statement for statement in found if not statement.assigns)
    for found in statements[:main]:
        yield from found


def _needed(names: set[str], definitions: dict[str, Statement]) -> set[Statement]:
    """The statements that define the names, and those that these need in turn."""
    needed: set[Statement] = set()
    missing = set(names)
    while missing:
        statement = definitions.pop(missing.pop(), None)
        if statement is not None and statement not in needed:
            needed.add(statement)
            missing |= _names(statement.text)
    return needed


def _statements(code: str) -> Iterator[Statement]:
    for text in _top_level(code):
        decorated = DECORATED.search(text) if text.startswith("@") else None
        match = STATEMENT.match(text, decorated.start() if decorated else 0)
        names = _defined_names(match) if match else frozenset()
        if names:
            yield Statement(text, names, match is not None and match["assigned"] is not None)


def _top_level(code: str) -> list[str]:
    """The top-level statements, a decorator with what it decorates; lines inside a long string start none."""
    statements: list[list[str]] = [[]]
    in_string = after_decorator = False
    for line in code.splitlines(keepends=True):
        if not in_string and line[0] not in " \t\r\n)]}":
            if not after_decorator:
                statements.append([])
            after_decorator = line[0] == "@"
        statements[-1].append(line)
        in_string ^= len(TRIPLE_QUOTE.findall(line)) % 2 == 1
    return ["".join(lines) for lines in statements]


def _defined_names(match: re.Match[str]) -> frozenset[str]:
    if match["defined"]:
        return frozenset({match["defined"]})
    if match["assigned"]:
        value, name = match["value"], match["assigned"]
        plain = "(" not in value or name.isupper() or EMPTY_CONTAINER.match(value) is not None
        return frozenset({name}) if plain else frozenset()
    if match["module"] and match["names"].strip() == "*":
        return frozenset({"*"}) if match["module"].partition(".")[0] in sys.stdlib_module_names else frozenset()
    listed = (match["names"] or match["modules"]).replace("\\\n", " ").split(",")
    bound = (item.partition(" as ")[2] or item.partition(".")[0] for item in listed)
    return frozenset(name.strip() for name in bound if name.strip())


def _names(code: str) -> set[str]:
    """The names that the code uses, outside strings and comments and not behind a dot."""
    return set(NAME.findall(STRING_OR_COMMENT.sub(" ", code)))
