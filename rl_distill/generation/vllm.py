"""The only file that imports undocumented names of TRL: rollouts by vLLM through its VLLMGeneration.

Needs a CUDA machine with vllm installed. The constructor and `generate` are used as TRL 1.15 and 1.16 have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..config import ConfigError, RunConfig
from ..types import Finish
from .sampling import Generated, OnBatch, Sampling, StopStrings, ending_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VLLMBackend(Protocol):
    """What is used of trl.generation.vllm_generation.VLLMGeneration."""

    temperature: float

    def sync_weights(self) -> None: ...

    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple: ...


class VLLMEngine:
    """Samples rollouts with vLLM, whose weights are made the policy's before each rollout.

    `seeds` are not honoured: vLLM draws by itself, so a resumed run goes on with other samples than one never stopped.
    Each completion carries the sampler's log-probabilities, which the rollout turns into importance weights.
    """

    def __init__(
        self, backend: VLLMBackend, eos_token_ids: Sequence[int], max_tokens: int, stop: StopStrings | None
    ) -> None:
        self.backend, self.eos_token_ids, self.max_tokens, self.stop = backend, set(eos_token_ids), max_tokens, stop

    def generate(
        self,
        policy: Any,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        on_batch: OnBatch | None = None,
    ) -> list[Generated]:
        assert sampling.max_new_tokens == self.max_tokens, "the backend was made for another length"
        self.backend.sync_weights()
        self.backend.temperature = sampling.temperature
        _, completions, logprobs, _ = self.backend.generate([list(ids) for ids in prompt_ids], None, 1)
        generated = [self._generated(list(ids), values) for ids, values in zip(completions, logprobs, strict=True)]
        if on_batch is not None:
            on_batch(range(len(generated)), generated)
        return generated

    def _generated(self, token_ids: list[int], logprobs: Sequence[Sequence[float | None]]) -> Generated:
        """`logprobs` has one list per token, the sampled token's alone; None (vLLM's NaN) stays NaN: not corrected.

        What ends in neither an EOS nor a stop string was cut, below the length limit by the context window.
        """
        stopped = token_ids[-1] in self.eos_token_ids
        stopped = stopped or (self.stop is not None and self.stop.found_in([token_ids])[0])
        values = [float("nan") if of_token[0] is None else float(of_token[0]) for of_token in logprobs]
        return Generated(token_ids, Finish.STOP if stopped else Finish.LENGTH, values)


def make_vllm_engine(
    config: RunConfig, policy: Any, accelerator: Any, tokenizer: PreTrainedTokenizerBase
) -> VLLMEngine:
    """The engine of the config, colocated or a server; raises ConfigError where vllm is not installed."""
    settings, vllm = config.generation, config.generation.vllm
    options = backend_options(config, ending_ids(policy, [tokenizer.eos_token_id]))
    try:
        import vllm as _  # noqa: F401
        from trl.generation.vllm_generation import VLLMGeneration
    except ImportError as error:
        raise ConfigError(f"generation.engine: {settings.engine} needs vllm: pip install 'trl[vllm]'") from error
    if settings.engine == "vllm_server":
        options |= {"mode": "server", "server_base_url": vllm.server_base_url}
    backend = VLLMGeneration(model=policy, accelerator=accelerator, processing_class=tokenizer, **options)
    stop = StopStrings(tokenizer, settings.stop) if settings.stop else None
    return VLLMEngine(backend, ending_ids(policy, [tokenizer.eos_token_id]), settings.max_completion_length, stop)


def backend_options(config: RunConfig, eos_token_ids: Sequence[int]) -> dict[str, Any]:
    """VLLMGeneration's arguments: the sampling of the config, one log-probability per token, all ending ids."""
    settings, vllm = config.generation, config.generation.vllm
    generation_kwargs: dict[str, Any] = {"stop_token_ids": list(eos_token_ids)}
    if settings.stop:
        generation_kwargs |= {"stop": list(settings.stop), "include_stop_str_in_output": True}
    return {
        "mode": "colocate",
        "tensor_parallel_size": vllm.tensor_parallel_size,
        "gpu_memory_utilization": vllm.gpu_memory_utilization,
        "max_model_length": vllm.max_model_length,
        "max_num_seqs": config.ppo.batch_size,
        "enable_sleep_mode": vllm.sleep,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_completion_length": settings.max_completion_length,
        "logprobs": 0,
        "generation_kwargs": generation_kwargs,
    }
