"""Texts learned by characters: windows, the end held out, strings given and read back, and what is refused."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probgen as pg
from probgen.cli import main
from probgen.data.values.series import overlapping, step
from probgen.data.values.text import read_back, spelled, windows
from probgen.nets.autoregressive import Autoregressive
from probgen.nets.tokens import next_token
from probgen.nets.tokens.next_token import NextToken

QUIET = {"progress": False}
SMALL = {"width": 16, "depth": 1, "num_heads": 2}


def story(count=600):
    rng = np.random.default_rng(0)
    return " ".join(rng.choice(["the cat", "sat", "on a mat.", "Yes!\n"], count))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A small run on a text file, written to a directory."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "story.txt").write_text(story())
    text = np.array(list((folder / "story.txt").read_text()))
    data = windows(text, 16) | SMALL
    return pg.fit("transformer", data, num_steps=150, batch_size=16, out=folder / "run", **QUIET)


# ---- windows -----------------------------------------------------------------------------------------------------


def test_windows_are_pieces_of_the_text(monkeypatch):
    text = np.array(list(story()))
    cut = windows(text, 20)
    assert cut["alphabet"] == "".join(sorted(set(story())))
    assert read_back(cut["x"], cut["alphabet"]) == [story()[i : i + 20] for i in range(len(text) - 19)]
    assert (step(cut["x"]), overlapping(cut["x"])) == (1, 19)
    monkeypatch.setattr("probgen.data.values.text.MOST", 1000)
    few = windows(text, 20)
    by = step(few["x"])
    assert by == -(-(len(text) - 19) // 1000)
    assert read_back(few["x"][-1:], few["alphabet"]) == [story()[-20:]]
    assert overlapping(few["x"]) == -(-20 // by) - 1


def test_rows_that_are_no_windows_are_not_taken_for_such():
    from probgen.datasets import load

    for name in ("digits", "bars_and_stripes", "grammar", "two_moons", "digit_rows"):
        rows = load(name)
        assert overlapping(rows.reshape(len(rows), -1)) == 0, name


def test_the_end_is_held_out_and_nothing_learned_overlaps_it(learned):
    """By the state of the run: of the windows' places in the text."""
    from probgen.inference.likelihood.mle import MLE

    state = jax.eval_shape(lambda key: MLE(validation=0.1).init(key, learned.target), jax.random.key(0))
    rows, held = learned.target.num_rows, int(0.1 * learned.target.num_rows)
    assert state.order.shape == (rows - held - 15,)
    found = jax.jit(lambda key: MLE(validation=0.1).init(key, learned.target))(jax.random.key(0))
    last, first = np.asarray(found.chains.rows), np.asarray(found.order)
    assert np.array_equal(np.sort(last), np.arange(rows - held, rows))
    assert np.array_equal(np.sort(first), np.arange(rows - held - 15))
    assert first.max() + 16 <= last.min(), "no character of the end is learned from"
    assert not np.array_equal(first, np.sort(first))
    assert "windows of one series" in str(learned.diagnose())


# ---- strings -----------------------------------------------------------------------------------------------------


def test_strings_are_given_and_read_back(learned):
    assert type(learned).__name__ == "TextFit"
    texts = learned.text(5, seed=1)
    assert [len(t) for t in texts] == [16] * 5
    assert set("".join(texts)) <= set(learned.alphabet)
    assert texts == read_back(learned.sample(5, seed=1)["x"], learned.alphabet)
    assert all(t.startswith("the c") for t in learned.text(4, begin="the c"))
    long = learned.text(2, begin="sat", length=50)
    assert [len(t) for t in long] == [50, 50]
    assert long[0][:3] == "sat"
    assert long[0] != long[1]
    longer = learned.text(1, begin=story()[:30], length=40)
    assert longer[0].startswith(story()[:30])


def test_every_stretch_of_a_long_text_has_noise_of_its_own(learned, monkeypatch):
    """Else texts of seeds after one another go on alike: the second stretch of one was the first of the next."""
    used = []
    drawn = type(learned)._drawn
    monkeypatch.setattr(type(learned), "_drawn", lambda self, *a: used.append(a[2]) or drawn(self, *a))
    for seed in (1, 2, 3):
        learned.text(2, seed=seed, length=40)
    assert len(used) == 3 * (1 + 2 * 3)
    assert len(set(used)) == len(used)


def test_a_beginning_is_a_string(learned):
    with pytest.raises(TypeError, match=r"begin is \['a'\]; expected a string"):
        learned.text(begin=["a"])


def test_a_short_text_has_the_probability_of_all_that_begin_with_it(learned):
    """log p of a prefix against the sum over what may follow, and the chain of conditionals."""
    whole = story()[:16]
    every = [whole[:15] + c for c in learned.alphabet]
    p = np.exp(np.asarray(learned.log_prob(every).value, float))
    assert learned.log_prob(whole[:15]).value[0] == pytest.approx(np.log(p.sum()), abs=1e-4)
    tokens = np.stack([spelled(whole, learned.alphabet, 16)])
    assert learned.log_prob(whole).value == pytest.approx(learned.log_prob(tokens).value, abs=1e-5)
    assert np.exp(np.asarray(learned.log_prob(list(learned.alphabet)).value, float)).sum() == pytest.approx(1, abs=1e-5)


