#!/usr/bin/env bash
# Real model servers for the tests: llama.cpp, built from source, with a tiny
# random-weights model made here. Nothing but package sources is downloaded.
#
#   start.sh setup                          make everything ready and exit
#   start.sh SERVER PORT [ARGUMENT...]      the same, then run SERVER on
#                                           127.0.0.1:PORT in the foreground
#
# SERVER is llama-cpp-python (the Python server of that package) or llama-server
# (the C++ server of llama.cpp). ARGUMENTs are passed on to it. The model is
# called sluice-tiny. Needs python3 with venv, cmake, a C++ compiler, and ninja
# or make. The first run takes some minutes; later ones start at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SLUICE_REALMODEL_CACHE:-$here/../../../../.cache/realmodel}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
venv=$cache/venv
build=$cache/build
model=$cache/tiny.gguf
context=16384

# once NAME INPUT FUNCTION runs FUNCTION unless it has succeeded before, as it is
# now, with the same INPUT file. A failure ends the script (set -e holds here
# only while nothing on the way uses && or ||) and shows the end of its log.
once() {
	local name=$1 input=$2 action=$3 sum
	sum=$({ echo "$cache" && cat "$input" && declare -f "$action"; } | cksum)
	if [[ -f $cache/$name.done && $(<"$cache/$name.done") == "$sum" ]]; then
		return
	fi
	echo "start.sh: $name" >&2
	rm -f "$cache/$name.done"
	log=$cache/$name.log
	trap 'tail -n 40 "$log" >&2' EXIT
	"$action" >"$log" 2>&1
	trap - EXIT
	echo "$sum" >"$cache/$name.done"
}

# The source distribution holds the Python package and llama.cpp.
fetch_sources() {
	rm -rf "$venv" "$cache/sdist" "$cache/source" "$cache"/*.done
	python3 -m venv "$venv"
	"$venv/bin/pip" download --no-deps --no-binary llama-cpp-python --dest "$cache/sdist" \
		"$(grep '^llama-cpp-python==' "$here/requirements.txt")"
	mkdir "$cache/source"
	tar -xzf "$cache"/sdist/*.tar.gz -C "$cache/source" --strip-components 1
}

# A model this small needs neither tuned kernels nor full optimisation.
build_llama() {
	local generator=()
	if command -v ninja >/dev/null; then
		generator=(-G Ninja)
	fi
	rm -rf "$build"
	cmake -S "$cache/source/vendor/llama.cpp" -B "$build" "${generator[@]}" \
		-DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O2 -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
		-DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF -DLLAMA_OPENSSL=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
		-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_ALL_WARNINGS=OFF
	nice cmake --build "$build" --target llama-server --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-2}"
}

# The Python package takes the library that build_llama made.
install_packages() {
	CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" "$venv/bin/pip" install --no-deps "$cache/source"
	"$venv/bin/pip" install -r "$here/requirements.txt"
	"$venv/bin/pip" check
}

make_model() {
	"$venv/bin/python" "$here/make_model.py" "$model"
}

setup() {
	once fetch "$here/requirements.txt" fetch_sources
	once build "$here/requirements.txt" build_llama
	once install "$here/requirements.txt" install_packages
	once model "$here/make_model.py" make_model
}

run() {
	local server=$1 port=$2
	shift 2
	case $server in
	llama-cpp-python)
		export LLAMA_CPP_LIB_PATH=$build/bin
		exec "$venv/bin/python" -m llama_cpp.server --host 127.0.0.1 --port "$port" \
			--model "$model" --model_alias sluice-tiny --n_ctx "$context" \
			--n_threads 1 --n_threads_batch 1 --logits_all false "$@"
		;;
	llama-server)
		exec "$build/bin/llama-server" --host 127.0.0.1 --port "$port" \
			--model "$model" --alias sluice-tiny --ctx-size "$context" \
			--threads 1 --parallel 1 --offline "$@"
		;;
	esac
}

if [[ $# -eq 1 && $1 == setup ]]; then
	setup
elif [[ $# -ge 2 && $1 =~ ^llama-(cpp-python|server)$ ]]; then
	setup
	run "$@"
else
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2
	exit 2
fi
