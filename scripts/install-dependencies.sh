#!/usr/bin/env bash
# Installs the Debian 12 / Ubuntu 24.04 packages that qnext needs and that are missing. Does nothing,
# and needs neither network nor root, where all are there.
#
#   scripts/install-dependencies.sh build    what the demo needs: compiler and libraries
#   scripts/install-dependencies.sh test     also what the tests and checks need
#   scripts/install-dependencies.sh browser  what the test of the chat page needs
set -euo pipefail

build_packages=(
  g++ cmake ninja-build ccache mold
  libfmt-dev libsimdjson-dev libcli11-dev libedit-dev libutf8proc-dev libssl-dev
)
# Debian 12's default Boost is too old for the server; Ubuntu 24.04's is not.
if grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release; then
  build_packages+=(libboost1.81-dev)
else
  build_packages+=(libboost-dev)
fi
test_packages=(
  git python3-venv openssl libgtest-dev libgmock-dev libbenchmark-dev libzstd-dev xz-utils
  clang libclang-rt-dev clang-tidy clang-format-14
)

case "${1:-}" in
  build) packages=("${build_packages[@]}") ;;
  test) packages=("${build_packages[@]}" "${test_packages[@]}") ;;
  browser) packages=(chromium chromium-driver python3-venv fonts-dejavu-core) ;;
  *)
    echo "usage: $0 build|test|browser" >&2
    exit 2
    ;;
esac

installed() {
  [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "$0: this system has no apt-get; install by hand what corresponds to: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
