#!/usr/bin/env bash
# mlflow-skinny, freshly installed, cannot log a first run: its default tracking address, sqlite:///mlflow.db, is one that it cannot
# open, for no requirement and no extra of it names SQLAlchemy; and the error speaks of a model registry. mlflow-skinny 3.17.2.
# Expected: a metric logged into a local store, or an error that names the missing package.
# Seen: UnsupportedModelRegistryStoreURIException, "Model registry functionality is unavailable; got unsupported URI"; the file store
# that it had before is refused (MLFLOW_ALLOW_FILE_STORE=true opens it). With sqlalchemy and alembic installed the same call works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2
cat > "$folder/first.py" <<'PY'
from importlib.metadata import requires

import mlflow

print("default address:", mlflow.get_tracking_uri().partition("///")[0])
named = [r for r in requires("mlflow-skinny") if "sqlalchemy" in r.lower()]
try:
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
    print("logged", mlflow.get_run(run.info.run_id).data.metrics, "names SQLAlchemy:", bool(named))
except mlflow.MlflowException as error:
    print(type(error).__name__, str(error)[:90], "names SQLAlchemy:", bool(named))
PY
cd "$folder"
export DO_NOT_TRACK=true
unset MLFLOW_TRACKING_URI || true
fresh=$("$folder/venv/bin/python" first.py 2> /dev/null)
"$folder/venv/bin/pip" install -q sqlalchemy==2.0.45 alembic==1.17.2
with=$("$folder/venv/bin/python" first.py 2> /dev/null)
printf '%s\n--- with sqlalchemy and alembic\n%s\n' "$fresh" "$with"
grep -q "UnsupportedModelRegistryStoreURIException.*names SQLAlchemy: False" <<< "$fresh"
grep -q "logged {'loss': 0.5}" <<< "$with"
