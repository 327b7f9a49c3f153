#!/bin/sh
# Train every baseline of Table 5.1 that is not in results/baselines yet, one after another on one
# core. Stop it at any time; run it again and it goes on where it was.
#   PYTHON: forethought's environment;  D3RLPY_PYTHON: that of requirements.txt beside this file
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
D3RLPY_PYTHON=${D3RLPY_PYTHON:-python}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
mkdir -p runs/studies

for layout in umaze medium large; do
    [ -d "data/maze-$layout" ] ||
        "$PYTHON" -m forethought data build "maze-$layout" --out "data/maze-$layout"
done
for part in iql-grid iql-maze2d-umaze iql-maze2d-medium iql-maze2d-large \
    iql-multi2d-umaze iql-multi2d-medium iql-multi2d-large; do
    [ -f "results/baselines/$part.json" ] ||
        "$PYTHON" -m forethought study table-5-1 --only "$part" --redo \
            --out runs/studies/table-5-1-queue.json || echo "$part failed"
done
for algorithm in awac rebrac cql sac-n; do
    for layout in umaze medium large; do
        "$D3RLPY_PYTHON" benchmarks/baselines/train_d3rlpy.py "$algorithm" "$layout" ||
            echo "$algorithm $layout failed"
    done
done
echo "done; the rows are in results/baselines"
