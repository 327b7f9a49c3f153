#!/bin/sh
# Train the three locomotion policies one after another on one core, about two hours each on an idle
# machine. Stop it at any time (Ctrl-C, SIGTERM or SIGKILL); run it again and it goes on where it was.
#   PYTHON: forethought's environment;  OUT: folder of the runs;  SEED
#   TASKS: which of them, e.g. TASKS="walker2d"
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=${OUT:-runs/sac}
SEED=${SEED:-0}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
mkdir -p "$OUT"

# in the background and waited for, so that stopping this script stops what it runs
run() {
    "$PYTHON" -m forethought "$@" >>"$log" 2>&1 &
    child=$!
    trap 'kill -TERM $child; wait $child; exit 130' INT TERM
    wait $child
}

for task in ${TASKS:-hopper walker2d halfcheetah}; do
    folder="$OUT/$task/seed$SEED"
    log="$OUT/$task-seed$SEED.log"
    [ -f "$folder/evaluation/$task-seed0.json" ] && continue
    resume=
    [ -f "$folder/train_state.safetensors" ] && resume=--resume
    run train "sac/$task" --out "$folder" --train.seed "$SEED" $resume
    run evaluate "$folder" --episodes 100
done
