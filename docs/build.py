"""Lay the site's pages into build/pages: those typed by hand, and those made from the code, which cannot go stale."""

import ast
import re
import shutil
import sys
from dataclasses import MISSING, fields
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import draw  # noqa: E402
import kept  # noqa: E402
from checks import page as checks  # noqa: E402
from docstrings import as_markdown, cell, plain  # noqa: E402
from good_and_bad import CHECKS  # noqa: E402

OUT = ROOT / "build" / "pages"
BRANCHES = {
    "bayes": "Posteriors", "density": "Tractable densities", "latent": "Latent variables", "energy": "Energies",
    "implicit": "Programs without a density", "diffusion": "Diffusion and flows", "texture": "Textures",
    "sequence": "Sequences",
}  # fmt: skip


def pages() -> dict[str, str]:
    """Every page that is made, by its path."""
    from the_map import pages as of_lectures

    found = {"models/index.md": models_index(), "algorithms.md": algorithms(), "checks.md": checks(), "data.md": data()}
    found |= {f"models/{branch}.md": models(branch) for branch in BRANCHES}
    found |= {"examples.md": examples(), "benchmarks.md": benchmarks(), "contributing.md": copied("CONTRIBUTING.md")}
    found |= {f"examples/{path.stem}.md": example(name, path) for name, path in draw.examples().items()}
    found |= {path.name: copied(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md"))}
    return found | of_lectures()


def copied(path: str) -> str:
    """A page that is also read in the repository; its links to files there that are no pages become plain words."""

    def kept_or_plain(found: re.Match) -> str:
        page = path.startswith("docs/") and (ROOT / "docs" / found[2]).is_file() and found[2].endswith(".md")
        return found[0] if page else found[1]

    text = (ROOT / path).read_text()
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]*)\)", kept_or_plain, text)


# ---- the collection ----------------------------------------------------------------------------------------------


def _doc(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).glob("*.py")) if not path.name.startswith("_")]


def models_index() -> str:
    """A table of the branches, and of the models in each."""
    lines = ["# Models", "", "`probgen show NAME` has the source, the data and the algorithms that take a model.", ""]
    for branch, title in BRANCHES.items():
        lines += ["", f"## [{title}]({branch}.md)", "", "| model | what it is |", "|---|---|"]
        lines += [
            f"| [`{p.stem}`]({branch}.md#{p.stem}) | {cell(_doc(p).partition(chr(10))[0])} |"
            for p in _files(f"models/{branch}")
        ]
    return "\n".join(lines)


def models(branch: str) -> str:
    """The models of one branch, each by its own words: equation, shapes, source."""
    lines = [f"# {BRANCHES[branch]}", "", plain(_doc(ROOT / "models" / branch / "__init__.py")), ""]
    for path in _files(f"models/{branch}"):
        lines += [f"## {path.stem}" + f" {{#{path.stem}}}", "", as_markdown(_doc(path)), ""]
    return "\n".join(lines)


def algorithms() -> str:
    """Every algorithm by its own words, with its settings."""
    from probgen import catalog

    lines = ["# Algorithms", "", "The word after each heading is what `inference=` and `--inference` take.", ""]
    known = catalog.modules("probgen.inference")
    for folder in sorted({path.parent.name for path in (ROOT / "inference").glob("*/[a-z]*.py")}):
        lines += [
            "",
            f"## {plain(_doc(ROOT / 'inference' / folder / '__init__.py')).partition(chr(10))[0].rstrip('.:')}",
            "",
        ]
        for path in _files(f"inference/{folder}"):
            if path.stem in known:
                lines += _algorithm(path, catalog.algorithm(path.stem))
    return "\n".join(lines)


def _algorithm(path: Path, kind: type) -> list[str]:
    own = [f for f in fields(kind)]
    told = ", ".join(f"`{f.name}`" + ("" if _default(f) is MISSING else f" = {_default(f)!r}") for f in own)
    lines = [f"### {path.stem} {{#{path.stem}}}", "", as_markdown(_doc(path)), ""]
    lines += [f"Takes a target that is {kind.needs.offers}; engines: {', '.join(kind.engines)}."]
    lines += [f"Bias: {plain(kind.bias)}"] if kind.bias else []
    return [*lines, "", f"Settings: {told}", ""]


def _default(f):
    return f.default if f.default_factory is MISSING else f.default_factory()


# ---- tables ------------------------------------------------------------------------------------------------------


