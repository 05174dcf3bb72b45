"""The verdict on a fit: its findings, the worst first, and how they are shown."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Status = Literal["pass", "warn", "fail"]
SEVERITY: Mapping[str, int] = {"pass": 0, "warn": 1, "fail": 2}
LENGTHS = re.compile(r"\b(num_steps|num_samples|num_warmup)=(\d+)\b")


@dataclass(frozen=True)
class Finding:
    """What one check says. value: its number; bar: where "pass" ends; both None for a check without a number."""

    check: str
    status: Status
    value: float | None
    bar: float | None
    message: str
    remedy: str

    def __str__(self) -> str:
        line = f"  {self.status.upper() if self.status != 'pass' else self.status}  {self.check:<12} {self.message}"
        return line if self.status == "pass" else f"{line}\n        {'':<12} -> {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """All findings on one fit, the worst first. As a truth value: whether nothing failed.

    notes: what to know of how the program was read, beside the findings.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """The worst status of the findings."""
        statuses: list[Status] = ["pass", *(f.status for f in self.findings)]
        return max(statuses, key=SEVERITY.__getitem__)

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for warn, 2 for fail."""
        return SEVERITY[self.status]

    def __bool__(self) -> bool:
        return self.status != "fail"

    def __getitem__(self, check: str) -> Finding:
        """The finding of one check; KeyError, with the known names, where it was not made."""
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"No check {check!r} on this fit. Made: {', '.join(f.check for f in self.findings)}.")

    @property
    def headline(self) -> str:
        """One line: the status and how many checks did not pass."""
        count = {word: sum(f.status == word for f in self.findings) for word in SEVERITY}
        parts = [f"{count[word]} {word}" for word in ("fail", "warn", "pass") if count[word]]
        return f"{self.status}: {', '.join(parts)} of {len(self.findings)} checks"

    def __str__(self) -> str:
        return "\n".join([self.headline, *map(str, self.findings), *(f"  note  {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """For notebooks: the status coloured, a line a finding, what passed folded where something did not."""
        open_, passed = (
            [f for f in self.findings if f.status != "pass"],
            [f for f in self.findings if f.status == "pass"],
        )
        count = self.headline.partition(": ")[2]
        parts = [f"<p style='margin:.3em 0'>{badge(self.status)} {html.escape(count)}</p>", *map(_line, open_)]
        if passed:
            folded = "" if open_ else " open"
            parts.append(
                f"<details{folded}><summary>{len(passed)} passed</summary>{''.join(map(_line, passed))}</details>"
            )
        parts += [f"<p style='margin:.3em 0'><i>{html.escape(note)}</i></p>" for note in self.notes]
        return f"<div style='text-align:left'>{''.join(parts)}</div>"


# White on these is 5 to 1 or more, in a notebook that is light or dark.
COLOURS: Mapping[str, str] = {"pass": "#1c6b41", "warn": "#8a5200", "fail": "#b3261e", "none": "#515b69"}


def badge(status: str, word: str = "") -> str:
    """A status as a coloured word of HTML; "none" where nothing is judged."""
    style = f"background:{COLOURS[status]};color:#fff;padding:.05em .5em;border-radius:.3em;font-weight:600"
    return f"<span style='{style}'>{html.escape(word or status)}</span>"


def unjudged(findings: Sequence[Finding]) -> str:
    """HTML of what is wrong at first sight, which is no verdict, and of where to have one."""
    status = Verdict(tuple(findings)).status if findings else "none"
    word = "not judged yet" if status == "none" else f"not judged yet; at first sight: {status}"
    told = f"<p style='margin:.3em 0'>{badge(status, word)} <code>fit.diagnose()</code> gives the verdict.</p>"
    return f"<div style='text-align:left'>{told}{''.join(map(_line, findings))}</div>"


def _line(finding: Finding) -> str:
    remedy = "" if finding.status == "pass" else f"<br><i>&rarr; {html.escape(finding.remedy)}</i>"
    edge = f"border-left:.25em solid {COLOURS[finding.status]};padding:.1em .6em;margin:.25em 0"
    name = f"{badge(finding.status)} <b>{html.escape(finding.check)}</b>"
    return f"<div style='{edge}'>{name} {html.escape(finding.message)}{remedy}</div>"


def agreed(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with one number of steps, and of draws, in all remedies of those that did not pass: the largest of each."""
    text = " ".join(f.remedy for f in findings if f.status != "pass")
    most: dict[str, int] = {}
    for name, number in LENGTHS.findall(text):
        most[name] = max(most.get(name, 0), int(number))
    return [replace(f, remedy=LENGTHS.sub(lambda m: f"{m[1]}={most.get(m[1], m[2])}", f.remedy)) for f in findings]


def grade(value: float, warn: float, fail: float) -> Status:
    """The status of a number that is better the smaller it is; NaN fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def beside(value: float, bar: float, form: str) -> str:
    """A number as text, with as many more digits as it takes to stand on its own side of the bar."""
    digits = int(form[1:-1])
    scale = 0.01 if form.endswith("%") else 1.0
    for more in range(digits, digits + 6):
        text = f"{value:.{more}{form[-1]}}"
        told = float(text.rstrip("%").replace(",", "")) * scale
        if not np.isfinite(value) or ((told <= bar) == (value <= bar) and (told >= bar) == (value >= bar)):
            return text
    return f"{value!r}"
