"""The command line says the words of Python, and bad input in one message with exit code 2."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import python

import probgen as pg
from probgen import catalog, datasets
from probgen.algorithm import Incompatible
from probgen.cli import main
from probgen.cli.flags import COMMANDS, _parse
from probgen.cli.words import _data
from probgen.run import conditioned, offers

QUICK = ["--num-samples=200", "--num-chains=2", "--no-progress"]
PROGRAM = """
import numpyro, numpyro.distributions as dist

def line(x, degree, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([degree]).to_event(1))
    numpyro.sample("y", dist.Normal(sum(w[i] * x**i for i in range(degree)), 1.0), obs=y)
"""


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    """Run a command in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        try:
            code = main(words)
        except SystemExit as leave:
            code = leave.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Eight schools, fitted once."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main(["fit", "eight_schools", "--out", str(folder), *QUICK]) == 0
    return folder


def test_a_reader_that_goes_is_no_error():
    words = [sys.executable, "-c", "import sys; from probgen.cli import main; sys.exit(main(['list']))"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        listing.stdout.close()  # as of `probgen list | true`
        _, said = listing.communicate(timeout=300)
    assert (listing.returncode, said) == (141, "")


def test_fit_says_the_verdict_the_summary_and_where_the_run_is(say):
    code, out, _ = say("fit", "eight_schools", "--seed=3", "--inference=hmc", "--max-steps=20", *QUICK)
    assert code == 0
    assert out.splitlines()[0].startswith(("pass", "warn", "fail"))
    assert "theta[A]" in out
    assert "runs/eight_schools-hmc" in out
    fit = pg.load("runs/eight_schools-hmc")
    assert (fit.seed, fit.inference.max_steps, fit.z.shape[:2]) == (3, 20, (2, 200))
    again = pg.fit("eight_schools", None, "hmc", seed=3, max_steps=20, num_samples=200, num_chains=2)
    assert np.array_equal(fit.z, again.z)
    assert say("fit", "eight_schools", "--inference=hmc", *QUICK)[0] == 0
    assert pg.load("runs/eight_schools-hmc-2").seed == 0


def test_an_existing_run_is_refused_with_the_ways_on(say, run_folder):
    code, _, err = say("fit", "eight_schools", "--out", str(run_folder))
    assert code == 2
    assert "--overwrite" in err
    assert f"probgen resume {run_folder}" in err


def test_a_model_takes_its_own_settings(say):
    words = ("fit", "rbm", "-i", "cd", "--data", "digits", "--num-steps", "20", "--out", "small")
    code, _, err = say(*words, "--set", "num_hidden=3")
    assert code == 0, err
    assert pg.load("small").answer["W"].shape == (64, 3)
    code, _, err = say(*words[:-1], "other", "--set", "num_hiden=3")
    assert code == 2
    assert "num_hidden" in err
    code, _, err = say(*words[:-1], "other", "--set", "num_hidden")
    assert code == 2
    assert "NAME=VALUE" in err
    code, _, err = say("fit", "eight_schools", "--set", "sigma=[1, 2, 3, 4, 5, 6, 7, 8]", "--out", "schools", *QUICK)
    assert code == 0, err
    np.testing.assert_array_equal(pg.load("schools").target.data["sigma"], np.arange(1.0, 9))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_program_of_ones_own_with_data_of_ones_own(say, tmp_path, suffix):
    (tmp_path / "mine.py").write_text(PROGRAM)
    data = {"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 3.0, 5.0, 7.0], "degree": 2}
    np.savez(tmp_path / "data.npz", **data)
    (tmp_path / "data.json").write_text(json.dumps(data))
    code, out, _ = say("fit", "mine.py:line", "-i", "hmc", "--data", f"data{suffix}", "--out", "run", *QUICK)
    assert code == 0, out
    assert "w[1]" in out
    assert say("resume", "run", "--no-progress")[0] == 0
    before = pg.load("run").z
    code, out, _ = say("extend", "run", "--num-samples", "7", "--no-progress")
    assert code == 0, out
    np.testing.assert_array_equal(pg.load("run").z[:, :-7], before)
    assert say("sample", "run")[1].startswith("y (1, 4)")


def test_rows_of_an_npy_file_are_data(say, tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "rows.npy", rows)
    code, _, err = say("fit", "gaussian", "-i", "mle", "--data", "rows.npy", "--out", "run", "--no-progress")
    assert code in (0, 1), err  # the verdict's
    np.testing.assert_allclose(pg.load("run").answer["loc"], rows.mean(0), atol=0.1)


def test_sample_diagnose_report(say, run_folder):
    code, out, _ = say("sample", str(run_folder), "-n", "10", "-o", "x.npz")
    assert (code, out.strip()) == (0, "x.npz: y (10, 8)")
    assert np.load("x.npz")["y"].shape == (10, 8)
    code, out, _ = say("diagnose", str(run_folder))
    verdict = pg.load(run_folder).diagnose()
    assert (code, out.strip()) == (verdict.exit_code, str(verdict))
    assert say("report", str(run_folder), "-o", "fit.html")[0] == 0
    with open("fit.html") as page:
        assert "eight_schools" in page.read()


def test_files_that_are_there_are_left_as_they_are(say, run_folder, tmp_path):
    for words, name in (
        (("sample", str(run_folder)), "x.npz"),
        (("report", str(run_folder)), "page.html"),
        (("evaluate", str(run_folder), "-n", "40", "--measures", "fid"), "x.json"),
    ):
        (tmp_path / name).write_text("mine")
        code, _, err = say(*words, "-o", name)
        assert code == 2
        assert f"{name} exists already. Choose another file, or pass --overwrite." in err
        assert (tmp_path / name).read_text() == "mine"
        assert say(*words, "-o", name, "--overwrite")[0] == 0
        assert (tmp_path / name).read_bytes() != b"mine"
    (tmp_path / "page.html").write_text("mine")
    for words in (
        ("fit", "eight_schools", "--out", "new", *QUICK),
        ("resume", str(run_folder)),
        ("extend", str(run_folder), "--num-samples", "5"),
        ("compare", str(run_folder), str(run_folder)),
    ):
        code, _, err = say(*words, "--report", "page.html")
        assert code == 2
        assert "page.html exists already" in err
    assert not (tmp_path / "new").exists(), "said before anything runs"
    assert (tmp_path / "page.html").read_text() == "mine"


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A generator of points of a class, learned for a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "classes.py").write_text(CLASSES)
    rng = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=rng.normal(size=(60, 2)), label=np.arange(60) % 3)
    words = ["--num-steps=2", "--batch-size=8", "--no-progress", "--out", str(folder / "run")]
    assert main(["fit", f"{folder}/classes.py:program", "-i", "gan", "--data", f"{folder}/rows.npz", *words]) == 0
    return folder / "run"


