#!/bin/sh
# Builds the twin's libraries into a folder, unless they are there as these sources make them: build.sh FOLDER
set -eu
at=$1
here=$(cd "$(dirname "$0")" && pwd)
# What the sources are, and so which compiled kernels go with them: the twin's NVRTC gives it as its minor version, which is part of a kernel's key.
version=$(cat "$here"/*.cpp "$here"/*.h "$here"/build.sh | cksum | cut -d ' ' -f 1)
version=$((version % 1000000000))
if [ -f "$at/version" ] && [ "$(cat "$at/version")" = "$version" ]; then exit 0; fi
mkdir -p "$at"
# Beside, then renamed: others may build the same.
beside=$(mktemp -d "$at/build-XXXXXX")
trap 'rm -rf "$beside"' EXIT
library() {
    name=$1
    shift
    ${CXX:-g++} -std=c++17 -O2 -shared -fPIC -pthread -Wall "-Wl,-soname,$name" -o "$beside/$name" "$@"
    mv "$beside/$name" "$at/$name"
}
library libcuda.so "$here/driver.cpp"
library libnvrtc.so "-DTWIN_DEVICE=\"$here/device.h\"" "-DTWIN_TENSOR=\"$here/tensor.h\"" "-DTWIN_VERSION=$version" "$here/nvrtc.cpp"
library libnccl.so "$here/nccl.cpp" "$at/libcuda.so"
library libcublasLt.so "$here/cublaslt.cpp" "$at/libcuda.so"
echo "$version" >"$beside/version"
mv "$beside/version" "$at/version"
