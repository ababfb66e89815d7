#!/usr/bin/env bash
# A real Ollama for the tests, built from its Go module, with the tiny model of
# start.sh under two names: sluice-tiny, and sluice-tools with a template that
# knows tools. Nothing but package sources is downloaded.
#
#   ollama.sh PORT   make everything ready, then run it on 127.0.0.1:PORT
#
# Needs what start.sh needs, and go. The first run takes some minutes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=v0.17.4
port=${1:?usage: ollama.sh PORT}

"$here/start.sh" setup
cache=${SLUICE_REALMODEL_CACHE:-$here/../../../../.cache/realmodel}
cache=$(cd "$cache" && pwd)
binary=$cache/ollama-$version

# The module's archive lacks the headers that it vendors; those of llama.cpp's
# own sources stand in for them.
build() {
	local headers=$cache/source/vendor/llama.cpp/vendor
	work=$(mktemp -d) # not local: the trap is run behind the function
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	printf 'module build\n\ngo 1.26\n' >go.mod
	printf '//go:build tools\n\npackage build\n\nimport _ "github.com/ollama/ollama"\n' >tools.go
	go get "github.com/ollama/ollama@$version"
	go mod tidy
	CGO_CPPFLAGS="-I$headers -I$headers/nlohmann -I$headers/stb -I$headers/miniaudio" \
		go build -p 2 -o "$binary.partial" github.com/ollama/ollama
	mv "$binary.partial" "$binary"
}

# create NAME LINE... makes a model of the tiny one.
create() {
	local name=$1 file
	shift
	file=$(mktemp)
	printf '%s\n' "FROM $cache/tiny.gguf" "$@" >"$file"
	"$binary" create "$name" -f "$file"
	rm -f "$file"
}

create_models() {
	until "$binary" list; do sleep 0.1; done
	create sluice-tiny
	create sluice-tools 'TEMPLATE """{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}<|end|>{{ end }}<|assistant|>{{ .Tools }}"""'
}

[[ -x $binary ]] || (build)
export OLLAMA_HOST=127.0.0.1:$port OLLAMA_MODELS=$cache/ollama-models HOME=$cache/ollama-home OLLAMA_NUM_PARALLEL=1
mkdir -p "$HOME"
create_models >/dev/null 2>&1 &
exec "$binary" serve
