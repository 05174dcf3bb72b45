"""An extension of griffe: the reference shows docstrings as this project writes them."""

import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import as_markdown


class Docstrings(griffe.Extension):
    """Docstrings as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
