"""The next-token transformer: against enumeration, perturbations, draws that keep nothing, and a grammar of known entropy rate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probgen as pg
from probgen import catalog
from probgen.data.values import grammar
from probgen.datasets import digits, load
from probgen.nets.autoregressive import Autoregressive
from probgen.nets.tokens.next_token import NextToken, drawn

QUIET = {"progress": False}


def at_random(num_words=5, context=12, width=16, depth=2, num_heads=2, size=0.5):
    """A network with parameters of some size, so that every token matters."""
    net = NextToken(jax.random.key(0), num_words, context, width, depth, num_heads)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(size * rng.normal(size=p.shape), p.dtype), net)


NET = at_random()
ROWS = np.random.default_rng(1).integers(0, 5, (20, 12)).astype(np.float32)


# ---- the law -----------------------------------------------------------------------------------------------------


def test_probabilities_of_all_sequences_sum_to_one_and_draws_have_them():
    """Four tokens of three words. 20,000 draws: a share is off by .018, five standard errors at most, once in 10^5 runs."""
    fn = Autoregressive(at_random(3, 4))
    every = np.array(list(itertools.product(range(3), repeat=4)), float)
    p = np.exp(np.asarray(fn.log_prob(every), float))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(np.log(p)) > 3, "nearly uniform: this would show little"
    x = np.asarray(fn.sample(jax.random.key(1), (20_000,)))
    share = np.bincount((x @ 3 ** np.arange(4)[::-1]).astype(int), minlength=81) / len(x)
    assert abs(share - p).max() < 0.018
    assert 0.5 * abs(share - p).sum() < 0.05


def test_a_later_token_changes_no_earlier_logit():
    """Bit for bit, and every later one."""
    logits = jax.jit(jax.vmap(NET.logits))
    before, at = np.asarray(logits(ROWS)), np.arange(12)
    for t in range(12):
        changed = np.where(at == t, (ROWS + 1) % 5, ROWS)
        after = np.asarray(logits(changed))
        np.testing.assert_array_equal(after[:, : t + 1], before[:, : t + 1])
        assert (after != before)[:, t + 1 :].any(-1).all()


def test_one_pass_is_the_sum_of_what_is_kept():
    """The teacher-forced log probability against the conditionals from kept keys and values, one by one."""

    def one_by_one(x):
        def step(state, at):
            kept, before = state
            logits, kept = NET.next(kept, at[0], before)
            return (kept, at[1]), jax.nn.log_softmax(logits)[at[1].astype(int)]

        return jax.lax.scan(step, (NET.begin(), jnp.float32(-1)), (jnp.arange(12), x))[1].sum()

    kept = np.asarray(jax.jit(jax.vmap(one_by_one))(ROWS))
    np.testing.assert_allclose(Autoregressive(NET).log_prob(ROWS), kept, rtol=1e-5)


def test_draws_from_what_is_kept_are_those_of_one_pass_a_token():
    """The same uniform numbers, all logits anew for every token: the same tokens."""
    fn, keys = Autoregressive(NET), jax.random.split(jax.random.key(3), 50)

    def anew(key):
        uniform = jax.random.uniform(key, (12,))
        step = lambda i, x: x.at[i].set(drawn(NET.logits(x)[i], uniform[i]).astype(x.dtype))  # noqa: E731
        return jax.lax.fori_loop(0, 12, step, jnp.zeros(12))

    every = np.asarray(fn.sample(jax.random.key(3), (50,)))
    np.testing.assert_array_equal(every, np.asarray(jax.jit(jax.vmap(anew))(keys)))
    assert len(np.unique(every)) == 5


def test_a_prefix_is_completed_as_enumeration_says():
    fn, known = Autoregressive(at_random(3, 4)), np.array([True, True, False, False])
    every = np.array(list(itertools.product(range(3), repeat=4)), float)
    p = np.exp(np.asarray(fn.log_prob(every), float))
    value = np.array([2, 0, np.nan, np.nan])
    complete = jax.jit(jax.vmap(lambda key: fn.complete(key, value, known)))
    x = np.asarray(complete(jax.random.split(jax.random.key(0), 20_000)))
    assert (x[:, :2] == [2, 0]).all()
    assert bool(fn.exact(known))
    assert not bool(fn.exact(~known))
    agree = (every[:, :2] == [2, 0]).all(1)
    share = np.array([(x == row).all(1).mean() for row in every[agree]])
    assert abs(share - p[agree] / p[agree].sum()).max() < 0.018


# ---- the grammar -------------------------------------------------------------------------------------------------


def test_the_grammar_has_its_entropy_rate():
    """Five of eight words are a fair choice; log probabilities against sums over all paths of states; rows against the language."""
    assert grammar.stationary() == pytest.approx([1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 8, 1 / 8, 1 / 8])
    assert grammar.entropy_rate() == pytest.approx(0.75 * np.log(2))
    every = np.array(list(itertools.product(range(7), repeat=4)))
    p = np.exp(grammar.log_prob(every).sum(1))
    assert p.sum() == pytest.approx(1)
    paths = np.zeros(len(every))
    for i, row in enumerate(every):
        for state, weight in enumerate(grammar.stationary()):
            for word in row:
                weight, state = weight * grammar.EMITS[state, word], grammar.AFTER[state, word]
            paths[i] += weight
    np.testing.assert_allclose(p, paths, atol=1e-12)
    late = grammar.log_prob(grammar.sentences(4000, 16, seed=5))[:, 8:]
    assert -late.mean() == pytest.approx(grammar.entropy_rate(), abs=0.01)


@pytest.fixture(scope="module")
def learned():
    data = {"x": grammar.sentences(3000, 16), "width": 32, "num_heads": 2}
    return pg.fit("transformer", data, num_steps=500, batch_size=32, learning_rate=0.005, **QUIET)


def net_of(fit):
    """The learned network."""
    blank = NextToken(jax.random.key(0), 7, 16, 32, 2, 2)
    leaves, tree = jax.tree.flatten(blank)
    return jax.tree.unflatten(tree, [fit.answer[f"net$params[{i}]"] for i in range(len(leaves))])


def above(learned):
    """Nats of a new row above what the grammar's own law costs it: an estimate of KL(law || learned)."""
    rows = grammar.sentences(1000, 16, seed=9)
    return (grammar.log_prob(rows).sum(1) - np.asarray(learned.log_prob(rows).value, float)).mean()


