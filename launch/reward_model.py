"""A trained reward model: `accelerate launch launch/reward_model.py [--config FILE] [--reward_model.num_steps 400]`.

settings      rl_distill/reward_model/settings.py    (no torch until they are right)
run context   rl_distill/run_setup/                 teacher, untrained student, problems
data          rl_distill/reward_model/data.py        their answers with blended scores and verdicts
model         reward_models/learned_model.py         a trunk with scalar heads
training      rl_distill/reward_model/training.py    regression, or preference pairs (TRL's RewardTrainer)
uncertainty   rl_distill/reward_model/uncertainty.py what the model knows of its own errors
cheats        rl_distill/reward_model/probes.py      answers that must rank below honest right ones
report        rl_distill/reward_model/quality.py     held-out numbers, calibration, the limits
use           reward_models/learned.py               {fn: learned, kwargs: {model: runs/reward_model}}
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
from rl_distill.reward_model.settings import parse

PROGRAM = "accelerate launch launch/reward_model.py"


@errors_in_one_line()
def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    argv = sys.argv[1:] if argv is None else argv
    config = parse(argv, program)
    keep_tracebacks_in(Path(config.output_dir))

    from reward_models.learned import QUALITY_FILE
    from rl_distill import distributed, run_setup
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.provenance import command_line
    from rl_distill.reward_model import quality, uncertainty
    from rl_distill.reward_model.data import ledger_of, make_examples
    from rl_distill.reward_model.training import check_batch, make_reward_model, train

    quiet_libraries()
    distributed.start(timeout_s=config.distributed.timeout_s)
    distributed.set_threads(config.num_threads)
    check_batch(config)
    stages = Stages(quiet=not distributed.is_main())
    context = run_setup.prepare(config, stages, with_anchor=False)
    every_example, heldout, num_unscored = make_examples(config, context, stages)
    train_examples, aside = uncertainty.keep_aside(config, every_example)
    model, tokenizer = make_reward_model(config, context)
    with stages("train", f"{config.reward_model.num_steps} steps on {len(train_examples)} answers"):
        model = train(config, model, tokenizer, train_examples, progress=distributed.is_main())
        uncertainty.fit(config, model, tokenizer, train_examples, aside)
    with stages("measure", f"the model judges {len(heldout)} held-out answers"):
        found, shown = quality.quality(config, model, tokenizer, heldout)
    if distributed.is_main():
        (Path(config.output_dir) / QUALITY_FILE).unlink(missing_ok=True)  # until these weights are measured and written
        model.save_pretrained(config.output_dir)
        tokenizer.save_pretrained(config.output_dir)
        data = {
            "num_train": len(train_examples),
            "num_train_prompts": len({example.prompt for example in train_examples}),
            "num_heldout": len(heldout),
            "num_heldout_prompts": len({example.prompt for example in heldout}),
            "num_unscored": num_unscored,
            "ledger": ledger_of([*every_example, *heldout], context.tokenizer),
            "wall_seconds": dict(stages.seconds),
            "cpu_seconds": dict(stages.cpu_seconds),
        }
        command = command_line(program, argv)
        quality.write_report(config, found, shown, data, command)
        print("\n" + quality.table(found) + "\n\n" + quality.probe_table(found))
        quality.admit(config, found)
        print(f"\nreport: {Path(config.output_dir) / 'report.md'}   model: {config.output_dir}")


if __name__ == "__main__":
    main()
