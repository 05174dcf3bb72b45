#!/usr/bin/env bash
# A process that has called jax.distributed.initialize no longer ends at SIGTERM, by default and also where it is the only one: the signal
# is caught, a line is logged ("SIGTERM caught"), and the program goes on, so that `kill`, `timeout` and a scheduler's polite end do
# nothing. Python's own view of it does not show that: signal.getsignal(SIGTERM) is still SIG_DFL. The docstring of initialize does not
# say so. The cause is the preemption service, for programs that ask multihost_utils.reached_preemption_sync_point; without it SIGTERM
# ends the process as before. jax and jaxlib 0.10.2, numpy 2.4.6, on a CPU.
# What to do: jax.config.update("jax_enable_preemption_service", False) before initialize, where nothing asks for that point.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/alone.py" <<'PY'
import os
import signal
import socket
import sys
import time

import jax

if sys.argv[1] == "without":
    jax.config.update("jax_enable_preemption_service", False)
with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
if sys.argv[1] != "plain":
    jax.distributed.initialize(f"127.0.0.1:{port}", 1, 0)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
assert "SIGTERM" not in (jax.distributed.initialize.__doc__ or ""), "it is documented now"
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
print(sys.argv[1], "went on for five seconds after SIGTERM")
PY
export JAX_PLATFORMS=cpu
for case in plain without service; do
    code=0
    timeout 60 "$folder/venv/bin/python" "$folder/alone.py" "$case" || code=$?
    echo "$case: exit code $code"
    if [ "$case" = service ]; then test "$code" = 0; else test "$code" = 143; fi
done
