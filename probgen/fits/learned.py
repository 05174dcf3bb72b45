"""LearnedFit: parameters learned from rows, a model again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import whole_numbers
from probgen.data.checks import check_known
from probgen.data.grey import as_bits, grey_sites, told
from probgen.data.inputs import OutOfRange, first, read
from probgen.data.whole_numbers import generator
from probgen.engine import drawing
from probgen.engine.drawable import GIVEN, STILL, WEIGHTS, weighed
from probgen.evaluate.attribute import Attribute, Latents
from probgen.fits import latents
from probgen.fits.fit import Fit
from probgen.fitted import FittedParameters, LogProb
from probgen.programs.linear import Linear
from probgen.target import Conditional, Generative, Target

FAR = 2**20  # beyond the entries of any axis of classes


@dataclass(frozen=True, repr=False)
class LearnedFit(Fit, FittedParameters):
    """Parameters learned from rows of data: a model again, of new points.

    answer: the parameters, unconstrained, by their names in the program.
    """

    target: Generative

    @property
    def parameters(self) -> Mapping[str, np.ndarray]:
        """The learned parameters in their constraints: an array for each `numpyro.param`."""
        return self.target.constrained(self.answer)

    @functools.cached_property
    def constants(self) -> dict[str, LogProb]:
        """Estimates of log Z that were made, by their settings."""
        return {}

    @functools.cached_property
    def z(self) -> np.ndarray:
        """Nothing: parameters are a point, not draws."""
        return np.empty((1, 1, 0))

    @functools.cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """The parameters, as one draw of one chain: arrays (1, 1, *shape)."""
        return {k: v[None, None] for k, v in self.parameters.items()}

    def summary(self, var_names: str | Sequence[str] | None = None, **keywords: Any) -> Any:
        """A pandas table of the parameters: a row for each entry with its value, where there are at most a hundred in all.

        Of more, a row for each array: shape, mean, sd, smallest and largest value. var_names: of which parameters alone; they have
        a row for each entry. KeyError for a name that is none, TypeError for settings of ArviZ's table of draws.
        """
        from probgen.fits.tables import parameters

        if keywords:
            raise TypeError(
                f"Unknown setting {next(iter(keywords))!r}: a table of learned parameters takes var_names alone."
            )
        return parameters(self.parameters, var_names)

    def condition(self, x: Any = None, /, **given: Any) -> Target:
        """The target of a new point, whose unknown sites any algorithm can draw: `pg.fit(fit.condition(v=part), ...)`.

        x, given: what is known of the visible sites, in the shape of one point; NaN where it is not known.
        Incompatible where a scale weighs the density, which what is drawn given something would be of.
        """
        self._check_seen()
        point = self._one(self._named(x, given), unknown=True)
        found = self.target.learned(self.answer, point)
        known = [k for k in point if k in self.target.keywords]
        own = [site.name for site in self.target.sites if site.weighed]
        if known and own and self.target.proper:
            if not self.target.inputs:
                raise Incompatible(GIVEN.format(own[0], known[0]))
            found.notes = (*found.notes, STILL.format(own[0], known[0]))
        return found

    def sample(self, num_samples: int = 1, seed: int | None = None, inference: Any = None, **settings: Any) -> Any:
        """New points: arrays (num_samples, *event). Inputs of a conditional program are among the keywords: one for all points;
        where none are said, those that the model begins with, if it has such.

        inference: by default none for a program without factors, which is run forward; else each point is the end of a Markov chain
            of its own, of 1000 steps: "gibbs" where every unknown can be drawn given the rest, else "mala".
        """
        num_samples = whole_numbers.whole("num_samples", num_samples)
        inputs = {k: settings.pop(k) for k in self.target.inputs if k in settings}
        if not inputs and self.model.begins is not None:
            inputs = dict(self.model.begins(self.target.data))
        target = self.condition(**inputs)
        if inference is None and self.target.proper:
            return target.sample(num_samples, self.seed + 2 if seed is None else seed)
        core = target.pruned() if inference is None and isinstance(target, Conditional) else target
        inference = inference or ("gibbs" if isinstance(core, Conditional) else "mala")
        settings = {"num_warmup": 1000, "num_samples": 1, "num_chains": num_samples, "progress": False} | settings
        if inference == "gibbs":
            settings = {"conditionals": "evaluation"} | settings
        seed = self.seed + 2 if seed is None else seed
        drawn = {
            k: v[:, -1] for k, v in self.runner.fit(core, inference=inference, seed=seed, **settings).draws.items()
        }
        return target.completed(drawn, seed + 1) if isinstance(target, Conditional) and core is not target else drawn

    def simulate(self, num_samples: int = 1, seed: int | None = None) -> dict[str, np.ndarray]:
        """New points, the inputs of each those of a row of the data, drawn at random: sites and inputs, (num_samples, *event).

        Incompatible for energies, which are not run forward.
        """
        target: Any = self.target
        if not target.proper:
            raise Incompatible(
                "This program is an energy, which is not run forward: fit.sample(64, label=...) runs chains."
            )
        seed, num_samples = self._seed(seed), whole_numbers.whole("num_samples", num_samples)
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
        several = (
            len(target.data[target.inputs[0]]) if target.inputs else target.num_rows
        )  # of another kind, other in number
        picked = generator(seed, 2).integers(several, size=num_samples)
        inputs = {k: np.asarray(target.data[k])[picked] for k in target.inputs}
        return {**self._forward(inputs, num_samples, seed), **inputs}

    def judge(self, x: Any = None, /, **rows: Any) -> np.ndarray:
        """What the critic that the program was learned against says of points: its logits, larger for data: (row,).

        x, rows: the visible sites and inputs, (row, *event); by default the data. A critic of packs says one for each, in order.
        Incompatible where there was no critic.
        """
        size = drawing.pack(self.target)
        if not size:
            why = "has a critic of each kind of rows" if getattr(self.target, "unpaired", False) else "has no critic"
            raise Incompatible(f"{self.inference.name} {why}; 'gan', 'wgan', 'wgan_gp' and 'r3gan' have one.")
        given = self._rows(self._named(x, rows))
        if len(next(iter(given.values()))) % size:
            raise ValueError(f"The critic judges {size} rows at once; expected a multiple of that.")
        return drawing.judged(self.target, self.answer, given)

    def interpolate(self, a: Any, b: Any, num_points: int = 8, **inputs: Any) -> dict[str, np.ndarray]:
        """Points of a flow on the straight line between two points in its latent space: {site: (num_points, *event)}.

        a, b: one point each, in the shape of the visible site; inputs: of a conditional flow. Incompatible where there is no flow.
        """
        from probgen.nets.flows import interpolated

        if num_points < 2:
            raise ValueError(f"num_points is {num_points}; it must be at least 2")
        ends = [self._one(self._named(point, {})) for point in (a, b)]
        (keyword,) = ends[0]
        return interpolated(self, np.stack([end[keyword] for end in ends]), num_points, **inputs)

    def attribute(
        self, direction: Any, x: Any = None, *, amounts: Any = (-2.0, -1.0, 0.0, 1.0, 2.0), num_rows: int = 8,
        num_draws: int = 2000, seed: int | None = None, **inputs: Any,
    ) -> Attribute:  # fmt: skip
        """Points moved in the latent space along the direction in which a number about them grows; see `evaluate.attribute`.

        direction: a function of one point, (*event), that returns a number, such as whether it smiles; or "thickness" or "slant" of
            a grey picture. It is found on `num_draws` of the model's own draws.
        x: rows to move, (row, *event); by default `num_rows` draws. Of a generator none: no point tells its noise.
        amounts: how far, in standard deviations of the latent along the direction; inputs: of a conditional model.
        """
        from probgen.evaluate import attribute as found

        self._check_seen()
        counts = {"num_rows": num_rows, "num_draws": num_draws}
        least, whole = {"num_rows": 1, "num_draws": 50}, {k: whole_numbers.whole(k, v) for k, v in counts.items()}
        if low := [k for k, v in whole.items() if v < least[k]]:
            raise ValueError(f"{low[0]} is {whole[low[0]]}; it must be at least {least[low[0]]}")
        space = self._latents(inputs)
        keyword = next(iter(self.target.keywords))
        shape = self._shapes[keyword][1]
        rows = None if x is None else read(keyword, x).astype(float)
        if rows is not None and (rows.ndim != len(shape) + 1 or rows.shape[1:] != shape):
            raise ValueError(f"{keyword} has shape {rows.shape}; expected rows of shape {shape}: (row, *{shape}).")
        return found.attribute(space, direction, rows, amounts, whole["num_rows"], whole["num_draws"], self._seed(seed))

    def _latents(self, inputs: Mapping[str, Any]) -> Latents:
        """The latent space of a model with inputs, one for all points."""
        return latents.of_density(self, inputs)

    def energy(self, x: Any = None, /, **rows: Any) -> np.ndarray:
        """The free energy -log sum_h exp f(x, h) of rows, in nats, up to the model's constant: (row,).

        x, rows: the visible sites, (row, *event); by default the data that were learned from. Large for an outlier.
        """
        from probgen.evaluate.energy import free_energies

        self._check_counted()
        return free_energies(self.target, self.answer, self._rows(self._named(x, rows)))

    def log_z(self, method: str = "auto", **settings: Any) -> LogProb:
        """The log of the model's constant, in nats.

        method: "enumeration" (exact), "quadrature" (one or two reals), "ais" (annealed importance sampling, forward and
            reverse, whose settings are those of `probgen.evaluate.ais.estimate`), or "auto": the first that can be.
        """
        from probgen.evaluate import partition

        self._check_counted()
        return partition.log_z(self, method, **settings)

    def log_prob(self, x: Any = None, /, *, method: str = "auto", **rows: Any) -> LogProb:
        """log p(x) of rows, in nats: (row,), with the standard error of the constant; see `log_z`."""
        from probgen.evaluate import partition

        self._check_counted()
        given = self._named(x, rows)
        return self._told(partition.log_prob(self, self._rows(given), method), given)

    def _seed(self, seed: int | None) -> int:
        return self.seed + 2 if seed is None else whole_numbers.seed(seed)

    def _forward(self, inputs: Any, count: int, seed: int, given: Any = None) -> dict[str, np.ndarray]:
        """All sites run forward, for the inputs of so many rows."""
        self._check_seen()
        return drawing.forward(self.target, self.answer, inputs, count, seed, given)

    def _inputs(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """Inputs of so many rows, by keyword: each one for all, or one a row."""
        if count < 1:
            raise ValueError(f"num_samples is {count}; it must be at least 1")
        own = self.target.inputs
        if unknown := [k for k in given if k not in own]:
            known = f"its inputs are {', '.join(own)}" if own else "this program has no inputs"
            raise TypeError(f"Unknown {unknown[0]!r}; {known}.")
        if missing := [k for k in own if k not in given]:
            raise TypeError(
                f"A point is drawn given {', '.join(missing)}: say {missing[0]}=..., or draw with the inputs of random rows by "
                f"fit.simulate({count})."
            )
        found = {}
        for k, v in given.items():
            array, shape = read(k, v).astype(float), self._shapes[k][1]
            if array.shape not in (shape, (count, *shape)):
                raise ValueError(
                    f"{k} has shape {array.shape}; expected {shape}, or ({count}, *{shape}) for each point its own."
                )
            found[k] = self._whole(k, np.broadcast_to(array, (count, *shape)))
        self.target.check_indices(found, self.answer)
        return found

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Of every keyword of rows and inputs: the site, or itself for an input, and the shape of one point."""
        target: Any = self.target
        shapes = {v.name: v.shape for v in target.visible}
        found = {k: (site, shapes[site]) for k, site in target.keywords.items()}
        return found | {k: (k, target.data[k].shape[1:]) for k in target.inputs}

    def _named(self, x: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is given, with the one that came without its name."""
        if x is None:
            return dict(given)
        keywords = list(self.target.keywords)
        if len(keywords) > 1:
            raise TypeError(f"This model has rows of {', '.join(keywords)}: say which by its name.")
        return {keywords[0]: x, **given}

    def _check_seen(self) -> None:
        """Raise Changed where the program reads files and the like, and its density is not what it was when it was learned."""
        from probgen.fits.seal import check_seen

        check_seen(self.target)

    def _check_counted(self) -> None:
        """Raise Incompatible where a scale counts a site of a probability more or less than once, which is then none."""
        if (names := weighed(self.target)) and self.target.proper:
            hidden = [v.name for v in self.target.hidden]
            instead = " (inference='svi', kl_weight=... weighs the KL alone)" if names[0] in hidden else ""
            why = "what was learned is no log probability of a row, nor a bound on it"
            raise Incompatible(WEIGHTS.format(names[0], why, instead))

    def _rows(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self._check_seen()
        if not given:
            return dict(self.target.all_rows())
        self._check(given)
        rows = {}
        for keyword, value in given.items():
            array, (site, shape) = read(keyword, value).astype(float), self._shapes[keyword]
            if array.shape[1:] != shape or array.ndim != len(shape) + 1:
                raise ValueError(f"{keyword} has shape {array.shape}; expected rows of shape {shape}: (row, *{shape}).")
            rows[site] = self._whole(keyword, array)
        if missing := [k for k in self._shapes if k not in given]:
            raise TypeError(f"Missing rows of {', '.join(missing)}.")
        if len({len(v) for v in rows.values()}) > 1:
            raise ValueError(f"Different numbers of rows: {', '.join(f'{k}: {len(v)}' for k, v in rows.items())}.")
        self.target.check_indices(rows, self.answer)
        return as_bits(self.target, rows)

    def _told(self, found: LogProb, given: Mapping[str, Any]) -> LogProb:
        """The log probability of rows, its kind saying where bits were drawn of grey levels."""
        sites = {self._shapes[k][0]: np.asarray(v, float) for k, v in given.items()}
        return told(found, grey_sites(self.target, sites) if given else self.target.grey)

    def _one(self, given: Mapping[str, Any], unknown: bool = False) -> dict[str, np.ndarray]:
        """One point by keyword, as floats; unknown: whether NaN, or a mask, may say that a part is not known."""
        self._check(given)
        if seen := [k for k, v in given.items() if isinstance(v, Linear)]:
            raise Incompatible(
                f"{seen[0]} is a pg.Linear, which is for what a diffusion model draws.\n"
                f"Give {seen[0]} itself, with NaN where it is not known."
            )
        point = {k: read(k, v, unknown) for k, v in given.items()}
        for keyword, value in point.items():
            if value.shape != self._shapes[keyword][1]:
                raise ValueError(
                    f"{keyword} has shape {value.shape}; expected one point, of shape {self._shapes[keyword][1]}, "
                    "with NaN where it is unknown."
                )
        check_known(self.target.row_sites, point)
        return {k: self._whole(k, v.astype(float)) for k, v in point.items()}

    def _whole(self, keyword: str, array: np.ndarray) -> np.ndarray:
        """The values of an input: whole numbers where those that were learned from are, and no index that counts from the end."""
        like = np.asarray(self.target.data[keyword]) if keyword in self.target.inputs else array
        if like.dtype.kind not in "iub":
            return array
        if (bad := array != np.rint(array)).any():
            raise ValueError(
                f"{keyword} holds whole numbers where it was learned from; {keyword}{first(bad)} is {array[bad][0]:g}."
            )
        if like.min() >= 0 and (bad := array < 0).any() and self._is_index(keyword):
            told = f"{keyword} is from {like.min():g} to {like.max():g} where it was learned from"
            raise ValueError(f"{told}; {keyword}{first(bad)} is {array[bad][0]:g}, which counts from the end.")
        return array

    def _is_index(self, keyword: str) -> bool:
        """Whether the program takes an input for an index, which a number far too large then is not."""
        row = {k: np.asarray(self.target.data[k][:1], float) for k in self.target.inputs}
        try:
            self.target.check_indices(row | {keyword: np.full_like(row[keyword], FAR)}, self.answer)
        except OutOfRange:
            return True
        return False

    def _check(self, given: Mapping[str, Any]) -> None:
        if unknown := [k for k in given if k not in self._shapes]:
            raise TypeError(f"Unknown {unknown[0]!r}; this model was learned from rows of {', '.join(self._shapes)}.")

    def _counted(self) -> str:
        """What the fit is, with how many numbers it learned, for networks, whose parameters have no names of interest."""
        name = getattr(self.model.program, "__name__", "program")
        done = "" if self.complete else f", stopped at step {self.num_steps} of {self.inference.total_steps}"
        told = f"{sum(v.size for v in self.parameters.values()):,} numbers in {len(self.parameters)} parameters"
        return f"{type(self).__name__}({name}, {self.inference.name}, {told}, {self.seconds:.1f} s{done})"

    def __repr__(self) -> str:
        name = getattr(self.model.program, "__name__", "program")
        done = "" if self.complete else f", stopped at step {self.num_steps} of {self.inference.total_steps}"
        return f"LearnedFit({name}, {self.inference.name}, {', '.join(self.answer)}, {self.seconds:.1f} s{done})"
