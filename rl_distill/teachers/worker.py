"""The teacher's end of the link: a process that loads the teacher and answers the students until they say stop."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import torch

from .. import distributed
from ..config import RunConfig
from ..distributed import TeacherLink
from ..generation.sampling import Sampling
from ..models.loading import load_tokenizer
from .colocated import ColocatedTeacher
from .dedicated import unpack
from .loading import load_teacher


def serve(config: RunConfig, link: TeacherLink) -> None:
    """Answers requests in their order; returns when the students are done."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the students save first, and then say stop
        signal.signal(number, signal.SIG_IGN)
    desk = TeacherWorker(config, link)
    for request in link.requests():
        if request["kind"] == "stop":
            return
        desk.answer(request)


class TeacherWorker:
    """One teacher process: of each request, which names a model, it does its own share."""

    def __init__(self, config: RunConfig, link: TeacherLink) -> None:
        self.config, self.link = config, link
        self.index = link.launch.rank - link.launch.num_students
        self.kinds = {"head": self.head, "score": self.score, "generate": self.generate}
        self.teachers: dict[str, ColocatedTeacher] = {}

    def answer(self, request: dict[str, Any]) -> None:
        if request["kind"] == "load":
            self.load(request)
        elif request["kind"] == "unload":
            self.teachers.pop(request["model"], None)
        else:
            self.kinds[request["kind"]](self.teachers[request["model"]], request)

    def load(self, request: dict[str, Any]) -> None:
        """Replies with the facts about the model that a student needs."""
        settings = replace(self.config.teacher, **request["settings"])
        tokenizer = load_tokenizer(request["model"], who="teacher")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if settings.sharded:
            distributed.join_side(self.config.distributed.timeout_s)
        teacher = load_teacher(replace(self.config, teacher=settings), request["model"], settings.dtype, tokenizer)
        teacher.eos_token_ids = sorted({*teacher.eos_token_ids, *request["eos_token_ids"]})
        self.teachers[request["model"]] = teacher
        weight = teacher.lm_head_weight_VE
        dtype = str(weight.dtype).removeprefix("torch.")
        facts = {"head_shape": list(weight.shape), "dtype": dtype, "fingerprint": teacher.fingerprint}
        self.link.reply(request["number"], facts)

    def head(self, teacher: ColocatedTeacher, request: dict[str, Any]) -> None:
        """The language-model head, from the first teacher process."""
        if self.index == 0:
            self.link.send(teacher.lm_head_weight_VE, request["source"], request["number"]).wait()

    def score(self, teacher: ColocatedTeacher, request: dict[str, Any]) -> None:
        """Receives ids, sends hidden states and numbers per token."""
        (num_rows, num_ids), source, number = request["shares"][self.index], request["source"], request["number"]
        how = {"temperature": request["temperature"], "top_k": request["top_k"]}
        if num_rows == 0:
            teacher.score([], [], **how)  # the other processes may need this one
            return
        packed = self.link.receive((num_ids,), torch.int32, source, number).wait()
        scores = teacher.score(*unpack(packed, num_rows), **how)
        stats = [scores.logprobs_N[:, None], scores.entropy_N[:, None]]
        tensors = [scores.hidden_NE, torch.cat(stats, 1).float()]
        if scores.top_ids_NK is not None and scores.top_logprobs_NK is not None:
            tensors[1] = torch.cat([tensors[1], scores.top_logprobs_NK.float()], 1)
            tensors.append(scores.top_ids_NK.int())
        for crossing in [self.link.send(tensor, source, number, i) for i, tensor in enumerate(tensors)]:
            crossing.wait()

    def generate(self, teacher: ColocatedTeacher, request: dict[str, Any]) -> None:
        """Replies with [row, token ids, finish] of this process's rows; greedy, or sampled by the row's number."""
        rows = list(range(self.index, len(request["prompt_ids"]), self.link.launch.num_teachers))
        prompt_ids = [request["prompt_ids"][row] for row in rows]
        generated = teacher.generate(prompt_ids, Sampling(**request["sampling"]), request["batch_size"], seeds=rows)
        written = [[row, item.token_ids, item.finish.value] for row, item in zip(rows, generated, strict=True)]
        self.link.reply(request["number"], written)
