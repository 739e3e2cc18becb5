"""Models whose logits are more than a product of hidden states with the head's weight are refused, not mistrained."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rl_distill.config import ConfigError
from rl_distill.models.heads import check_head

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("bias_allowed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_heads_are_taken(bias_allowed, dtype):
    for model in (Qwen2ForCausalLM(Qwen2Config(**TINY)), LlamaForCausalLM(LlamaConfig(**TINY))):
        check_head(model.to(dtype).eval(), "student", bias_allowed=bias_allowed)


@pytest.mark.parametrize("bias_allowed", [True, False])
def test_capped_and_scaled_logits_are_refused(bias_allowed):
    torch.manual_seed(0)
    capped = Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=8, final_logit_softcapping=0.05)).eval()
    scaled = CohereForCausalLM(CohereConfig(**TINY, logit_scale=0.25)).eval()
    for model, kind in ((capped, "gemma2"), (scaled, "cohere")):
        with pytest.raises(ConfigError, match=f"student: {kind} scales or caps its logits"):
            check_head(model, "student", bias_allowed=bias_allowed)


def test_a_bias_is_for_students_only():
    model = PhiForCausalLM(PhiConfig(**TINY | {"num_key_value_heads": 2})).eval()
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    check_head(model, "student", bias_allowed=True)
    with pytest.raises(ConfigError, match="teacher: the language-model head of phi has a bias"):
        check_head(model, "teacher", bias_allowed=False)