def test_a_saved_run_reads_texts(learned, capsys, tmp_path):
    again = pg.load(learned.directory)
    assert again.text(2, seed=3) == learned.text(2, seed=3)
    assert main(["sample", str(learned.directory), "--begin", "Yes", "-n", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("Yes") >= 2
    assert main(["sample", str(learned.directory), "-o", str(tmp_path / "new.txt"), "--length", "40"]) == 0
    assert len((tmp_path / "new.txt").read_text()) == 41


def test_the_shell_learns_from_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(story(200))
    words = [
        "fit",
        "transformer",
        "--data",
        "story.txt",
        "--inference",
        "mle",
        "--num-steps",
        "20",
        "--batch-size",
        "8",
    ]
    assert main([*words, "--set", "context=12", "width=16", "depth=1", "num_heads=2", "--out", "run"]) == 0
    assert pg.load("run").target.visible[0].shape == (12,)


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_what_the_text_has_not_is_refused(learned):
    with pytest.raises(
        ValueError, match=r"The text has 'ü' at \[3\], which the text that was learned from does not have"
    ):
        learned.log_prob("matü")
    with pytest.raises(ValueError, match="The text has 17 characters; expected at most 16"):
        learned.log_prob(story()[:17])
    with pytest.raises(ValueError, match="'Q'"):
        learned.condition(x="Q")
    with pytest.raises(ValueError, match="'Q'"):
        learned.text(begin="Q")
    with pytest.raises(ValueError, match="length is 2; expected at least 3"):
        learned.text(begin="sat", length=2)
    with pytest.raises(ValueError, match="integers from 0 to"):
        learned.log_prob(np.full((1, 16), 99))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"too short", "The text has 9 characters; expected at least 128, two windows of context=64"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"ab" * 66, "none are left to learn from"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, told):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        pg.fit("transformer", str(tmp_path / "mine.txt"), **QUIET)


def test_a_missing_file_and_another_model_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file 'none.txt'"):
        pg.fit("transformer", "none.txt", **QUIET)
    (tmp_path / "mine.txt").write_text(story())
    with pytest.raises(
        TypeError, match="is a text, and pixelcnn learns from rows of numbers; 'transformer' takes a text"
    ):
        pg.fit("pixelcnn", str(tmp_path / "mine.txt"), **QUIET)


# ---- many rows at once -------------------------------------------------------------------------------------------


def test_gradients_of_many_rows_are_those_of_each():
    """Rows in one product of matrices against one row after the other; one row alone has a gradient too."""
    net = NextToken(jax.random.key(0), 5, 8, 16, 2, 2)
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 5, (6, 8)), jnp.float32)
    at_once = jax.jit(jax.grad(lambda net: Autoregressive(net).log_prob(rows).sum()))(net)
    one = jax.jit(jax.grad(lambda net, x: Autoregressive(net).log_prob(x)))
    each = [one(net, x) for x in rows]
    summed = jax.tree.map(lambda *parts: sum(parts), *each)
    for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_rows_in_parts_are_those_at_once(monkeypatch):
    """Where all at once would take too much memory: values and gradients, seven rows in parts of two."""
    net = NextToken(jax.random.key(0), 5, 8, 16, 2, 2)
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 5, (7, 8)), jnp.float32)
    of_rows = jax.value_and_grad(lambda net: (Autoregressive(net).log_prob(rows) * jnp.arange(7)).sum())
    whole = jax.jit(of_rows)(net)
    monkeypatch.setattr(next_token, "LARGEST", 2 * 8 * (2 * 8 + 4 * 16))
    jax.clear_caches()
    parts = jax.jit(of_rows)(net)
    assert "while" in jax.jit(of_rows).lower(net).as_text()
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_a_run_too_short_for_a_look_at_held_out_rows_has_learned():
    """Its answer is not where it began."""
    rows = np.tile([0.0, 1.0], (200, 4))
    rows[::3] = 1 - rows[::3]
    fit = pg.fit("transformer", {"x": rows} | SMALL, num_steps=60, learning_rate=0.01, **QUIET)
    assert fit.log_prob().value.mean() > -3 > 8 * np.log(0.5)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    page = (Path(__file__).parent.parent / "docs" / "transformers.md").read_text()
    for block in re.findall("```python\n(.*?)```", page, re.S):
        exec(compile(block, "docs/transformers.md", "exec"), names)
    assert names["fit"].text(1, begin="a")[0].startswith("a")


def test_rows_of_tokens_are_no_pictures(learned):
    """Sixteen characters are no picture of four by four, and the figure has the text."""
    figure = learned.plot("samples")
    told = [t.get_text() for t in figure.axes[0].texts]
    assert len(told) == 12
    assert all(len(t) >= 16 for t in told)
    assert learned.plot("new rows").axes[0].texts
    with pytest.raises(ValueError, match="picture"):
        learned.plot("completions")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (np.array(["the", "cat", "sat"] * 100), "x\\[0\\] is 'the'; expected characters"),
        (np.array([list("abc")] * 9), "strings of shape \\(9, 3\\); expected the characters of one text"),
        ({"x": np.eye(3), "alphabet": "aa"}, "alphabet has 'a' twice"),
        ({"x": np.eye(3), "alphabet": 7}, "alphabet is 7; expected a string"),
        ({"x": np.eye(3), "alphabet": ["a", "b"]}, "alphabet is .* expected a string"),
        ({"x": np.eye(3), "context": "3"}, "context"),
    ],
)
def test_words_and_alphabets_that_are_none_are_refused(data, told):
    with pytest.raises((ValueError, TypeError), match=told):
        pg.fit("transformer", data, num_steps=1, **QUIET)
