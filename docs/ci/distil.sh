#!/bin/sh
# Distil in a CI job: sh distil.sh CONFIG NAME
#
# The run is output/NAME. It is continued where there is one already, so a job that was cut off loses little if it keeps
# output/ in a cache. Leaves result.json (`distillkit schema distill` describes it) and summary.md, and ends with
# distillkit's exit code: 0 the student is shown to have improved, 4 it is not, see docs/exit-codes.md for the others.
set -eu
config=$1
name=$2

distil() { distillkit distill --config "$config" --folder-name "$name" --quality-gate improved --json > result.json; }

code=0
distil || code=$?
case $code in
  # It failed while running, or the model hub was out of reach. What is saved already is not done again.
  1 | 3) code=0; distil || code=$? ;;
esac

python3 - > summary.md << 'END'
import json

told = json.load(open("result.json"))
result = told.get("result")
if result is None:
    print(f"**{told['error']}**\n\n{told['hint'] or ''}")
else:
    print(f"**{result['verdict']}**\n")
    print("| | bits per byte |\n|---|---|")
    for who in ("before", "control", "after", "teacher"):
        if result[who]:
            print(f"| {who} | {result[who]['bits_per_byte']:.4f} |")
    for step in result["next_steps"]:
        print(f"\n- {step}")
END
cat summary.md
exit "$code"
