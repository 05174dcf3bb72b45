"""The map of the lectures: a page a part, every topic with equation, program, command, picture, oracle and what goes wrong."""

import ast
import re
from pathlib import Path

import kept
import pictures
from docstrings import plain

from probgen import catalog
from probgen.cli import lectures

ROOT = Path(__file__).parent.parent


HOW = """## From a section to pictures of yours

Take the command of a section; it leaves a run in the folder after `--out`, and prints [the verdict](../verdict.md). Then:

```sh
probgen fit boltzmann_machine --inference pcd --num-steps 4000 --out runs/bm
probgen sample runs/bm -o new.png
probgen report runs/bm --open
```

Another algorithm is another of the section's words, into another folder. Held against each other:

```sh
probgen fit boltzmann_machine --inference pseudo_likelihood --out runs/other
probgen compare runs/bm runs/other
```

`probgen show boltzmann_machine` has the program. With one of your own: [an energy of your own](../howto/energy.md),
[your NumPyro program](../howto/numpyro.md). "Held to" names what the tests compare the section's numbers with.
""".splitlines()


def pages() -> dict[str, str]:
    """Every page of the map, by its path."""
    found = {"lectures/index.md": _index()}
    for part, title in lectures.parts().items():
        topics = {name: t for name, t in lectures.topics().items() if t.part == part}
        sections = [_section(name, topic) for name, topic in topics.items()]
        found[f"lectures/{part}.md"] = "\n".join([f"# {title}", "", *sections])
    return found


def _index() -> str:
    lines = ["# The map of the lectures", ""]
    lines += [
        "The collection follows five lectures on generative models. Each topic has a section with the equation, the program, one"
    ]
    lines += ["command, its picture, the oracle that the tests hold it to, and what goes wrong. In the shell:", ""]
    lines += ["```sh", "probgen list --lecture energies", "```", "", *HOW]
    every = lectures.topics()
    for name, lecture in lectures.lectures().items():
        lines += [f"## {lecture.title} {{#{name}}}", "", "| topic | models | algorithms |", "|---|---|---|"]
        for key in lecture.topics:
            topic = every[key]
            models = " ".join(f"`{m}`" for m in topic.models) or "not in the collection"
            words = " ".join(f"`{a}`" for a in topic.algorithms)
            lines.append(f"| [{plain(topic.title)}]({topic.part}.md#{key}) | {models} | {words} |")
        lines.append("")
    return "\n".join(lines)


def _section(name: str, topic: lectures.Topic) -> str:
    lines = [f"## {plain(topic.title)} {{#{name}}}", ""]
    if topic.models:
        first = _path(topic.models[0])
        doc = ast.get_docstring(ast.parse(first.read_text())) or ""
        lines += [plain(doc.partition("\n")[0]), "", *_equation(doc)]
        lines += [f"Programs: {', '.join(_link('models/' + _path(m).parent.name, m) for m in topic.models)}.  "]
        lines += [f"Algorithms: {', '.join(_link('algorithms', a) for a in topic.algorithms)}.", ""]
    if topic.command:
        lines += ["```sh", *_commands(topic), "```", ""]
    if name in pictures.topics():
        lines += [*_picture(name, topic), ""]
    if topic.oracle:
        lines += [f"**Held to**: {topic.oracle}.", ""]
    lines += [f"**{'What goes wrong' if topic.models else 'Not here'}**: {topic.trouble}.", ""]
    return "\n".join(lines)


def _picture(name: str, topic: lectures.Topic) -> list[str]:
    """The picture with what is seen in it; where the site was built without it, how to have it."""
    if not kept.found(f"map-{name}", kept.digest(pictures.source(topic))):
        how = (
            f"This site was built without it: the second line draws it for you, `python docs/draw.py map-{name}` here."
        )
        return [f"**Its picture**: {topic.seen}", "", f"<small>{how}</small>"]
    words = f"What the command draws: {plain(topic.title)}"
    return [f"![{words}](../made/map-{name}/picture.png){{ loading=lazy }}", "", topic.seen]


def _commands(topic: lectures.Topic) -> list[str]:
    out = re.search(r"--out (\S+)", topic.command)
    return [topic.command, *([f"probgen plot {out.group(1)} {topic.picture}".rstrip()] if out else [])]


def _equation(doc: str) -> list[str]:
    """The first indented block of a docstring, empty lines in it included."""
    found = re.search(r"(?:^|\n)((?: {4}.*\n(?:\n(?= {4}))?)+)", doc + "\n")
    return ["```text", *(line[4:] for line in found.group(1).rstrip().splitlines()), "```", ""] if found else []


def _path(model: str) -> Path:
    return ROOT / Path(*catalog.modules("probgen.models")[model].partition(":")[0].split(".")[1:]).with_suffix(".py")


def _link(page: str, word: str) -> str:
    return f"[`{word}`](../{page}.md#{word})"
