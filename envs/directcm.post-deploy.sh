#!/usr/bin/env bash
# Installs the locked packages and this project into the environment that is active; run from the repository's top.
set -euo pipefail
python envs/install.py --here
