#!/usr/bin/env bash
# Installs the locked packages and this project into the environment that is active; run from the repository's top.
set -euo pipefail
python -m pip install --quiet --require-hashes --requirement envs/lock.txt
python -m pip install --quiet --no-deps --no-build-isolation --editable .
