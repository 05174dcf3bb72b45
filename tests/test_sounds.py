"""WaveNet: its field and order, windows, draws from what is kept, a waveform of known entropy, files, and what is refused."""

import dataclasses
import re
import wave
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import wavfile
from scipy.stats import norm

import probgen as pg
from probgen import runtime
from probgen.catalog import model
from probgen.cli import main
from probgen.data.values import sounds
from probgen.diagnostics.baselines import _baseline
from probgen.evaluate.sounds import heard
from probgen.nets.pixel_networks import at_random
from probgen.nets.waves.dilated import Dilated
from probgen.nets.waves.heads import Classes, Mixture
from probgen.nets.waves.wave import Wave

BLOCKS, LAYERS, LENGTH, LEVELS = 2, 3, 24, 32
FIELD = sounds.field_of(BLOCKS, LAYERS)
HEADS = {"classes": Classes(LEVELS), "mixture": Mixture(LEVELS, 3, 15.5, 6.0)}


def series(n, seed=0):
    return np.random.default_rng(seed).integers(0, LEVELS, n).astype(np.float32)


@pytest.fixture(scope="module", params=HEADS)
def stretch(request):
    """A network of random numbers after a context of random levels."""
    head = HEADS[request.param]
    net = at_random(jax.random.key(1), Dilated(head.num_outputs, BLOCKS, LAYERS, 8, 8))
    return Wave(net, jnp.asarray(series(FIELD)), head, LENGTH, 15.5, 6.0)


def outputs(stretch, seen):
    """What follows each sample of a series that is seen whole, from the first with a whole field on."""
    return np.asarray(jax.jit(lambda net, x: net((x - 15.5) / 6.0))(stretch.net, jnp.asarray(seen)))


def test_an_output_depends_on_its_field_and_on_nothing_later(stretch):
    seen, t = series(FIELD + 2 * LENGTH), FIELD + LENGTH
    assert FIELD == stretch.net.field == 2 + BLOCKS * (2**LAYERS - 1)
    before = outputs(stretch, seen)
    changed = outputs(stretch, np.where(np.arange(len(seen)) == t, (seen + 7) % LEVELS, seen))
    differs = (before != changed).any(1)
    at = np.arange(len(before)) + FIELD - 1  # the sample after which an output is
    assert not differs[at < t].any()
    assert not differs[at >= t + FIELD].any()
    assert differs[at == t].all()
    assert differs[at == t + FIELD - 1].all()


def test_the_distribution_sums_to_one_and_agrees_with_its_draws():
    x, levels = jnp.arange(float(LEVELS)), np.arange(LEVELS)
    for head in HEADS.values():
        outputs = 0.7 * jax.random.normal(jax.random.key(3), (head.num_outputs,))
        p = np.exp(np.asarray(jax.vmap(lambda x, out=outputs, head=head: head.log_prob(out, x))(x), float))
        assert abs(p.sum() - 1) < 1e-5
        uniform = jax.random.uniform(jax.random.key(4), (40_000, head.num_uniforms))
        drawn = np.asarray(jax.jit(jax.vmap(lambda u, out=outputs, head=head: head.draw(out, u)))(uniform))
        shares = (drawn[:, None] == levels).mean(0)
        assert np.abs(shares - p).max() < 5 * np.sqrt(0.25 / 40_000)


def test_draws_from_what_is_kept_are_those_of_the_whole_field(stretch):
    """In double precision, where rounding does not tell levels apart, on three windows' length."""
    with runtime.jax_scope("float64"):
        wide = jax.tree.map(lambda x: jnp.asarray(x, "float64"), dataclasses.replace(stretch, length=3 * LENGTH))
        key, nothing = jax.random.key(5), jnp.zeros(wide.length)
        drawn = np.asarray(jax.jit(lambda w: w.complete(key, nothing, nothing > 0))(wide))
        uniform = jax.random.uniform(key, (wide.length, wide.head.num_uniforms))
        one = jax.jit(lambda seen, u: wide.head.draw(wide.net((seen - 15.5) / 6.0)[0], u))
        seen = list(np.asarray(wide.context))
        for t in range(wide.length):
            seen.append(float(one(jnp.asarray(seen[-FIELD:]), uniform[t])))
        np.testing.assert_array_equal(drawn, seen[FIELD:])
        assert len(set(drawn)) > 5
        known = jnp.arange(wide.length) < 9
        assert (wide.complete(key, jnp.where(known, 3.0, 0.0), known)[:9] == 3).all()


