# %% [markdown]
# # Sentences of a grammar, and a text of your own
# A transformer learns the next word of sentences whose law is known: a row costs it what it costs the law, and a word in the long
# run the entropy rate. Then it learns a text by characters, and goes on with what it is given.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

import probgen as pg
from probgen.data.values import grammar

mpl.use("Agg")
import matplotlib.pyplot as plt

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
data = {"x": grammar.sentences(4000, 16), "width": 32, "num_heads": 2}
fit = pg.fit("transformer", data, "mle", num_steps=1000, learning_rate=0.005)
print(fit.diagnose())

# %% New rows: what they cost the model, and the law itself. A model that gives them less is worse by KL(law || model).
rows = grammar.sentences(2000, 16, seed=5)
mine, law = fit.log_prob(rows).value.mean(), grammar.log_prob(rows).sum(1).mean()
print(f"nats a row: model {-mine:.3f}, law {-law:.3f}; entropy rate {grammar.entropy_rate():.3f} nats a word")
assert 0 < law - mine < 0.02 * 16

# %% Draws are sentences, and what a sentence begins with is kept.
drawn = fit.sample(500)["x"]
possible = np.isfinite(grammar.log_prob(drawn).sum(1)).mean()
begun = np.r_[[grammar.WORDS.index(word) for word in "BTS"], np.full(13, np.nan)]
completed = fit.condition(x=begun).sample(3)["x"]
print(f"{possible:.1%} of 500 draws are of the language, such as")
print("\n".join("".join(grammar.WORDS[int(word)] for word in row) for row in [*drawn[:3], *completed]))
assert possible > 0.9

# %% How often each word comes at each place: the first words are those of a text cut anywhere.
shares = [np.stack([(x == word).mean(0) for word in range(7)]) for x in (rows, drawn)]
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained", sharey=True)
for ax, share, title in zip(axes, shares, ("the grammar", "the model"), strict=True):
    ax.imshow(share, vmin=0, vmax=0.5, cmap="Blues", aspect="auto")
    ax.set(
        title=f"{title}: share of each word",
        xlabel="place in the row",
        yticks=range(7),
        yticklabels=list(grammar.WORDS),
    )
figure.savefig(folder / "sentences_of_a_grammar.png")
print(f"\nThe figure is {folder / 'sentences_of_a_grammar.png'}")

# %% A text of your own: characters are the tokens, and the end of the text is held out.
(folder / "mine.txt").write_text("a rose is a rose is a rose, and a daisy is a daisy. " * 60)
small = {"width": 32, "depth": 1, "num_heads": 2}
told = pg.fit("transformer", pg.data.text(folder / "mine.txt", context=32) | small, "mle", num_steps=400)
print(told.text(2, begin="a daisy", length=80))
assert told.log_prob("a rose is a").value > told.log_prob("a rose is i").value
