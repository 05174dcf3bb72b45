"""The page of every check of the verdict: its name, what it looks at and what to do, read from the functions that make it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from docstrings import cell

SHELF = Path(__file__).parent.parent / "probgen" / "diagnostics"
GROUPS = {
    "Of every fit": ("every", "unvisited", "finite_modes"),
    "Of chains": ("chains",),
    "Of guides and modes": ("guides", "unbounded"),
    "Of learners": ("learners", "convergence", "baselines"),
    "Of draws, where there is no density": ("samples/beside", "samples/looks"),
    "Of densities and hidden sites, by their draws": ("samples/densities",),
    "Of learned energies": ("samples/learned_energies",),
    "Of grown textures": ("samples/textures",),
    "Of diffusion": ("samples/denoisers", "samples/particles"),
    "Of bridges": ("samples/bridges",),
    "Of a study by `pg.sbc`": ("../calibration/result",),
}
ELSEWHERE = {"going_on": ["pg.resume(...), or fit again without stopping it"]}  # remedies that another file makes


def page() -> str:
    """The page, as Markdown."""
    lines = [
        "# Every check",
        "",
        "Made from the checks' own source; ... stands for a number or a name of your fit.",
        "",
    ]
    others = _others()
    for title, names in [*GROUPS.items(), *([("Of other fits", others)] if others else [])]:
        lines += [f"## {title}", "", "| check | what it looks at | what to do |", "|---|---|---|"]
        for name in names:
            lines += [
                f"| {', '.join(f'`{word}`' for word in words)} | {cell(doc)} | {cell(remedy)} |"
                for words, doc, remedy in Source(SHELF / f"{name}.py").rows()
            ]
        lines.append("")
    return "\n".join(lines)


def _others() -> list[str]:
    """Files of checks that no group names."""
    named = {name for names in GROUPS.values() for name in names}
    files = sorted(path.relative_to(SHELF).with_suffix("").as_posix() for path in SHELF.rglob("*.py"))
    return [name for name in files if name not in named and any(Source(SHELF / f"{name}.py").rows())]


class Source:
    """One file of checks."""

    def __init__(self, path: Path):
        self.path = path
        tree = ast.parse(path.read_text())
        nodes = [part for node in tree.body for part in (node.body if isinstance(node, ast.ClassDef) else [node])]
        self.functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
        self.constants = {
            target.id: node.value
            for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[list[str], str, str]]:
        """Names, docstring and remedies of every check."""
        for name, function in self.functions.items():
            doc = ast.get_docstring(function)
            if doc and [a.arg for a in function.args.args] in (["evidence"], ["self"]) and _returns_a_finding(function):
                words = list(dict.fromkeys(self.names(function))) or [name.strip("_")]
                yield words, " ".join(doc.split()), "; or ".join(dict.fromkeys(self.remedies(function)))

    def names(self, function: ast.FunctionDef) -> Iterator[str]:
        """Names of the findings that a function makes, by itself or by another of its file."""
        for call in _calls(function):
            if call.func.id == "Finding":
                first = call.args[0]
                yield first.value if isinstance(first, ast.Constant) else function.name.strip("_")
            elif called := self.functions.get(call.func.id):
                own = called.name.strip("_")
                yield from (function.name.strip("_") if word == own else word for word in self.names(called))

    def remedies(self, function: ast.FunctionDef) -> Iterator[str]:
        """What its findings say to do."""
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "remedy" for t in node.targets):
                yield from self.texts(node.value)
        for call in _calls(function):
            if call.func.id == "Finding":
                yield from self.texts(call.args[5])
            elif (called := self.functions.get(call.func.id)) and _returns_a_finding(called):
                yield from self.remedies(called)

        for node in ast.walk(function):  # a check of another file that is passed on
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                file = self.path.with_name(f"{node.value.id}.py")
                other = Source(file) if file.exists() else None
                if other and (called := other.functions.get(node.attr)) and _returns_a_finding(called):
                    yield from other.remedies(called)

    def texts(self, node: ast.expr) -> list[str]:
        """What an expression can say, with ... for what only a fit knows; nothing where that is all."""
        match node:
            case ast.Constant(value=str(text)):
                return [text] if text else []
            case ast.JoinedStr():
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                return ["".join(str(part) for part in parts)]
            case ast.IfExp():
                return [*self.texts(node.body), *self.texts(node.orelse)]
            case ast.BinOp():
                return [a + b for a in self.texts(node.left) for b in self.texts(node.right) or [""]]
            case ast.Name() if node.id in self.constants:
                return self.texts(self.constants[node.id])
            case ast.Call(func=ast.Name(id=name)) if name in ELSEWHERE:
                return ELSEWHERE[name]
            case ast.Call(func=ast.Name(id=name)) if name in self.functions:
                told = [
                    n.value for n in ast.walk(self.functions[name]) if isinstance(n, ast.Return) and n.value is not None
                ]
                return [text for value in told for text in self.texts(value)]
        return []


def _returns_a_finding(function: ast.FunctionDef) -> bool:
    return function.returns is not None and "Finding" in ast.unparse(function.returns)


def _calls(function: ast.FunctionDef) -> list[ast.Call]:
    return [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
