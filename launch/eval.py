"""Numbers for any causal LM: `accelerate launch launch/eval.py --model M --tasks gsm8k humaneval [--compare NAME=M]`.

settings      rl_distill/evals/command_line.py        (no torch until they are right)
tasks         rl_distill/tasks/                    problems, prompts, graders; gold answers must grade as correct first
generation    rl_distill/generation/sampling.py             the one that training samples with
graders       reward_models/, sandboxes/           the ones that reward training; code runs in a sandbox
records       rl_distill/evals/records.py          one JSON line per completion; an interrupted evaluation goes on
numbers       rl_distill/evals/statistics.py       intervals, pass@k, paired bootstrap
comparison    rl_distill/evals/comparison.py       gap recovered, retention, compression, speed-up
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread on a busy core slows everybody down
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rl_distill.errors import errors_in_one_line, keep_tracebacks_in
from rl_distill.evals.command_line import parse

PROGRAM = "accelerate launch launch/eval.py"


@errors_in_one_line()
def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    argv = sys.argv[1:] if argv is None else argv
    settings = parse(argv, program)
    keep_tracebacks_in(settings.output_dir)

    from rl_distill import distributed
    from rl_distill.evals.stages import run, table
    from rl_distill.progress import quiet_libraries
    from rl_distill.provenance import command_line

    quiet_libraries()
    distributed.start()
    distributed.set_threads(settings.num_threads)
    results = run(settings, command_line(program, argv))
    if distributed.is_main():
        print("\n" + table(results))
        print(f"\nresults: {settings.output_dir / 'results.json'}")


if __name__ == "__main__":
    main()
