"""A support's flags: NumPyro's decorator under the types that it takes, as its own annotations refuse every bool and int."""

from __future__ import annotations

from typing import Any

from numpyro.distributions import constraints

dependent_property: Any = constraints.dependent_property
