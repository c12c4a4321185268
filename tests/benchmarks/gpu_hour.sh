#!/usr/bin/env bash
# Everything about speed that only a GPU can tell, in parts of a few minutes:
#
#   tests/benchmarks/gpu_hour.sh correctness|training|sampling|budgets|end_to_end|embedded|all [OUT]
#   DRY=1 tests/benchmarks/gpu_hour.sh all [OUT]        # every part at small sizes on a CPU: whether it runs, no figures
#
# A line a call in OUT/results.jsonl ($OUT, else ./gpu-hour): the part, its exit code (124: it ran out of time), seconds
# and what it measured; what it said lies beside it. The exit code is 1 if some call failed; the others run all the same.
# Where packages are missing: wheels.sh. `embedded` goes on training the shipped model and wants DATA, the folder that
# blora.embedded.drawings.build made (blora/embedded/training/README.md).
set -uo pipefail
cd "$(dirname "$0")/../.."

part=${1:-}
out=${2:-${OUT:-gpu-hour}}
python=${PYTHON:-python}
dry=${DRY:-}
failed=0

# call NAME MINUTES MODULE ARGUMENT...: measure, and add a line to the results
call() {
    local name=$1 minutes=$2 begun=$SECONDS code=0
    shift 2
    rm -f "$out/$name.json"
    timeout --kill-after=20 "$((minutes * 60))" "$python" -m "$@" >"$out/$name.txt" 2>&1 || code=$?
    [ "$code" = 0 ] || failed=1
    "$python" - "$name" "$code" "$((SECONDS - begun))" "$out" <<'PYTHON'
import json, pathlib, sys
name, code, seconds, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4])
figures = out / f"{name}.json"
found = json.loads(figures.read_text()) if figures.exists() else None
line = {"part": name, "exit_code": code, "seconds": seconds, "figures": found}
with (out / "results.jsonl").open("a") as results:
    results.write(json.dumps(line) + "\n")
PYTHON
    echo "$name: exit code $code after $((SECONDS - begun)) s; $out/$name.txt"
}

# What `--dry` sizes are: a picture, a step or two, the embedded model.
if [ -n "$dry" ]; then
    export OMP_NUM_THREADS=1
    small=(--device cpu --base embedded --set train.resolution_px=64 --set sample.width_px=64 --set sample.height_px=64)
fi

correctness() { # 6 minutes
    if [ -n "$dry" ]; then
        call correctness 6 tests.benchmarks.correctness --device cpu --steps 2 --pack 2 --set train.resolution_px=64 \
            --ways eager --json "$out/correctness.json"
        call fast_tests 3 pytest -q --device cpu tests/blora/training/test_optim.py tests/blora/models/test_model.py
    else
        call correctness 6 tests.benchmarks.correctness --json "$out/correctness.json"
        call fast_tests 3 pytest -q --device cuda -m "not slow" tests/blora/adapters tests/blora/models \
            tests/blora/training tests/blora/sampling
    fi
}

training() { # 14 minutes
    if [ -n "$dry" ]; then
        call training 3 tests.benchmarks.sdxl --only training --packs 1 2 --steps 1 "${small[@]}" \
            --json "$out/training.json"
        call variants 8 tests.benchmarks.sdxl --only variants --packs 1 --steps 1 "${small[@]}" \
            --json "$out/variants.json"
        call opt_ins 8 tests.benchmarks.sdxl --only opt_ins --packs 1 --steps 1 "${small[@]}" \
            --json "$out/opt_ins.json"
        call shares 3 tests.benchmarks.shares --pack 2 --device cpu --base embedded --set train.resolution_px=64 \
            --json "$out/shares.json"
    else
        call training 4 tests.benchmarks.sdxl --only training --packs 1 4 8 16 --json "$out/training.json"
        call variants 5 tests.benchmarks.sdxl --only variants --packs 1 8 --json "$out/variants.json"
        call opt_ins 4 tests.benchmarks.sdxl --only opt_ins --packs 1 8 --steps 16 --json "$out/opt_ins.json"
        call shares 1 tests.benchmarks.shares --pack 8 --json "$out/shares.json"
    fi
}

sampling() { # 6 minutes
    if [ -n "$dry" ]; then
        call sampling 3 tests.benchmarks.sdxl --only sampling --batches 1 2 --sample-steps 2 "${small[@]}" \
            --json "$out/sampling.json"
        call few_steps 3 tests.benchmarks.sdxl --only sampling --preset fast --batches 1 2 --sample-steps 2 \
            "${small[@]}" --json "$out/few_steps.json"
    else
        call sampling 4 tests.benchmarks.sdxl --only sampling --batches 1 4 16 --sample-steps 25 \
            --json "$out/sampling.json"
        call few_steps 2 tests.benchmarks.sdxl --only sampling --preset fast --batches 1 4 16 \
            --json "$out/few_steps.json"
    fi
}

budgets() { # 6 minutes
    if [ -n "$dry" ]; then
        call budgets 3 tests.benchmarks.sdxl --only budgets --steps 1 --preset fast --budgets-gb 1.3 1 "${small[@]}" \
            --json "$out/budgets.json"
        call losses 3 tests.benchmarks.losses --tiny --steps 4 --json "$out/losses.json"
    else
        call budgets 3 tests.benchmarks.sdxl --only budgets --budgets-gb 24 16 12 8 --json "$out/budgets.json"
        call losses 3 tests.benchmarks.losses --steps 100 --json "$out/losses.json"
    fi
}

end_to_end() { # 10 minutes, wheels of both bundles
    if [ -n "$dry" ]; then
        BLORA_LEASE_SECONDS=10 call end_to_end 10 tests.benchmarks.end_to_end "$out/work" --base tiny --devices cpu \
            --px 32 --preset fast --pack-size 2 --side 2 --train-steps 40 --sample-steps 2 --kills 1 \
            --json "$out/end_to_end.json"
    else
        call end_to_end 10 tests.benchmarks.end_to_end "$out/work" --devices cuda:0 --features "${FEATURES:-none}" \
            --json "$out/end_to_end.json"
    fi
}

embedded() { # what is left
    if [ -n "$dry" ]; then # a few pictures and steps
        call embedded 5 pytest -q tests/blora/embedded/test_training.py -k "break_leaves_no_trace"
    elif [ -d "${DATA:-}" ]; then
        call embedded "${MINUTES:-9}" blora.embedded.training.train --data "$DATA" --minutes "$((${MINUTES:-9} - 1))" \
            --start blora/embedded --seen 287912 --device cuda
    else
        echo "embedded: received DATA=${DATA:-}; accepted: the folder that blora.embedded.drawings.build made"
        failed=1
    fi
}

case $part in
correctness | training | sampling | budgets | end_to_end | embedded) parts=$part ;;
all) parts="correctness training sampling budgets end_to_end embedded" ;;
*)
    echo "part: received '$part'; accepted: correctness, training, sampling, budgets, end_to_end, embedded, all" >&2
    exit 2
    ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
for one in $parts; do $one; done
exit $failed
