"""What is run for the site: kept until its source changes, made two at a time, shown on the pages. Little runs here."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import python

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT / "docs"))


def test_what_was_run_is_kept_until_its_source_changes(tmp_path, monkeypatch):
    import kept

    monkeypatch.setattr(kept, "MADE", tmp_path)
    made = []

    def work(folder):
        made.append(folder)
        (folder / "1.png").write_bytes(b"drawn")
        return {"printed": "pass"}

    kept.make("one", kept.digest("a"), work)
    told = kept.found("one", kept.digest("a"))
    assert (told["printed"], told["older"], [p.name for p in kept.pictures("one")]) == ("pass", False, ["1.png"])
    assert kept.found("one", kept.digest("b")) is None, "another source"
    assert kept.found("two", kept.digest("a")) is None
    assert kept.digest("a", "b") != kept.digest("ab")
    monkeypatch.setattr(kept, "package", lambda: "another")
    assert kept.found("one", kept.digest("a"))["older"]

    def fails(folder):
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        kept.make("one", kept.digest("b"), fails)
    assert kept.found("one", kept.digest("a")), "what was there stays"
    (tmp_path / "one" / "made.json").write_text("{")
    assert kept.found("one", kept.digest("a")) is None


def test_examples_are_shown_with_what_they_print_and_draw(tmp_path, monkeypatch):
    import draw
    import kept

    build = import_module("build")
    monkeypatch.setattr(kept, "MADE", tmp_path)
    assert "made/" not in build.examples(), "nothing was run"

    def work(folder):
        (folder / "1.png").write_bytes(b"drawn")
        return {"printed": draw.shown(f"4 | 5\n{tmp_path.anchor}tmp/x1\n" + "line\n" * 70)}

    sources = draw.sources()
    topics = draw.pictures.topics()
    assert len(sources) == len(list((ROOT / "examples").glob("*.py"))) + len(draw.CHECKS) + len(topics)
    assert set(draw.pictures.SLOW) < set(topics)
    drawn = {name.removeprefix("map-") for name in sources if name.startswith("map-") and draw.asked(name, [], False)}
    assert drawn == set(topics) - set(draw.pictures.SLOW)
    kept.make("example-demo", sources["example-demo"], work)
    page = build.pages()["lectures/energies.md"]
    assert "made/" not in page
    assert "`python docs/draw.py map-hopfield` here" in page
    kept.make("map-hopfield", sources["map-hopfield"], work)
    assert "](../made/map-hopfield/picture.png){ loading=lazy }" in build.pages()["lectures/energies.md"]
    assert "](made/example-demo/1.png){ loading=lazy }" in build.examples()
    page = build.example("example-demo", draw.examples()["example-demo"])
    assert "](../made/example-demo/1.png){ loading=lazy }" in page
    assert "```text\n4 | 5\n" in page
    assert "/x1" not in page
    assert "... 11 lines more" in page
    assert "FRESH=1" not in page
    monkeypatch.setattr(kept, "package", lambda: "another")
    assert "`make docs FRESH=1` runs it anew" in build.example("example-demo", draw.examples()["example-demo"])


def test_things_are_made_beside_each_other_and_failures_are_told(tmp_path, monkeypatch, capsys):
    import draw
    import kept

    scripts = {"example-one": "print('said')", "example-two": "print('lost')\nraise SystemExit('it broke')"}
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(kept, "MADE", tmp_path / "made")
    monkeypatch.setattr(draw, "examples", lambda: {name: tmp_path / f"{name}.py" for name in scripts})
    monkeypatch.setattr(draw, "sources", lambda: scripts)
    assert draw.main([], False) == 1
    told = capsys.readouterr()
    assert "1 run" in told.out
    assert "example-two failed: RuntimeError: exit code 1. it broke" in told.err
    made = kept.found("example-one", scripts["example-one"])
    assert (made["printed"], 0 < made["cpu"] < 100) == ("said", True)
    assert [path.name for path in (tmp_path / "made" / "example-one").iterdir()] == ["made.json"]
    assert draw.main(["one"], False) == 0
    assert "0 run" in capsys.readouterr().out
    assert draw.main(["three"], False) == 1
    assert "Nothing is called three. Known: example-one" in capsys.readouterr().err


def test_an_example_is_run_with_its_pictures_kept(tmp_path):
    (tmp_path / "one.py").write_text(
        "import io\nimport matplotlib.pyplot as plt\nfigure, _ = plt.subplots()\nfigure.savefig('own.png')\n"
        "figure.savefig(io.BytesIO(), format='svg')\nprint('said')\n"
    )
    (tmp_path / "out").mkdir()
    done = python(str(ROOT / "docs" / "example.py"), "one.py", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "said\n"), done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["1.png"]
