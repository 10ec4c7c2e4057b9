#!/usr/bin/env bash
# From a fresh machine to generated text: installs what is missing, builds qnext and lets the
# bundled model continue a line of Shakespeare. Arguments go on to qnext generate.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-dependencies.sh build
# Tests and benchmarks need libraries that the demo does without. A folder that is configured
# already keeps its settings.
settings=()
if [[ ! -f build/release/CMakeCache.txt ]]; then
  settings=(-DQNEXT_TESTS=OFF -DQNEXT_BENCHMARKS=OFF)
fi
cmake --preset release "${settings[@]}" >/dev/null
cmake --build --preset release --target qnext --parallel "$(nproc)"

echo
build/release/qnext generate "ROMEO:" --echo --max-tokens 120 "$@"