@pytest.mark.parametrize("length", [1, 5, 24, 60])
def test_the_density_of_a_series_is_the_same_however_it_is_cut(stretch, length):
    """The sum over windows is that of the conditionals, one by one, of all samples but the first of the field."""
    whole = series(FIELD + 120, seed=2)
    after = outputs(stretch, whole[:-1])
    exact = np.asarray(stretch.head.log_prob(jnp.asarray(after), jnp.asarray(whole[FIELD:])), float)
    cut = sounds.windows(whole, FIELD, length)
    assert cut["x"].size == 120
    total = 0.0
    for context, x in zip(cut["context"], cut["x"], strict=True):
        total += float(
            Wave(stretch.net, jnp.asarray(context), stretch.head, length, 15.5, 6.0).log_prob(jnp.asarray(x))
        )
    assert abs(total - exact.sum()) < 1e-4 * abs(exact.sum())


@pytest.fixture(scope="module")
def fit():
    return pg.fit("wavenet", inference="mle", num_steps=700, learning_rate=0.01, progress=False)


@pytest.fixture(scope="module")
def begun():
    """A run that is long enough for two looks at what is held out, and learns little."""
    return pg.fit("wavenet", inference="mle", num_steps=200, learning_rate=0.01, progress=False)


def test_a_resonance_takes_the_bits_of_its_entropy_rate(fit):
    """On fresh samples, beside the process itself, whose -log2 p has a standard error of 1 / (sqrt(2) log(2) 245) = .0042 bits."""
    x = sounds.resonance(60_000, seed=9)
    settings = {"num_blocks": 1, "num_layers": 4, "length": 128}
    fresh = model("wavenet").rows(x, 8000, sounds.LEVELS, "linear", **settings)
    found = fit.log_prob(context=fresh["context"], x=fresh["x"])
    edges, (a, b) = np.floor((x + 1) * 512)[2:, None] / 512 - 1 + np.array([0, 2 / 1024]), sounds.COEFFICIENTS
    below, above = norm.cdf((edges - (a * x[1:-1] + b * x[:-2])[:, None]) / (2 * 16 / 1024)).T
    exact = -np.log2(above - below).mean()
    assert found.stderr == 0
    assert abs(exact - sounds.ENTROPY) < 0.013
    assert exact - 0.005 < -found.value.mean() / 128 / np.log(2) < exact + 0.03


def test_draws_sound_like_the_recording_and_go_on_after_a_context(fit):
    """The spread of 12,800 drawn samples, whose standard error is about 2 %, and their correlation at the resonance's lags."""
    found, resonance = heard(fit, 100).waveform, sounds.resonance(12_800, seed=3)
    assert abs(np.log(found.std() / resonance.std())) < 0.1
    for lag in (1, 2, 4):
        ours, theirs = (np.corrcoef(x[:-lag], x[lag:])[0, 1] for x in (found, resonance))
        assert abs(ours - theirs) < 0.06
    (a, b), contexts = sounds.COEFFICIENTS, np.asarray(fit.target.data["context"])
    loud = contexts[np.argmax(abs(contexts[:, -1] - 511.5))]
    for context, next_mean in ((None, 511.5), (loud, 511.5 + a * (loud[-1] - 511.5) + b * (loud[-2] - 511.5))):
        drawn = fit.sample(400, **({} if context is None else {"context": context}))["x"][:, 0]
        assert abs(drawn.mean() - next_mean) < 6  # of innovations of 16 levels
        assert abs(drawn.std() - 16) < 3


def test_the_kind_of_number_says_what_is_given(begun):
    assert begun.log_prob().kind == "exact: the program is a probability, given context"
    with pytest.raises(ValueError, match=r"context holds whole numbers .* context\[0, 0\] is 0.5"):
        begun.log_prob(x=np.full((1, 128), 5), context=np.full((1, 17), 0.5))
    with pytest.raises(ValueError, match=r"from 0 to 1023; x.0, 0. is 1024"):
        begun.log_prob(x=np.full((1, 128), 1024), context=np.full((1, 17), 5))
    beyond = np.full(17, 1024)
    assert np.isnan(begun.log_prob(x=np.full((1, 128), 5), context=beyond[None]).value).all()
    assert np.isnan(begun.sample(1, context=beyond)["x"]).all()
    with pytest.raises(ValueError, match="NaN"):
        heard(begun, 1, context=beyond)


