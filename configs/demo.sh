#!/usr/bin/env bash
# The whole workflow on synthetic radiographs (phantoms): unlabeled images -> encoders -> a benchmark with confidence intervals.
# `make demo` runs it and prints every command. If interrupted, rerun it to resume.
set -euo pipefail
folder=${1:-demo}
mkdir -p "$folder"
cd "$folder"
run() { printf '\n$ %s\n' "$*"; "$@"; }

run encoders ingest phantom unlabeled.h5 --patients 500 --size 64 --seed 1
run encoders ingest phantom labeled.h5 --patients 400 --size 64 --seed 2
[ -f tasks/view.yaml ] || run transfer tasks add view labeled.h5 --label view --positive AP
[ -f tasks/opacity.yaml ] || run transfer tasks add opacity labeled.h5 --label opacity
run pretrain run cxr_moco_tiny data.store=unlabeled.h5 arch=resnet10t steps=150 --name cxr_moco --continue
run pretrain run cxr_mae_tiny data.store=unlabeled.h5 --name cxr_mae --continue
run transfer bench --encoder cxr_moco --encoder cxr_mae --task view,opacity --protocol knn,linear
