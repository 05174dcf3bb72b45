#!/usr/bin/env bash
# The value that POT gives of an unbalanced, entropic transport is 0, whatever is transported: ot.solve with its default kinds (both "KL"),
# and ot.unbalanced.sinkhorn_unbalanced2 with returnCost="total". POT 0.9.7.post1, numpy 2.4.6.
# Documented: the least of <T, M> + reg KL(T, a b') + u KL(T 1, a) + u KL(T' 1, b). With KL(p, q) = sum p log(p / q) - p + q, as for
# masses that are free, that is also what the solver's plan is best for. The value leaves -p + q out; without it the sum is 0 at the
# optimum of every problem, for there M + reg log(T / a b') + u log(T 1 / a) + u log(T' 1 / b) = 0 entry by entry.
# Seen, points on a line against the same ones shifted by 0, 1 and 3, reg .5, u 1: below 1e-12 for all three, where .17, .78 and 2.36 are
# right, by the plan that comes with it and by POT's own lbfgsb_unbalanced2. The value's gradient is 0 as well: nothing is learned by it.
# What to do: the plan is right; sum its terms, or ot.unbalanced.lbfgsb_unbalanced2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pot==0.9.7.post1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import ot


def kl(p, q):
    return (p * np.log(p / q) - p + q).sum()


x, weights = np.linspace(0, 1, 6), np.full(6, 1 / 6)
for shift, seen in ((0.0, 0.174), (1.0, 0.781), (3.0, 2.356)):
    cost = (x[:, None] - x - shift) ** 2
    found = ot.solve(cost, weights, weights, reg=0.5, unbalanced=1.0, max_iter=10_000, tol=1e-12)
    settings = {"reg_type": "kl", "returnCost": "total", "numItermax": 10_000, "stopThr": 1e-12}
    total = float(ot.unbalanced.sinkhorn_unbalanced2(weights, weights, cost, 0.5, 1.0, **settings))
    plan = found.plan
    right = (plan * cost).sum() + 0.5 * kl(plan, np.outer(weights, weights))
    right += kl(plan.sum(1), weights) + kl(plan.sum(0), weights)
    kinds = {"reg_div": "kl", "regm_div": "kl", "returnCost": "total"}
    other = float(ot.unbalanced.lbfgsb_unbalanced2(weights, weights, cost, 0.5, 1.0, **kinds))
    print(f"shift {shift:.0f}: solve {found.value:.1e}, sinkhorn_unbalanced2 {total:.1e}, by hand {right:.3f}, lbfgsb {other:.3f}")
    assert abs(right - seen) < 0.002 and abs(other - right) < 1e-4
    assert abs(found.value) < 1e-8 and abs(total) < 1e-8, "the behaviour has changed"
PY
