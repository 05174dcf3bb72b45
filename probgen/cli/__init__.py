"""The command line: the words of Python, said in the shell.

Each command is a dataclass: its fields are the flags, `run` does the work and returns the exit code. The flags of
`probgen fit` are those of `Fit` and the settings of the algorithm that `--inference` names. Bad input is one message on
stderr and exit code 2, Ctrl-C is 130. `probgen diagnose` exits with the verdict's code, 0 to 2, so that there bad input is 64.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from probgen.cli.flags import _parse
from probgen.cli.words import INTERRUPTED

BAD_INPUT = 2
BROKEN_PIPE = 141  # as of a program that SIGPIPE ended
NO_VERDICT = 64  # of `diagnose`, whose 2 is a verdict; EX_USAGE of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or bool(os.environ.get("PROBGEN_DEBUG"))
    words = [word for word in words if word != "--debug"]
    bad = NO_VERDICT if words[:1] == ["diagnose"] else BAD_INPUT
    try:
        code = _version() if words == ["--version"] else _parse(words).run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read what is printed has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (TypeError, ValueError, LookupError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"probgen: {_message(error)}", file=sys.stderr)
        return bad
    except SystemExit as error:  # of the parser, which has said why
        raise SystemExit(bad if error.code == BAD_INPUT else error.code) from None
    except KeyboardInterrupt:
        if debug:
            raise
        print("probgen: interrupted", file=sys.stderr)
        return INTERRUPTED


def _message(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip() or type(error).__name__


def _version() -> int:
    from importlib.metadata import version

    print(f"probgen {version('probgen')}")
    return 0
