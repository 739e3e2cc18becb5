"""A small HTTP server that answers /v1/completions in vLLM's format, with the numbers of a real tiny model."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import torch

from rl_distill.generation.sampling import Sampling, generate

MOST_LOGPROBS = 20
"""vLLM's default for --max-logprobs."""


class CompletionsServer:
    """Serves `model` on a free port of this machine from `start` to `stop`, on the same port after a pause."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.port = 0
        self.num_requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), type("Bound", (Handler,), {"owner": self}))
        self.port = self.http.server_address[1]
        Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    @torch.no_grad()
    def prompt_logprobs(self, ids: list[int], top_k: int) -> list[dict[str, dict[str, Any]] | None]:
        """None for the first token, then per token the likeliest `top_k` ids and the token itself."""
        logprobs_LV = self.model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        entries: list[dict[str, dict[str, Any]] | None] = [None]
        for row_V, token in zip(logprobs_LV, ids[1:], strict=True):
            order = row_V.argsort(descending=True).tolist()
            named = {*order[:top_k], token}
            entries.append(
                {str(i): {"logprob": row_V[i].item(), "rank": order.index(i) + 1, "decoded_token": ""} for i in named}
            )
        return entries

    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        written = generate(
            self.model,
            [body["prompt"]],
            Sampling(body["max_tokens"], body["temperature"], body.get("top_p", 1.0)),
            eos_token_ids=[self.tokenizer.eos_token_id],
            pad_token_id=self.tokenizer.pad_token_id,
            seeds=[body.get("seed", 0)],
        )[0]
        choice = {"index": 0, "text": self.tokenizer.decode(written.token_ids), "finish_reason": written.finish.value}
        if body.get("return_token_ids"):
            choice["token_ids"] = written.token_ids
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self.prompt_logprobs(body["prompt"], body["prompt_logprobs"])
        return choice


class Handler(BaseHTTPRequestHandler):
    owner: CompletionsServer

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": "tiny-teacher", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.owner.num_requests += 1
        wanted = body.get("prompt_logprobs") or 0
        if wanted > MOST_LOGPROBS:
            message = f"Requested prompt logprobs of {wanted}, which is greater than max allowed: {MOST_LOGPROBS}"
            self.answer(400, {"error": {"message": message, "code": 400}})
        else:
            self.answer(200, {"object": "text_completion", "choices": [self.owner.choice(body)]})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
