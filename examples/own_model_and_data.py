"""Your own models and data: `python examples/own_model_and_data.py --student S --teacher T --data prompts.jsonl`.

Each row needs a `prompt`; `answer` (math) or `test` and `entry_point` (code) let answers be checked. Student and
teacher need the same tokenizer. The defaults need the Hugging Face Hub and a large GPU; they have not been run here.
"""

import argparse

from rl_distill import Distiller


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", default="Qwen/Qwen2.5-0.5B-Instruct")
    parser.add_argument("--teacher", default="Qwen/Qwen2.5-7B-Instruct")
    parser.add_argument("--data", default="prompts.jsonl")
    parser.add_argument("--output_dir", default="runs/mine")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_completion_length", type=int, default=512)
    args = parser.parse_args(argv)

    distiller = Distiller(
        teacher_model=args.teacher,
        student_arch=args.student,
        data=args.data,
        rewards=["task_check"],
        output_dir=args.output_dir,
        settings={
            "anchor.coef": 0.1,
            "generation.max_completion_length": args.max_completion_length,
            "ppo.learning_rate": 1e-6,  # the defaults of the demo are for its tiny models
            "ppo.value_learning_rate": 1e-4,
            "ppo.micro_batch_size": 4,
        },
    )
    distiller.train(epochs=args.epochs, batch_size=args.batch_size)
    print("accuracy:", distiller.evaluate())
    print("report:  ", distiller.report())
    print("student: ", distiller.export(f"{args.output_dir}/final"))


if __name__ == "__main__":
    main()