def data() -> str:
    """The data sets that `--data` and `data=` take by name."""
    from probgen.data.values.named import sets

    lines = [
        "# Data sets",
        "",
        '`pg.fit("rbm", data="digits")`, or `probgen fit rbm --data digits`. `pg.data.table()` is this table.',
    ]
    lines += [
        "`probgen.data.load(name)` gives the arrays. Nothing is downloaded but MNIST, where no file of yours holds it.",
        "",
    ]
    found = sets()
    sources = list(dict.fromkeys(row.licence for row in found))
    lines += ["| name | rows | shape of one | with | what they are | source |", "|---|---:|---|---|---|---:|"]
    for row in found:
        marks = ", ".join(word for word, there in (("classes", row.classes), ("held-out rows", row.held_out)) if there)
        words = [
            f"`{row.name}`",
            f"{row.rows:,}",
            row.shape,
            marks,
            cell(row.told),
            str(sources.index(row.licence) + 1),
        ]
        lines.append("| " + " | ".join(words) + " |")
    lines += ["", "## Sources and licences", "", *(f"{i}. {plain(text)}." for i, text in enumerate(sources, 1))]
    return "\n".join(lines) + "\n"


def examples() -> str:
    """The gallery: the pages of examples/ with what they draw, where they were run for the site."""
    lines = [
        "# Examples",
        "",
        "Each is a page of `examples/` that the tests run: `python examples/NAME.py` draws its picture, and",
        "`jupytext --to notebook examples/NAME.py` makes it a notebook.",
        "",
    ]
    total = 0.0
    for name, path in draw.examples().items():
        title, told, _ = _head(path)
        lines += [f"## {title}", "", told, ""]
        if made := kept.found(name, draw.sources()[name]):
            total += made["seconds"]
            lines += [*_pictures(name, title), ""]
        lines += [f"[Its code{', and what it prints' if made else ''}](examples/{path.stem}.md)", ""]
    lines += [f"All of them together ran for {total / 60:.0f} minutes.", ""] if total else []
    return "\n".join(lines)


def example(name: str, path: Path) -> str:
    """An example by itself: its words, code, picture and what it prints."""
    title, told, head = _head(path)
    lines = [
        f"# {title}",
        "",
        told,
        "",
        f"`examples/{path.name}`",
        "",
        "```py",
        path.read_text()[head:].strip(),
        "```",
        "",
    ]
    if made := kept.found(name, draw.sources()[name]):
        lines += ["## What it draws and prints", "", *_pictures(name, title, "../"), ""]
        lines += ["```text", *made["printed"].splitlines(), "```", "", _made(made), ""]
    return "\n".join([*lines, "[All examples](../examples.md)", ""])


def _pictures(name: str, title: str, up: str = "") -> list[str]:
    words = f"What the example draws: {title}"
    return [_picture(f"{up}made/{name}/{picture.name}", words) for picture in kept.pictures(name)]


def _head(path: Path) -> tuple[str, str, int]:
    """Title and words of an example, and where its code begins."""
    found = re.match(r"# %% \[markdown\]\n((?:#.*\n)+)", path.read_text())
    title, *rest = [line.removeprefix("#").strip() for line in found.group(1).splitlines()] if found else [path.stem]
    return title.removeprefix("# "), plain(" ".join(rest)), found.end() if found else 0


def _picture(path: str, words: str) -> str:
    return f"![{words.replace('[', '(').replace(']', ')')}]({path}){{ loading=lazy }}"


def _made(made: dict) -> str:
    """How long it ran, and whether the package is another by now."""
    older = " The package has changed since; `make docs FRESH=1` runs it anew." if made["older"] else ""
    return f"<small>Ran for {made['seconds']:.0f} s.{older}</small>"


def good_and_bad() -> str:
    """Main checks, what they mean and what to do, with the picture of a fit that passes and one that does not."""
    lines = []
    for name, check in CHECKS.items():
        lines += [f"### {check.title} {{#{name}}}", "", f"`{check.finding}`. {check.means}", ""]
        lines += [f"**What to do**: {check.do}", ""]
        if made := kept.found(f"check-{name}", draw.sources()[f"check-{name}"]):
            lines += [_picture(f"made/check-{name}/picture.png", check.seen), ""]
            lines += [
                f"- {side}: {f['status']}, {plain(f['message'])}"
                for side, f in zip(("left", "right"), made["findings"], strict=True)
            ]
            lines += ["", _made(made), ""]
    return "\n".join(lines)


def benchmarks() -> str:
    """The tables that the commands of benchmarks/ wrote, and how to run them."""
    text = copied("benchmarks/README.md")
    for name in ("densities", "latents"):
        table = ROOT / "benchmarks" / f"{name}.md"
        if table.exists():
            text += "\n\n" + re.sub(r"^#", "##", copied(f"benchmarks/{name}.md"), flags=re.M)
    return text


def lay() -> None:
    """Make build/pages anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "pages", OUT)
    shutil.copy(ROOT / "docs" / "one_word.png", OUT)
    for name, key in draw.sources().items():
        if kept.found(name, key):
            shutil.copytree(kept.MADE / name, OUT / "made" / name, ignore=shutil.ignore_patterns("*.json"))
    verdict = OUT / "verdict.md"
    verdict.write_text(verdict.read_text().replace("<!-- good and bad -->", good_and_bad()))
    for name, text in pages().items():
        (OUT / name).parent.mkdir(parents=True, exist_ok=True)
        (OUT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    lay()
