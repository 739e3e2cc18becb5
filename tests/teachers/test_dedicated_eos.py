"""A dedicated teacher ends its texts at the student's EOS as well as at its own: both ends of a real link in here."""

import threading

import pytest
import torch
import torch.distributed as dist

from rl_distill.distributed.process_groups import Launch
from rl_distill.distributed.teacher_link import TeacherLink
from rl_distill.generation.sampling import Sampling
from rl_distill.teachers.dedicated import DedicatedTeacher
from rl_distill.teachers.worker import TeacherWorker
from rl_distill.types import Finish
from tests import own_models

PROMPTS, GREEDY = [[5, 6, 7], [8, 9]], Sampling(8, temperature=0.0)


@pytest.fixture
def student_end(tmp_path):
    """(the student's end of the link, a folder of models): the teacher's end answers in a thread."""
    folder = own_models.write(tmp_path / "models")
    config = own_models.config(folder, tmp_path / "run", teacher__model=str(folder / "large"))
    store = dist.HashStore()
    ends: dict[int, TeacherLink] = {}

    def teacher_side() -> None:
        ends[1] = TeacherLink(Launch(1, 1, 1, store), torch.device("cpu"))
        worker = TeacherWorker(config, ends[1])
        for request in ends[1].requests():
            if request["kind"] == "stop":
                return
            worker.answer(request)

    thread = threading.Thread(target=teacher_side, daemon=True)
    thread.start()
    link = TeacherLink(Launch(0, 1, 1, store), torch.device("cpu"))
    yield link, folder
    link.shutdown()
    thread.join(20)
    assert not thread.is_alive()


def test_texts_end_at_the_eos_of_either(student_end):
    link, folder = student_end
    settings = {"dtype": "float32", "autocast": "off", "micro_batch_size": 4, "quantization": None, "sharded": False}
    own = DedicatedTeacher(link, str(folder / "large"), settings)
    free = own.generate(PROMPTS, GREEDY)
    assert free[0].finish is Finish.LENGTH
    others = free[0].token_ids[1]  # a token that the teacher writes anyway: let it be the student's EOS
    both = DedicatedTeacher(link, str(folder / "large"), settings, [others])
    written = both.generate(PROMPTS, GREEDY)
    first = free[0].token_ids.index(others) + 1
    assert (written[0].token_ids, written[0].finish) == (free[0].token_ids[:first], Finish.STOP)