def test_the_last_windows_are_held_out(begun):
    """The best loss of held-out rows is that of the fit's answer on the last tenth."""
    x, context = begun.target.all_rows()["x"], np.asarray(begun.target.data["context"])
    last = slice(len(x) - int(0.1 * len(x)), None)
    held = -begun.log_prob(x=x[last], context=context[last]).value.mean()
    assert abs(held - begun.records["validation"][0][99:].min()) < 1e-3


def test_the_picture_has_both_spectra(begun):
    picture = begun.plot()
    assert [panel.get_title() for panel in picture.axes] == ["recorded", "drawn", "power, dB a hertz"]


# ---- files and levels --------------------------------------------------------------------------------------------


def chirp(n=4000):
    return 0.8 * np.sin(0.00005 * np.arange(n) ** 2)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32", "stereo", "24 bits"])
def test_a_file_is_the_waveform_at_its_rate(tmp_path, kind):
    x, path = chirp(), tmp_path / "sound.wav"
    if kind == "24 bits":
        whole = np.rint(x * 2**23).astype("<i4")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 3, 11025, len(x), "NONE", ""))
            file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    elif kind == "stereo":
        wavfile.write(path, 11025, np.stack([2 * x, 0 * x], 1).astype(np.float32) / 2)
    elif kind == "float32":
        wavfile.write(path, 11025, x.astype(np.float32))
    else:
        shift, full = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}[kind]
        wavfile.write(path, 11025, np.rint(x * full + shift).astype(kind))
    found, rate = sounds.sound_of(path)
    assert (rate, found.shape) == (11025, x.shape)
    step = {"uint8": 2**-8, "int16": 2**-16}.get(kind, 1e-6)
    assert abs(found - (x / 2 if kind == "stereo" else x)).max() <= step


def test_levels_are_heard_as_they_were_cut(tmp_path):
    x = chirp()
    for law, levels in (("mu", 256), ("linear", 256), ("linear", 65536)):
        found = sounds.levels_of(x, levels, law)
        back = sounds.waveform_of(found, levels, law)
        assert (sounds.levels_of(back, levels, law) == found).all()
        assert abs(back - x).max() < (0.025 if law == "mu" else 1.001 / levels)
    quiet = np.array([0.001, -0.001])
    assert abs(sounds.waveform_of(sounds.levels_of(quiet)) - quiet).max() < 1e-4
    sounds.write(tmp_path / "a.wav", x, 8000)
    again, rate = sounds.sound_of(tmp_path / "a.wav")
    assert rate == 8000
    assert abs(again - x).max() < 2**-15


BAD = {
    "silence": (lambda x: (0 * x, 8000), "is silence: all 20000 samples are at level 128 of 256"),
    "NaN": (lambda x: (np.where(np.arange(len(x)) == 7, np.nan, x), 8000), "NaN or infinite, the first at .*7"),
    "loud": (lambda x: (2 * x, 8000), r"from -1.6 to 1.6, the first out of range at x.*\nPass x / 1.6"),
    "integers": (lambda x: (np.rint(32767 * x), 8000), r"Pass x / 32768"),
    "short": (lambda x: (x[:5000], 8000), r"5000 samples; windows of 512 after a context of 128, .* at least 5248"),
    "no rate": (lambda x: x, r"gives 1 of 2 arrays"),
    "a rate of 0": (lambda x: (x, 0), "rate is 0; expected samples a second"),
    "stereo": (
        lambda x: (np.stack([x, x], 1), 8000),
        r"shape \(20000, 2\); .*\nOf 2 channels pass one, or x.mean\(1\)",
    ),
    "windows": (lambda x: (x.reshape(20, -1), 8000), "pass the recording whole"),
    "no file": (lambda x: "nothing.wav", "There is no file 'nothing.wav'"),
    "quiet": (lambda x: (1e-9 * x, 8000), "is silence: all 20000 samples are at levels 127 and 128 of 256"),
    "a rate of NaN": (lambda x: (x, np.nan), "rate is nan; expected a whole number"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_sound_is_refused(kind):
    make, told = BAD[kind]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=told):
        pg.fit("wavenet", make(chirp(20_000)), "mle", progress=False)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"length": 0}, "length is 0; expected a whole number, 1 or more"),
        ({"length": 3.5}, "length is 3.5; expected a whole number"),
        ({"num_layers": 0}, "num_layers is 0; expected"),
        ({"num_blocks": -1}, "num_blocks is -1; expected"),
        ({"levels": True}, "levels is True; expected"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes, told):
    with pytest.raises((ValueError, TypeError), match=told):
        model("wavenet").rows(chirp(20_000), 8000, **sizes)