CLASSES = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist

def program(label, x=None):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    at = numpyro.param("at", 100.0 * jnp.arange(3.0))
    numpyro.sample("x", dist.Delta(at[label] + z, event_dim=1), obs=x)
"""


def test_inputs_and_truncation_of_draws_are_flags(say, classes):
    for flags in (["--label", "2"], ["--label=2"], ["--given", "label=2"]):
        code, _, err = say("sample", str(classes), "-n", "5", *flags, "-o", "x.npz", "--overwrite")
        assert code == 0, err
        assert abs(np.load("x.npz")["x"] - 200).max() < 10
    assert say("sample", str(classes), "-n", "3", "--label", "[0,1,2]", "-o", "each.npz")[0] == 0
    assert np.round(np.load("each.npz")["x"].mean(1) / 100).tolist() == [0, 1, 2]
    np.save("labels.npy", np.array([2, 0]))
    assert say("sample", str(classes), "-n", "2", "--label", "labels.npy", "-o", "file.npz")[0] == 0
    assert np.round(np.load("file.npz")["x"].mean(1) / 100).tolist() == [2, 0]
    assert say("sample", str(classes), "-n", "200", "--label", "1", "--truncation", "0.1", "-o", "cut.npz")[0] == 0
    assert abs(np.load("cut.npz")["z"]).max() <= 0.1
    assert say("sample", str(classes), "-n", "90", "-o", "any.npz")[0] == 0
    assert set(np.load("any.npz")["label"]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--labl", "2"], "Unknown flag '--labl' of probgen sample for this run; its inputs are label"),
        (["--num-sample", "2"], "Unknown flag '--num-sample' of probgen sample. Did you mean '--num-samples'?"),
        (["--given", "label"], "--given takes NAME=VALUE; got 'label'"),
        (["--label", "0.5"], "label holds whole numbers"),
        (["--truncation", "0.5"], "A point is drawn given label: say label=..."),
    ],
)
def test_flags_of_draws_that_do_not_fit(say, classes, flags, told):
    code, _, err = say("sample", str(classes), *flags)
    assert code == 2
    assert told in err


def test_draws_of_a_posterior_have_no_inputs(say, run_folder):
    assert "its program has no inputs" in say("sample", str(run_folder), "--label", "3")[2]
    assert "--truncation is for programs without a density" in say("sample", str(run_folder), "--truncation", "1")[2]


def test_two_data_sets_are_said_with_a_comma(say, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4)))
    assert _data(Path("digits,inverted_digits")) == ("digits", "inverted_digits")
    named, rows = _data(Path("digits,a.npy"))
    assert (named, rows.shape) == ("digits", (3, 4, 4))
    _, target = conditioned("cycle_gan", _data(Path("digits,inverted_digits")))
    assert [len(target.data[k]) for k in "ab"] == [1797, 898]
    assert "Unknown data set 'invertd'" in say("fit", "cycle_gan", "--data", "digits,invertd", "--out", "other")[2]
    assert "gives 1 of 2 arrays" in say("fit", "cycle_gan", "--data", "digits", "--out", "other")[2]


def test_data_sets_are_listed(say):
    code, out, _ = say("list", "--data")
    assert code == 0
    for name in datasets.SETS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 5


def test_an_energy_is_learned_sampled_and_reported(say):
    words = ("fit", "rbm", "-i", "pcd", "--data", "digits", "--num-steps=300", "--out", "run", "--no-progress")
    code, out, err = say(*words, "--report", "page.html")
    assert code == 0, err
    assert "rollbacks" in out
    assert re.search(r"^W +64x16", out, re.MULTILINE)
    assert say("sample", "run", "-n", "5", "-o", "x.npz")[0] == 0
    assert np.load("x.npz")["v"].shape == (5, 64)
    with open("page.html") as page:
        text = page.read()
    assert all(f">{title}<" in text for title in ("Parameters", "Loss", "Gap", "Filters"))
    code, out, _ = say("compare", "run", "run")
    assert "log_prob" in out


def test_compare_runs_and_compare_algorithms(say, run_folder, tmp_path):
    code, out, _ = say("compare", str(run_folder), str(run_folder), "--no-progress")
    assert code == 0
    assert out.count(str(run_folder)) >= 1
    words = ("compare", "eight_schools", "--inference", "laplace", "hmc", "--out", "both", "--report", "c.html")
    code, out, _ = say(*words, "--no-progress")
    assert code == 0, out
    assert "laplace" in out
    assert (tmp_path / "both" / "hmc" / "run.json").exists()
    assert (tmp_path / "c.html").exists()


@pytest.mark.slow
def test_compare_fits_side_by_side(say, tmp_path):
    words = ("compare", "eight_schools", "--inference", "laplace", "random_walk", "--out", "both", "--num-workers", "2")
    code, out, _ = say(*words, "--no-progress")
    assert code == 0, out
    assert {line.split()[0] for line in out.splitlines()[1:3]} == {"laplace", "random_walk"}
    assert len(list(tmp_path.glob("both/*/run.json"))) == 2
    assert say(*words, "--no-progress")[1] == out


def test_compare_side_by_side_needs_fits_and_a_folder(say, run_folder):
    assert "needs --out DIR" in say("compare", "eight_schools", "--inference", "laplace", "--num-workers", "2")[2]
    assert "is of fits, with --inference" in say("compare", str(run_folder), str(run_folder), "--num-workers", "2")[2]


def test_list_names_everything_with_a_line_each(say):
    code, out, _ = say("list")
    assert code == 0
    models, inference = out.split("\nInference\n")
    for group, part in (("probgen.models", models), ("probgen.inference", inference)):
        for word in catalog.modules(group):
            (line,) = [line for line in part.splitlines() if line.split()[:1] == [word]]
            assert len(line.split()) > 2, f"{word} has no docstring"


def test_show(say):
    _, out, _ = say("show", "eight_schools")
    for part in ("mu ~ N(0, 5)", "def eight_schools(sigma, y=None)", "y: float64 (8,)", "theta: deterministic", "nuts"):
        assert part in out
    _, out, _ = say("show", "nuts")
    for part in ("Hoffman", "num_warmup", "target_accept", "Continuous"):
        assert part in out
    _, out, _ = say("show", "cycle_gan")
    for part in ("def guide(b", "def critic(a=None, b=None", "Inference that fits, best first: cycle_gan"):
        assert part in out
    _, out, _ = say("show", "dcgan")
    for part in ("def critic(x", "Settings that suit it", "num_steps = 4000", "r1 = 0.3"):
        assert part in out


@pytest.mark.parametrize(
    ("tried", "names"), [(False, ("rbm", "gaussian", "eight_schools_pyro")), (True, ("gaussian",))]
)
def test_matrix_is_that_of_python(say, monkeypatch, tried, names):
    """Of a few models: all of them take half a minute. A mark by type that a trial takes away is refused by a fit."""
    modules, matrix, made = catalog.modules, offers.matrix, []
    few = {k: v for k, v in modules("probgen.models").items() if k in names}
    monkeypatch.setattr(offers, "modules", lambda group: few if group == "probgen.models" else modules(group))
    monkeypatch.setattr(offers, "matrix", lambda engine, tried: made.append(matrix(engine, tried=tried)) or made[-1])
    code, out, _ = say("matrix", "--engine", "numpyro", *(["--tried"] if tried else []))
    (table,) = made
    assert code == 0
    assert ("By type" in out) is not tried
    assert (sorted(table.model.values), table.attrs["by"]) == (
        sorted({*names} - {"eight_schools_pyro"}),
        "trial" if tried else "type",
    )
    parts = [block.partition(":\n")[::2] for block in out.split("\n\n") if ":\n" in block]
    names_of = lambda text: {name.strip() for name in text.split(",")}  # noqa: E731
    found = {name: names_of(words) for models, words in parts for name in names_of(models)}
    assert found == {str(name): {*table.inference.values[table.sel(model=name).values]} for name in table.model.values}
    if tried:
        typed = matrix("numpyro")
        assert (typed.values | ~table.values).all()
        assert table.sel(model="gaussian", inference="mle")
        refused = [str(w) for w in typed.inference.values[typed.values[0] & ~table.values[0]]]
        for word in refused[:2]:
            with pytest.raises((Incompatible, ValueError)):
                pg.fit("gaussian", inference=word, progress=False)
        assert refused


@pytest.mark.parametrize("command", COMMANDS)
def test_help(say, command):
    code, out, _ = say(command, "--help")
    assert code == 0
    examples = re.findall(rf"^probgen {command} .+", out, re.MULTILINE)
    assert examples
    for example in examples:
        assert type(_parse(example.split()[1:])).__name__.startswith(COMMANDS[command].__name__)


@pytest.mark.parametrize("word", list(catalog.modules("probgen.inference")))
def test_help_of_fit_lists_the_settings_of_the_inference_with_their_meaning(say, word):
    code, out, _ = say("fit", "--inference", word, "--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    for name in (field.name for field in dataclasses.fields(catalog.algorithm(word))):
        flag = f"--{name.replace('_', '-')}"
        (told,) = re.findall(rf"{flag}(?:, --no-\S+)? (?:\S+ )??\(?(default|.)", text) or [""]
        assert told not in ("", "default"), f"{name} is not explained"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "eight_scools"], "Unknown model 'eight_scools'. Did you mean 'eight_schools'?"),
        (["fit", "eight_schools", "-i", "nutz"], "Unknown inference 'nutz'. Did you mean 'nuts'?"),
        (["fit", "eight_schools", "--num-sample=3"], "Did you mean '--num-samples'?\nKnown: --inference, --data"),
        (["fit", "eight_schools", "--num-samples=-3"], "num_samples is -3; it must be above 0"),
        (["fit", "eight_schools", "--data", "no.npz"], "No such file or directory: 'no.npz'"),
        (["fit", "eight_schools", "--data", "no.dat"], "no.dat: expected .npz, .json, .csv or .parquet, or rows"),
        (["fit", "no.py:program"], "There is no file no.py"),
        (["fit", "no.py"], "Which function of no.py? Say no.py:NAME"),
        (["show", "nutz"], "Unknown model or algorithm 'nutz'. Did you mean 'nuts'?"),
        (["resume", "nowhere"], "nowhere holds no run"),
        (["diagnose", "nowhere"], "nowhere holds no run"),
        (["extend", "nowhere", "--num-samples", "5"], "nowhere holds no run"),
        (["sample", "nowhere", "-n", "0"], "num_samples is 0; it must be above 0"),
        (["sample", "nowhere", "-o", "x.csv"], "x.csv is not an .npz file"),
        (["compare", "nowhere"], "Compare needs two or more runs"),
        (["compare", "a", "b", "--inference", "nuts"], "--inference fits one model; got 2"),
        (["list", "more"], "Unexpected 'more'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(say, tmp_path, words, message):
    code, out, err = say(*words)
    assert code == (64 if words[0] == "diagnose" else 2)  # whose 2 is a failed verdict
    assert err.startswith("probgen: ")
    assert message in err
    assert "Traceback" not in err + out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["fit"], ["fit", "eight_schools", "--num-samples", "many"]])
def test_words_that_cannot_be_parsed(say, words):
    code, out, err = say(*words)
    assert code == (0 if not words else 2)
    assert "Traceback" not in err + out


def test_what_is_no_verdict_has_no_code_of_one(say):
    assert say("diagnose")[0] == 64
    assert say("diagnose", "nowhere", "--flag")[0] == 64
    assert say("diagnose", "--help")[0] == 0


def test_debug_shows_the_traceback(say, monkeypatch):
    with pytest.raises(ValueError, match="Unknown model"):
        say("fit", "eight_scools", "--debug")
    monkeypatch.setenv("PROBGEN_DEBUG", "1")
    with pytest.raises(ValueError, match="Unknown model"):
        say("fit", "eight_scools")


def test_version_from_the_shell():
    done = python("-c", "import sys; from probgen.cli import main; sys.exit(main())", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("probgen ")
