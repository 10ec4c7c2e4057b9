#!/usr/bin/env bash
# The CUDA tests on a machine that has a GPU:
#   scripts/gpu-test.sh                    builds into build/cuda, then tests
#   scripts/gpu-test.sh FOLDER             tests the programs in FOLDER, built elsewhere
#   scripts/gpu-test.sh --collect FOLDER   builds and copies the programs, and the shared libraries
#                                          that a bare machine lacks, into FOLDER; runs nothing
#   --sanitize                             the kernel tests under compute-sanitizer too: memcheck,
#                                          racecheck and initcheck
# Test data are read from the folder above this script, wherever that lies now. The last line is
# "N passed, M failed"; the exit status is 0 only if M is 0.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export QNEXT_SOURCE_DIR=$PWD

folder=
collect=
sanitize=
while [[ $# -gt 0 ]]; do
  case $1 in
    --sanitize) sanitize=yes ;;
    --collect) collect=${2:?--collect needs a folder} && shift ;;
    -*) echo "unknown option $1" >&2 && exit 2 ;;
    *) folder=$1 ;;
  esac
  shift
done
programs=(qnext ops_cuda_test cuda_backend_test)
passed=0
failed=0

build() {
  cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DQNEXT_CUDA=ON \
    -DQNEXT_BENCHMARKS=OFF >/dev/null &&
    cmake --build build/cuda --target "${programs[@]}"
}

# find_program NAME: the program below the folder.
find_program() {
  find "$folder" -type f -name "$1" -perm -u+x -print -quit
}

# Everything but the C library's own parts, which fit the machine and nothing else.
collect_into() {
  local name program
  mkdir -p "$collect"
  for name in "${programs[@]}"; do
    program=$(find_program "$name")
    cp "$program" "$collect/" && strip --strip-debug "$collect/$name" &&
      ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
      grep -v '/\(libc\|libm\|libdl\|librt\|libpthread\|libgcc_s\|libstdc++\)\.so' |
        xargs --no-run-if-empty cp -L -t "$collect" || return 1
  done
}

# judge NAME COMMAND...: one line, and the log where it failed.
judge() {
  local name=$1 log
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok      $name: $(tail -n 1 "$log")"
  else
    failed=$((failed + 1))
    echo "FAILED  $name (status $?)"
    grep -v ' OK \]\|\[ RUN ' "$log" | head -n 60
  fi
  rm -f "$log"
}

# judge_tests NAME [LAUNCHER...]: a GoogleTest program, under the launcher.
judge_tests() {
  local program
  program=$(find_program "$1")
  judge "${2:+$2 }$1" "${@:2}" "$program" --gtest_brief=1
}

if [[ -z $folder ]]; then
  build || exit 1
  folder=build/cuda
fi
if [[ -n $collect ]]; then
  collect_into
  exit
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || {
  echo "no GPU here: nothing to test" >&2
  exit 1
}

judge_tests ops_cuda_test
judge_tests cuda_backend_test
qnext=$(find_program qnext)
for model in tests/data/g1-small tests/data/g2-heads tests/data/g3-yarn models/tiny-shakespeare; do
  for path in eager graph; do
    for chunk in 1 7 512; do
      judge "verify $model, $path, chunk $chunk" "$qnext" verify --device cuda \
        --backend-path "$path" --chunk "$chunk" "$model" "$model/vectors.safetensors"
    done
  done
done
if [[ -n $sanitize ]]; then
  if command -v compute-sanitizer >/dev/null; then
    # The plain attention tests take hours that way.
    export GTEST_FILTER='-CudaOps.Attention*'
    for tool in memcheck racecheck initcheck; do
      judge_tests ops_cuda_test compute-sanitizer --tool "$tool" --error-exitcode 3
    done
    unset GTEST_FILTER
    judge "compute-sanitizer verify" compute-sanitizer --tool memcheck --error-exitcode 3 "$qnext" \
      verify --device cuda tests/data/g2-heads tests/data/g2-heads/vectors.safetensors
  else
    echo "compute-sanitizer is not here: skipped"
  fi
fi
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
