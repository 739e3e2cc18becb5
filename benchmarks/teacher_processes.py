"""What a teacher in processes of its own buys: `python benchmarks/teacher_processes.py [FOLDER]`, on a quiet machine.

Overlap: seconds of a PPO step, one student process with a shared teacher against one more process with a split one.
Throughput: tokens per second that 1 and 2 teacher processes score, hidden states back over the link, while the
student only waits. Random weights, one torch thread per process: two free cores are needed, three for nobody to share.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STUDENT, TEACHER = (192, 512, 4, 6), (256, 704, 4, 4)
"""hidden size, size of the MLP, layers, heads"""
NUM_STEPS, BATCH, GENERATION_BATCH, LENGTH = 9, 64, 16, 48
SCORED_ROWS, ROUNDS = 64, 5


def make_models(folder: Path) -> None:
    """student/, teacher/ and train.jsonl in the folder."""
    from rl_distill.config import TinyModelConfig
    from rl_distill.demo.problems import make_problems
    from rl_distill.demo.tiny import make_model, make_tokenizer

    problems = make_problems("train", 400, 0)
    tokenizer = make_tokenizer([p.prompt + p.solution for p in problems], 448)
    for name, shape in (("student", STUDENT), ("teacher", TEACHER)):
        make_model(TinyModelConfig(*shape), tokenizer, 0).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": p.prompt, "task": p.task, **p.columns} for p in problems]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(folder: Path, num_teachers: int) -> dict[str, object]:
    own = {
        "output_dir": str(folder / f"run-{num_teachers}"),
        "demo": None,
        "student.model": str(folder / "student"),
        "teacher.model": str(folder / "teacher"),
        "teacher.dtype": "float32",
        "teacher.autocast": "off",
        "data.train": str(folder / "train.jsonl"),
        "anchor.schedule": "fixed",
        "num_threads": 1,
        "report_to": [],
        "ppo.num_steps": NUM_STEPS,
        "ppo.batch_size": BATCH,
        "generation.batch_size": GENERATION_BATCH,
        "generation.max_completion_length": LENGTH,
        "evaluation.every_steps": 1000,
    }
    return own | ({"teacher.placement": "dedicated", "teacher.num_processes": num_teachers} if num_teachers else {})


def run(num_processes: int, program: list[str]) -> str:
    """What a launch of so many processes printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command + program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def step_seconds(folder: Path, num_teachers: int) -> tuple[float, dict[str, float]]:
    """Median seconds of a step after the first, and of its phases."""
    words = []
    for name, value in settings(folder, num_teachers).items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    run(1 + num_teachers, ["launch/ppo.py", *words])
    records = [json.loads(line) for line in (folder / f"run-{num_teachers}" / "timing.jsonl").read_text().splitlines()]
    names = [name for name in records[0] if name.startswith("seconds/") and name != "seconds/evaluate"]
    totals = [sum(record[name] for name in names) for record in records[1:]]
    phases = {name.removeprefix("seconds/"): statistics.median(r[name] for r in records[1:]) for name in names}
    return statistics.median(totals), phases


def score(folder: Path, num_teachers: int) -> None:
    """One process of the throughput's launch; the student's prints tokens per second."""
    import torch
    from transformers import AutoTokenizer

    from rl_distill import distributed
    from rl_distill.config import load_config
    from rl_distill.teachers.placement import open_teachers
    from rl_distill.teachers.worker import serve

    config = load_config(None, settings(folder, num_teachers))
    launch = distributed.start(num_teachers, 600)
    torch.set_num_threads(1)
    link = distributed.TeacherLink(launch, distributed.device())
    if launch.is_teacher:
        return serve(config, link)
    teacher = open_teachers(config, AutoTokenizer.from_pretrained(folder / "student"), link)
    rows = [[5 + i % 40] * LENGTH for i in range(SCORED_ROWS)]
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        teacher.score(rows, rows)
        seconds.append(time.perf_counter() - start)
    print("tokens per second", 2 * LENGTH * SCORED_ROWS / statistics.median(seconds[1:]))
    link.shutdown()


def main(folder: Path) -> None:
    make_models(folder)
    print("| | s per step | " + " | ".join(("generate", "teacher", "prepare", "reward", "update")) + " |")
    print("|---|---|---|---|---|---|---|")
    for num_teachers, name in ((0, "shared"), (1, "split, 1 teacher process")):
        total, phases = step_seconds(folder, num_teachers)
        parts = [f"{phases.get(phase, 0.0):.2f}" for phase in ("generate", "teacher", "prepare", "reward", "update")]
        print(f"| {name} | {total:.2f} | " + " | ".join(parts) + " |")
    print("\n| teacher processes | tokens scored per second |\n|---|---|")
    for num_teachers in (1, 2):
        printed = run(1 + num_teachers, [str(Path(__file__).resolve()), str(folder), str(num_teachers)])
        print(f"| {num_teachers} | {float(printed.split('tokens per second')[1].split()[0]):,.0f} |")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        score(Path(sys.argv[1]), int(sys.argv[2]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
