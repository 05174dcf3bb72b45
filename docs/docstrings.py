"""How docstrings of this project read: `name: what it is`, and indented blocks that are formulas."""

import re

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
    return "`".join(parts)


def cell(text: str) -> str:
    """Words for a cell of a table."""
    return plain(text).replace("|", "\\|").replace("\n", " ")
