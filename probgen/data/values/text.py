"""Texts as rows of tokens: characters by their place in the text's own alphabet, in windows that overlap; and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.inputs import first
from probgen.data.scales import numbers
from probgen.data.values.photographs import ENDINGS as PICTURES
from probgen.data.whole_numbers import whole

ENDING = ".txt"
OTHERS = (".npz", ".npy", ".json", ".csv", ".parquet", ".wav", ".wave", *PICTURES)
CONTEXT = 64  # characters of a window
MOST = 2**15  # windows of a text, where they may overlap by less
LARGEST = 100_000  # words


def is_text(name: str) -> bool:
    """Whether a name is that of a text: a file that is no array, table, sound or picture, or a name that ends in .txt."""
    if name.lower().endswith(ENDING):
        return True
    path = Path(name)
    return bool(path.suffix) and path.suffix.lower() not in OTHERS and path.is_file()


def text_of(path: str | Path) -> np.ndarray:
    """The characters of a text file, UTF-8: (character,). FileNotFoundError, ValueError for one that is empty or no text."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r} in {Path.cwd()}; expected the path of a text.")
    try:
        found = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8, or pass rows of numbers."
        ) from None
    if not found:
        raise ValueError(f"{path} is empty; expected a text of more than {CONTEXT} characters.")
    return np.array(list(found.removeprefix("\ufeff")))


def text(path: str | Path, context: int = CONTEXT) -> dict[str, Any]:
    """What 'transformer' learns from of a text file: windows of `context` characters as tokens, and the alphabet; see `windows`."""
    return windows(text_of(path), context)


def as_rows(x: Any, context: int = CONTEXT) -> dict[str, Any]:
    """A program's data for rows of tokens (row, ...), flattened, or for one text (character,), in windows of `context`."""
    x = np.asarray(x)
    if x.dtype.kind == "U":
        _check_characters(x)
        return windows(x, context)
    if x.ndim < 2:
        raise ValueError(f"The rows have shape {x.shape}; expected (row, token), or pictures (row, height, width).")
    return {"x": x.reshape(len(x), -1)}


def windows(characters: np.ndarray, context: int = CONTEXT) -> dict[str, Any]:
    """Windows of a text (character,) as tokens, (window, context), each begun as many characters after the one before.

    There are as many as characters, or about `MOST`, and they overlap by half at least. ValueError for a text too short.
    """
    if isinstance(context, bool) or not isinstance(context, int) or context < 2:
        raise ValueError(f"context is {context!r}; expected a whole number of characters, 2 or more.")
    if len(characters) < 2 * context:
        raise ValueError(
            f"The text has {len(characters)} characters; expected at least {2 * context}, two windows of context={context}."
        )
    alphabet, tokens = np.unique(characters, return_inverse=True)
    starts = len(characters) - context + 1
    step = min(-(-starts // MOST), context // 2)
    small = tokens.astype(np.min_scalar_type(len(alphabet) - 1))
    cut = np.lib.stride_tricks.sliding_window_view(small, context)[(starts - 1) % step :: step]
    return {"x": np.ascontiguousarray(cut), "alphabet": "".join(alphabet)}


def of_words(keyword: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model derives of rows of tokens: `num_words`, `context`. ValueError for rows that are none, or longer than said."""

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(data.get(keyword), str):
            raise ValueError(
                f"{keyword} is a string; expected rows of tokens. Of a text pass the file, data='mine.txt', or "
                "pg.data.text('mine.txt', context=64)."
            )
        rows, alphabet = numbers(data.get(keyword)), data.get("alphabet") or ""
        if rows is None or not rows.size:
            return {"num_words": len(alphabet)} if alphabet else {}
        if rows.ndim != 2:
            raise ValueError(f"{keyword} has shape {rows.shape}; expected rows of tokens, (row, token). Reshape it.")
        _check_context(keyword, rows, data.get("context"))
        _check_alphabet(alphabet)
        said = data.get("num_words", len(alphabet) or None)
        check_tokens(keyword, rows, said)
        return {"num_words": max(2, int(rows.max()) + 1) if said is None else said, "context": rows.shape[1]}

    return derive


def _check_characters(x: np.ndarray) -> None:
    """ValueError for strings that are words, or that are not one text."""
    if x.ndim != 1:
        raise ValueError(
            f"x is strings of shape {x.shape}; expected the characters of one text, (character,): np.array(list(text))."
        )
    if (words := np.char.str_len(x) != 1).any():
        raise ValueError(
            f"x{first(words)} is {str(x[words][0])!r}; expected characters, np.array(list(text)).\nOf words pass rows of "
            "their numbers, np.unique(words, return_inverse=True)[1].reshape(-1, context)."
        )


def _check_alphabet(alphabet: Any) -> None:
    """ValueError for what is no string of characters that differ."""
    if not isinstance(alphabet, str):
        raise ValueError(f"alphabet is {alphabet!r}; expected a string, the characters by their tokens, such as 'abc'.")
    if twice := [c for i, c in enumerate(alphabet) if c in alphabet[:i]]:
        raise ValueError(
            f"alphabet has {twice[0]!r} twice; expected a character for each token, none of them again: {alphabet!r}."
        )


def _check_context(keyword: str, rows: np.ndarray, context: Any) -> None:
    if context is None or rows.shape[1] == (context := whole("context", context)):
        return
    much = "longer" if rows.shape[1] > context else "shorter"
    raise ValueError(
        f"Rows of {keyword} have {rows.shape[1]} tokens, {much} than context={context}.\n"
        "Cut them into windows of that, or leave context out: it is the length of a row."
    )


def check_tokens(keyword: str, rows: np.ndarray, num_words: Any = None) -> None:
    """ValueError for entries that are no tokens: not whole, negative, or not below `num_words`."""
    most = (LARGEST if num_words is None else int(num_words)) - 1
    bad = (rows < 0) | (rows > most) | (rows != np.rint(rows))
    if not bad.any():
        return
    upto = f" to {most}, the {most + 1} words" if num_words is not None else f"; at most {LARGEST} words"
    raise ValueError(
        f"{keyword}{first(bad)} is {rows[bad][0]:g}; expected tokens, whole numbers from 0{upto}.\n"
        "Number the words from 0, as np.unique(words, return_inverse=True)[1] does; round or bin reals first."
    )


def spelled(told: str, alphabet: str, context: int) -> np.ndarray:
    """A text as tokens, NaN behind its end: (context,). ValueError for one that is longer, or has other characters."""
    place = {character: i for i, character in enumerate(alphabet)}
    if len(told) > context:
        raise ValueError(f"The text has {len(told)} characters; expected at most {context}, a window of the context.")
    if unknown := [(i, c) for i, c in enumerate(told) if c not in place]:
        raise ValueError(
            f"The text has {unknown[0][1]!r} at [{unknown[0][0]}], which the text that was learned from does not have.\n"
            f"Its {len(alphabet)} characters: {alphabet!r}."
        )
    return np.array([place[c] for c in told] + [np.nan] * (context - len(told)), float)


def read_back(tokens: np.ndarray, alphabet: str) -> list[str]:
    """Rows of tokens (row, token) as strings."""
    letters = np.array(list(alphabet))
    return ["".join(row) for row in letters[np.asarray(tokens).astype(int)]]
