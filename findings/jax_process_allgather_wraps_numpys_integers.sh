#!/usr/bin/env bash
# jax.experimental.multihost_utils.process_allgather and broadcast_one_to_all take NumPy arrays and return NumPy arrays, but with two
# processes, and double precision off, they return other numbers: an int64 of 2**40 + 7 comes back as 7, int32, a float64 of 1/3 as
# 0.3333333432674408, float32, without a word, in the process that sent it as well. With one process the same calls give back what
# they were given, so that a program that is right on one machine is wrong on two. jax and jaxlib 0.10.2, numpy 2.4.6, on CPUs.
# What to do: send bytes (array.view(numpy.uint8)), or call them within jax.enable_x64(True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/gather.py" <<'PY'
import sys

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather

port, num, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", num, index)
count, third = np.array([2**40 + 7]), np.array([1 / 3])
found = [np.ravel(call(a))[:1] for call in (process_allgather, broadcast_one_to_all) for a in (count, third)]
print(f"{num} processes, process {index}:", *(f"{a[0]!r} {a.dtype}" for a in found))
as_bytes = process_allgather(count.view(np.uint8)).reshape(num, -1)[0]
assert as_bytes.tobytes() == count.tobytes(), "bytes come back whole"
with jax.enable_x64(True):
    assert np.ravel(process_allgather(count))[0] == 2**40 + 7, "so they do in double precision"
for a, b in zip(found, (count, third, count, third)):
    if num == 1:
        assert a.dtype == b.dtype and a[0] == b[0], "the behaviour has changed"
    else:
        assert a.dtype == {"i": np.int32, "f": np.float32}[b.dtype.kind], "the behaviour has changed"
        assert int(a[0]) == 7 or a[0] == np.float32(1 / 3), "the behaviour has changed"
PY
port() { "$folder/venv/bin/python" -c "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"; }
export JAX_PLATFORMS=cpu
run() { timeout 120 "$folder/venv/bin/python" -W error "$folder/gather.py" "$@"; }
run "$(port)" 1 0
shared=$(port)
run "$shared" 2 1 &
run "$shared" 2 0
wait $!
