#!/bin/sh
# Writes definitions.tsv from the Go modules of the Kubernetes release named in generate/go.mod.
set -eu
cd "$(dirname "$0")/generate"
version=$(sed -n 's|^\tk8s.io/api v0\.||p' go.mod)
source=$(go mod download -json "k8s.io/kubernetes@v1.$version" | sed -n 's|^\t"Dir": "\(.*\)",$|\1|p')
go run . "$source" ../definitions.tsv