def test_the_entropy_rate_is_learned(learned):
    """To .02 nats a word: whole rows against the law, late words against the rate."""
    assert 0 < above(learned) / 16 < 0.02
    rows = grammar.sentences(2000, 16, seed=8)
    net = net_of(learned)
    terms = np.asarray(jax.jit(jax.vmap(lambda x: jax.nn.log_softmax(net.logits(x))))(rows.astype(np.float32)))
    each = np.take_along_axis(terms, rows[..., None].astype(int), 2)[..., 0]
    np.testing.assert_allclose(each.sum(1), learned.log_prob(rows).value, rtol=1e-4)
    assert -each[:, 8:].mean() == pytest.approx(grammar.entropy_rate(), abs=0.02)
    assert learned.diagnose().status != "fail"


def test_new_sentences_are_of_the_language(learned):
    """All but a share of 1 - exp(-KL) at most, whatever is learned; three standard errors are .03."""
    impossible = ~np.isfinite(grammar.log_prob(learned.sample(500)["x"]).sum(1))
    assert impossible.mean() < 1 - np.exp(-above(learned)) + 0.03
    begun = [grammar.WORDS.index(word) for word in "BTS"]
    drawn = learned.condition(x=np.r_[begun, np.full(13, np.nan)]).sample(500)["x"]
    assert (drawn[:, :3] == begun).all()
    follows = [(drawn[:, 3] == grammar.WORDS.index(word)).mean() for word in "SX"]
    assert sum(follows) > 0.98
    assert follows[0] == pytest.approx(0.5, abs=0.12)


# ---- data --------------------------------------------------------------------------------------------------------


def test_pictures_and_rows_of_pictures_are_tokens():
    model = catalog.model("transformer")
    data = model.whole(model.named_data("digits"))
    assert (data["x"].shape, data["num_words"], data["context"]) == ((1797, 64), 2, 64)
    data = model.whole(model.named_data("digit_rows"))
    assert (data["x"].shape, data["num_words"], data["context"]) == ((1797, 8), 253, 8)
    bits = np.unpackbits(load("digit_rows").astype(np.uint8)[..., None], axis=2)
    np.testing.assert_array_equal(bits, digits())


GOOD = np.array([[0, 1, 2, 1], [2, 1, 0, 0]])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"x": GOOD - 1}, r"x\[0, 0\] is -1; expected tokens, whole numbers from 0"),
        ({"x": GOOD + 0.5}, r"x\[0, 0\] is 0.5; expected tokens, whole numbers from 0"),
        ({"x": GOOD, "num_words": 2}, r"x\[0, 2\] is 2; expected tokens, whole numbers from 0 to 1, the 2 words"),
        ({"x": GOOD, "context": 3}, "Rows of x have 4 tokens, longer than context=3"),
        ({"x": GOOD, "context": 8}, "Rows of x have 4 tokens, shorter than context=8"),
        ({"x": GOOD[None]}, r"x has shape \(1, 2, 4\); expected rows of tokens"),
        ({"x": GOOD, "width": 30, "num_heads": 4}, "width is 30 and num_heads 4; expected a multiple"),
        ({"x": GOOD, "depth": 0}, "depth is 0; expected a whole number"),
        ({"x": GOOD, "alphabet": "ab", "num_words": 3}, "alphabet has 2 characters and num_words is 3"),
        ({"x": "a text"}, "x is a string; expected rows of tokens. Of a text pass the file"),
        (GOOD[0], r"The rows have shape \(4,\); expected \(row, token\)"),
    ],
)
def test_what_is_no_token_is_refused(data, told):
    with pytest.raises(ValueError, match=told):
        pg.fit("transformer", data, **QUIET)


def test_what_is_known_of_a_row_is_checked():
    data = {"x": grammar.sentences(100, 16), "width": 8, "num_heads": 2}
    begun = pg.fit("transformer", data, num_steps=2, batch_size=32, **QUIET)
    for value in (7, -1, 0.5):
        row = np.r_[value, np.full(15, np.nan)]
        with pytest.raises(
            ValueError, match=rf"x\[0\] is {value}; site 'x' \(Autoregressive\) has integers from 0 to 6"
        ):
            begun.condition(x=row)
