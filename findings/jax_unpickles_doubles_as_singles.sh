#!/usr/bin/env bash
# A JAX array of doubles that is pickled and read back where double precision is off becomes one of singles without a word, though the
# bytes hold the doubles. So do results of Dask workers and process pools that ran in double precision, and files of arrays. jax and jaxlib
# 0.10.2, numpy 2.4.6. Seen: 0.3333333333333333 comes back as 0.3333333432674408, float32, no warning; an int64 of 2**40 + 7 as 7, int32.
# numpy.asarray of the array, pickled, comes back whole. What to do: send NumPy arrays between processes, never JAX's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PY'
import pickle

import jax
import jax.numpy as jnp
import numpy as np

with jax.enable_x64(True):
    third, count = jnp.asarray([1 / 3]), jnp.asarray([2**40 + 7])
    sent = [pickle.dumps(a) for a in (third, count)]
    plain = pickle.dumps(np.asarray(third))
read = [pickle.loads(s) for s in sent]
print("sent", third.dtype, count.dtype, "read", read[0].dtype, float(read[0][0]), read[1].dtype, int(read[1][0]))
assert pickle.loads(plain)[0] == 1 / 3
with jax.enable_x64(True):
    assert float(pickle.loads(sent[0])[0]) == 1 / 3, "the bytes hold the doubles"
assert read[0].dtype == np.float32 and read[1].dtype == np.int32 and int(read[1][0]) == 7, "the behaviour has changed"
PY
