#!/usr/bin/env bash
# Everything that must hold, from a fresh machine: installs what is missing, then
#   format    clang-format has nothing to change
#   release   optimised build, all tests
#   clients   the clients of others drive qnext serve, where pip can install them
#   page      the chat page in a headless browser, where one can be installed
#   dev       AddressSanitizer and UndefinedBehaviorSanitizer, all tests
#   tsan      ThreadSanitizer, the tests of what runs on several threads
#   tidy      clang-tidy finds nothing
#   cuda      the CUDA backend and its tests compile, where there is nvcc, and many of the tests run
#             on an emulated GPU (scripts/gpu-test.sh runs them on a real one)
#   fuzz      each fuzz target for a few seconds over its seeds
# The last line is "N passed, M failed", over all runs of tests; the exit status is 0 only if M is 0
# and every stage held. Names of stages as arguments run those only.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

stages=(format release clients page dev tsan tidy cuda fuzz)
if [[ $# -gt 0 ]]; then
  stages=("$@")
fi
jobs=$(nproc)
fuzz_seconds=5
thread_tests=(base_test engine_test server_test cpu_backend_test generation_test ops_matmul_test ops_moe_test)
# They judge numbers or a single thread at length, or formats that share the loops of others, and add
# no way for threads to meet.
thread_tests_left_out='LeavesTheDistributionUnchanged|Speculation\.|EngineProperties\.|AwkwardSizes'
thread_tests_left_out+='|/(Q2_K|Q3_K|Q5_K|Q6_K|Q4_1|Q5_0|Q5_1|IQ4_NL|IQ4_XS)_'
# They draw or try thousands of times what other tests do once, to judge the numbers: minutes with
# AddressSanitizer, and no line of code that those do not reach.
address_tests_left_out='LeavesTheDistributionUnchanged|ChiSquareAgainstTheOracle'
address_tests_left_out+='|^Speculation\.IsNever'
passed=0
failed=0
broken=()
launcher=()  # put before commands of a stage
# Most files of the cuda build are compiled as those of release: the cache finds them whatever folder
# they are built in.
export CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$PWD

first_party() {
  git ls-files --cached --others --exclude-standard -- "$@"
}

# run_tests FOLDER [ctest arguments]: adds to passed and failed.
run_tests() {
  local folder=$1 log=$1/ctest.log status total missed
  shift
  "${launcher[@]}" ctest --test-dir "$folder" --parallel "$jobs" --output-on-failure "$@" | tee "$log" |
    grep -v ' Passed \|^ *Start '
  status=${PIPESTATUS[0]}
  # "97% tests passed, 3 tests failed out of 100"
  read -r missed total < <(sed -n \
    's/^[0-9]*% tests passed, \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\)$/\1 \2/p' "$log") ||
    return 1
  failed=$((failed + missed))
  passed=$((passed + total - missed))
  return "$status"
}

# build PRESET [cmake arguments] [-- targets]
build() {
  local preset=$1 settings=() targets=()
  shift
  while [[ $# -gt 0 && $1 != -- ]]; do
    settings+=("$1")
    shift
  done
  if [[ $# -gt 1 ]]; then
    targets=(--target "${@:2}")
  fi
  cmake --preset "$preset" "${settings[@]}" >/dev/null &&
    "${launcher[@]}" cmake --build --preset "$preset" --parallel "$jobs" "${targets[@]}"
}

stage_format() {
  first_party '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format-14 --dry-run --Werror
}

stage_release() {
  build release -DQNEXT_TESTS=ON -DQNEXT_BENCHMARKS=ON && run_tests build/release
}

stage_clients() {
  local folder=build/venv client broken=0
  local clients=(openai anthropic langchain qwen_agent tls structured_output)
  # qwen-agent does not say that it needs the last four.
  local packages=(openai anthropic jsonschema langchain-openai qwen-agent numpy python-dateutil
    soundfile tqdm)
  "$folder/bin/python" -c 'import openai, anthropic, jsonschema, langchain_openai, qwen_agent.agents' \
    2>/dev/null ||
    { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet "${packages[@]}"; } || {
    echo "the clients' packages cannot be installed here: skipped"
    return
  }
  build release -- qnext text_schema_suite || return 1
  "$folder/bin/python" tests/json_schema_suite.py build/release/src/text/text_schema_suite || broken=1
  for client in "${clients[@]}"; do
    echo "$client"
    "$folder/bin/python" "tests/${client}_client.py" build/release/qnext || broken=1
  done
  return "$broken"
}

# Chromium is large and no test but this needs it: it is installed here and not with the rest.
stage_page() {
  local folder=build/browser-venv
  command -v chromedriver >/dev/null || scripts/install-dependencies.sh browser || {
    echo "no browser can be installed here: skipped"
    return
  }
  "$folder/bin/python" -c 'import selenium' 2>/dev/null ||
    { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet selenium; } || {
    echo "the selenium package cannot be installed here: skipped"
    return
  }
  build release -- qnext && "$folder/bin/python" tests/page_browser.py build/release/qnext
}

stage_dev() {
  build dev -DQNEXT_BENCHMARKS=OFF && run_tests build/dev --exclude-regex "$address_tests_left_out"
}

# gcc's ThreadSanitizer cannot live with as much randomisation of memory as newer kernels do: where
# the system allows, this stage does without.
stage_tsan() {
  local launcher=()
  if setarch "$(uname -m)" -R true 2>/dev/null; then
    launcher=(setarch "$(uname -m)" -R)
  fi
  build tsan -DQNEXT_BENCHMARKS=OFF -- "${thread_tests[@]}" &&
    run_tests build/tsan --exclude-regex "_NOT_BUILT|$thread_tests_left_out"
}

# tidy FOLDER: the files named on the standard input, compiled as in that folder.
tidy() {
  xargs --max-procs="$jobs" --max-args=4 \
    clang-tidy -p "$1" --quiet --extra-arg=-Wno-error 2>/dev/null
}

# Not the files of one instruction set, which use gcc's vector extensions, nor those of the CUDA
# build, of which stage cuda judges the emulator's.
stage_tidy() {
  cmake --preset fuzz -DQNEXT_BENCHMARKS=OFF >/dev/null || return 1
  first_party 'src/*.cpp' | grep -v '_\(test\|benchmark\|avx2\|avx512\)\.cpp$' |
    grep -v '^src/\(emulator/\|backend/cuda/\|base/cuda_\|ops/sm90/\|ops/sampling/row_sampling\)' |
    tidy build/fuzz
}

stage_cuda() {
  if ! command -v nvcc >/dev/null; then
    echo "no nvcc here: skipped"
    return
  fi
  build cuda -DQNEXT_BENCHMARKS=OFF -- qnext ops_cuda_test cuda_backend_test emulator_test \
    ops_cuda_test_emulated cuda_backend_test_emulated || return 1
  local status=0
  first_party 'src/emulator/*.cpp' | grep -v '_test\.cpp$' | tidy build/cuda || status=1
  run_tests build/cuda/src/emulator || status=1
  run_tests build/cuda --tests-regex '^emulated\.' || status=1
  return "$status"
}

# Seeds: the inputs that the tests use.
seed_corpus() {
  local folder=build/fuzz/corpus
  mkdir -p "$folder"/{answer_parser,config,grammar,gguf,gguf_model,safetensors,template,tokenizer,tokenize}_fuzz
  grep -o 'R"(.*)"' src/text/answer_parser_test.cpp >"$folder/answer_parser_fuzz/answers"
  grep -o 'R"({.*})"' src/text/grammar/json_schema_test.cpp | sed 's/^R"(//; s/)"$//' |
    split --lines=1 - "$folder/grammar_fuzz/schema-"
  cp models/*/config.json "$folder/config_fuzz/bundled"
  cp tests/data/gguf-*.gguf "$folder/gguf_fuzz/"
  cp tests/data/gguf-sample.gguf "$folder/gguf_model_fuzz/"
  cp tests/data/chat-templates/*.jinja "$folder/template_fuzz/"
  cp tests/data/qwen3-tokenizer/tokenizer_config.json "$folder/tokenizer_fuzz/"
  cp models/*/expected.json "$folder/tokenize_fuzz/"
}

stage_fuzz() {
  local targets target
  mapfile -t targets < <(first_party 'src/*_fuzz.cpp' | sed 's|.*/||; s|\.cpp$||')
  build fuzz -DQNEXT_BENCHMARKS=OFF -- "${targets[@]}" || return 1
  seed_corpus
  for target in "${targets[@]}"; do
    echo "$target"
    "$(find build/fuzz/src -type f -name "$target")" -max_total_time="$fuzz_seconds" \
      -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$target-" \
      "build/fuzz/corpus/$target" >"build/fuzz/$target.log" 2>&1 || {
      tail -n 40 "build/fuzz/$target.log"
      return 1
    }
  done
}

# In a function, which bash reads whole: the script may be edited while it runs.
main() {
  local stage start
  scripts/install-dependencies.sh test || exit 1
  for stage in "${stages[@]}"; do
    echo "== $stage"
    start=$SECONDS
    "stage_$stage" || broken+=("$stage")
    echo "== $stage: $((SECONDS - start)) s"
  done
  if [[ ${#broken[@]} -gt 0 ]]; then
    echo "stages that failed: ${broken[*]}"
  fi
  echo "$passed passed, $failed failed"
  [[ $failed -eq 0 && ${#broken[@]} -eq 0 ]]
}
main; exit
