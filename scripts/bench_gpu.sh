#!/usr/bin/env bash
# What the engine reaches on one GPU, in under ten minutes: no data, no runner and no tracker needed. What has been
# measured stays in results/bench; called again, the script measures what is missing. Prints a table of each stage.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
seconds=${SECONDS_EACH:-3}

bench() { "$python" -m edc.cli bench --device cuda --seconds "$seconds" "$@"; }

# The observers of ImageNet-1k with random weights, groups of 20 pictures of 224 pixels, from 80 at once up to what fits.
# Recipe edc, whose groups may be optimised together, with its flatness term.
for images in 80 160 320 640; do
  bench --dataset imagenet1k --recipe edc --stage synthesize --images "$images" || break
done
bench --dataset imagenet1k --stage relabel --images 500 --network torchvision:resnet18 --network torchvision:mobilenet_v2 \
  --network torchvision:shufflenet_v2_x0_5 --network torchvision:alexnet
bench --dataset cifar10 --stage synthesize --images 100
bench --dataset cifar10 --stage evaluate --network resnet18 --images 25
