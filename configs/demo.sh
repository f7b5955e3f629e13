#!/usr/bin/env bash
# The whole workflow on synthetic radiographs (phantoms): unlabeled images -> an encoder -> a benchmark with confidence intervals -> a report.
# `make demo` runs it and prints every command. If interrupted, rerun it to resume. DEMO_SEED=2 draws other phantoms.
#
# The phantoms (kind cxr_edema) are made so that pretraining helps with `edema`, by k-NN. `view` is there to be no easy win.
set -euo pipefail
folder=${1:-demo}
seed=${DEMO_SEED:-1}
mkdir -p "$folder"
cd "$folder"
run() { printf '\n$ %s\n' "$*"; "$@"; }

run encoders ingest phantom unlabeled.h5 --kind cxr_edema --patients 500 --size 64 --seed "${seed}1"
run encoders ingest phantom labeled.h5 --kind cxr_edema --patients 500 --size 64 --seed "${seed}2"
[ -f tasks/edema.yaml ] || run transfer tasks add edema labeled.h5 --label edema
[ -f tasks/view.yaml ] || run transfer tasks add view labeled.h5 --label view --positive AP
run pretrain run cxr_moco_tiny data.store=unlabeled.h5 arch=resnet10t steps=60 --name cxr_moco --continue
run transfer bench --encoder cxr_moco
run transfer report

cat <<END

The report of this comparison: open $PWD/report.html in a browser.
With your own images, in another folder:
  encoders ingest folder images/ unlabeled.h5
  pretrain run cxr_moco_tiny data.store=unlabeled.h5 --name mine
  transfer tasks add finding labeled.h5 --label finding && transfer bench --encoder mine
labeled.h5 holds other patients, ingested with --labels labels.csv; docs/index.md has each step, and how to use one set of images for both.
END
