"""How docstrings of this project read: `name: what it is`, and indented blocks that are formulas."""

import re

LINK = re.compile(r"\b(arXiv|doi):(\d[\w./\\-]*\w)")
ITEM = re.compile(r"^[\w*]+(, [\w*]+)*: ")


def as_markdown(text: str) -> str:
    """A docstring as Markdown: its `name: text` lines become a list, its indented blocks stay code."""
    lines, inside = [], False
    for line in text.splitlines():
        if (ITEM.match(line) and line.partition(":")[0].islower()) or (inside and ITEM.match(line)):
            names, _, rest = line.partition(": ")
            lines += ([""] if not inside else []) + [f"- `{names}`: {plain(rest)}"]
            inside = True
        elif inside and line.startswith("    "):
            lines.append(f"  {plain(line.strip())}")
        elif line.startswith("    "):
            lines.append(line)
        else:
            lines += ([""] if inside else []) + [plain(line)]
            inside = False
    return "\n".join(lines)


def plain(line: str) -> str:
    """A line of prose in which nothing but code between backticks is markup."""
    parts = line.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*_\[\]])", r"\\\1", parts[i].replace("&", "&amp;").replace("<", "&lt;"))
    return "`".join([LINK.sub(_linked, part) if i % 2 == 0 else part for i, part in enumerate(parts)])


def _linked(found: re.Match[str]) -> str:
    """A link to a paper; underscores are escaped in its words alone."""
    kind, name = found.groups()
    root = "https://arxiv.org/abs/" if kind == "arXiv" else "https://doi.org/"
    return f"[{kind}:{name}]({root}{name.replace(chr(92), '')})"


def cell(text: str) -> str:
    """Words for a cell of a table."""
    return plain(text).replace("|", "\\|").replace("\n", " ")