def test_sizes_may_be_of_numpy():
    found = model("wavenet").rows(chirp(20_000), np.int32(8000), levels=np.int64(64), length=np.int64(100))
    assert (found["levels"], found["length"]) == (64, 100)
    assert found["x"].shape == ((20_000 - 128) // 100, 100)


def test_a_file_cut_short_is_told(tmp_path):
    """A header that promises more than there is: a download that broke off is no recording."""
    sounds.write(tmp_path / "whole.wav", chirp(4000), 8000)
    (tmp_path / "half.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:5001])
    with pytest.raises(ValueError, match=r"half\.wav' is cut short"):
        sounds.sound_of(tmp_path / "half.wav")


def test_windows_that_are_no_levels_are_refused():
    data = model("wavenet").default_data()
    for name, value, told in (
        ("context", 1024, r"context.0, 3. is 1024; levels are whole numbers from 0 to 1023"),
        ("context", 0.25, r"context.0, 3. is 0.25; levels are"),
        ("x", 1024, r"from 0 to 1023; x.0, 3. is 1024"),
        ("x", np.nan, "NaN"),
    ):
        changed = data[name].astype(float)
        changed[0, 3] = value
        with pytest.raises(ValueError, match=told):
            pg.fit("wavenet", {**data, name: changed}, "mle", progress=False)


def test_frequencies_do_not_flatter_their_own_rows():
    """Of uniform levels they say the entropy; counted plainly they would say 1.9 nats more, of their own making."""
    rows = np.random.default_rng(0).integers(0, 16, (200, 50)).astype(float)
    value, name = _baseline(SimpleNamespace(kind="levels"), rows, 10)
    assert name == "independent marginals"
    assert abs(value + 50 * np.log(16)) < 0.6


def test_few_windows_of_many_levels_are_not_called_worse_than_themselves(begun):
    """Frequencies of 1024 levels in 40 rows are those rows; a rounded normal is a baseline."""
    rows = sounds.levels_of(sounds.resonance(4000), 1024, "linear").reshape(40, 100)
    value, name = _baseline(begun.target.variables["x"], rows, 10)
    assert name == "a rounded normal"
    assert value < -100 * sounds.ENTROPY * np.log(2)


def test_files_that_are_no_sound_and_models_that_take_none(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(ValueError, match="cannot be read as a WAV file"):
        sounds.sound_of(tmp_path / "a.wav")
    with pytest.raises(TypeError, match=r"is a sound, and rbm learns from .*'wavenet' takes one"):
        pg.fit("rbm", "a.wav")
    with pytest.raises(ValueError, match=r"The context has 17 samples; .* sees 33 before"):
        pg.fit("wavenet", {**model("wavenet").default_data(), "num_layers": 5}, "mle", progress=False)


def test_the_page_runs(tmp_path, monkeypatch):
    """The blocks of docs/sound.md one after the other, on a chirp, with fewer steps and layers."""
    text = (Path(__file__).parent.parent / "docs" / "sound.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    sounds.write("sound.wav", chirp(12_000), 11025)
    assert 'data="sound.wav"' in code
    assert "num_steps=2000" in code
    code = code.replace('data="sound.wav"', "data=small").replace("num_steps=2000", "num_steps=100")
    small = model("wavenet").named_data("sound.wav") | {"num_filters": 4, "num_blocks": 1, "num_layers": 2}
    exec(compile(code, "sound.md", "exec"), {"small": small})
    assert sounds.sound_of("drawn.wav")[1] == 11025


def test_the_shell_reads_and_writes_sound(tmp_path, capsys):
    sounds.write(tmp_path / "in.wav", chirp(12_000), 11025)
    assert main(["fit", "wavenet", "-i", "mle", "--data", str(tmp_path / "in.wav"), "--out", str(tmp_path / "run"),
                 "--set", "num_filters=8", "num_blocks=1", "num_layers=2", "--num_steps", "3", "--no-progress"]) == 0  # fmt: skip
    cut = pg.load(tmp_path / "run").target.data["context"]
    assert cut.shape == (23, 5)  # for the field of the layers that were set
    out = tmp_path / "out.wav"
    assert main(["sample", str(tmp_path / "run"), "-o", str(out), "-n", "3"]) == 0
    assert "0.14 s, 11025 samples a second" in capsys.readouterr().out
    found, rate = sounds.sound_of(out)
    assert (len(found), rate) == (3 * 512, 11025)
