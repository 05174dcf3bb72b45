"""Words of a regular grammar whose entropy rate is known: a probabilistic automaton, and exact log probabilities of its rows.

Reber's grammar, such as BTSSXSE or BPTVPSE, each sentence followed by the next; of two arcs that leave a state each is as probable.

The next state is known from the state and the word, so that the entropy rate is the stationary mean of the states' entropies,
h = sum_s pi_s H_s. Source: Reber 1967 (doi:10.1016/S0022-5371(67)80149-X). Units: nats.
"""

from __future__ import annotations

import numpy as np

WORDS = "BTPSXVE"
ARCS = (  # of every state, the words that leave it, and where they lead
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 0},
)


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """p(word | state), and the state that a word leads to, (state, word)."""
    p, after = np.zeros((len(ARCS), len(WORDS))), np.zeros((len(ARCS), len(WORDS)), int)
    for state, arcs in enumerate(ARCS):
        for word, then in arcs.items():
            p[state, WORDS.index(word)], after[state, WORDS.index(word)] = 1 / len(arcs), then
    return p, after


EMITS, AFTER = _tables()


def stationary() -> np.ndarray:
    """How often each state is visited in the long run: (state,)."""
    moves = np.zeros((len(ARCS), len(ARCS)))
    np.add.at(moves, (np.arange(len(ARCS))[:, None].repeat(len(WORDS), 1), AFTER), EMITS)
    system = np.vstack([moves.T - np.eye(len(ARCS)), np.ones(len(ARCS))])
    return np.linalg.lstsq(system, np.append(np.zeros(len(ARCS)), 1.0), rcond=None)[0]


def entropy_rate() -> float:
    """Nats a word, in the long run: the least that any model of the next word loses."""
    logs = np.log(EMITS, where=EMITS > 0, out=np.zeros_like(EMITS))
    return float(-stationary() @ (EMITS * logs).sum(1))


def sentences(num_rows: int, length: int = 32, seed: int = 0) -> np.ndarray:
    """Rows of a long text, each from a state of the stationary law, as numbers of `WORDS`: floats (num_rows, length)."""
    rng = np.random.default_rng(seed)
    state, rows = rng.choice(len(ARCS), num_rows, p=stationary()), np.zeros((num_rows, length))
    for t in range(length):
        word = (rng.random((num_rows, 1)) >= EMITS[state].cumsum(1)).sum(1)
        rows[:, t], state = word, AFTER[state, word]
    return rows


def log_prob(rows: np.ndarray) -> np.ndarray:
    """log p of every word of rows (row, length) given those before it, by the forward recursion: (row, length)."""
    words = np.asarray(rows).astype(int)
    belief, found = np.tile(stationary(), (len(words), 1)), np.zeros(words.shape)
    for t in range(words.shape[1]):
        joint = belief * EMITS[:, words[:, t]].T
        total = joint.sum(1)
        with np.errstate(divide="ignore"):
            found[:, t] = np.log(total)
        belief = np.zeros_like(joint)
        for state in range(len(ARCS)):
            np.add.at(belief, (np.arange(len(words)), AFTER[state, words[:, t]]), joint[:, state])
        belief /= np.maximum(total, 1e-300)[:, None]
    return found
