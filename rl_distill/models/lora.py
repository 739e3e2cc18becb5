"""LoRA through peft: adapters on the policy, and the plain model again at the end. Also how frozen weights are loaded.

The 4- and 8-bit paths need CUDA and bitsandbytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from .. import distributed
from ..config import LoraAdapterConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def quantization_config(kind: str) -> BitsAndBytesConfig:
    """bitsandbytes settings for "4bit" (NF4, double quantisation, products in bf16) or "8bit" weights."""
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    assert kind == "4bit", kind
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _as_list(targets: str | tuple[str, ...]) -> str | list[str]:
    """peft reads a text as a pattern for whole names, and a list as endings of names."""
    return targets if isinstance(targets, str) else list(targets)


def add_lora(policy: PreTrainedModel, settings: LoraAdapterConfig, gradient_checkpointing: bool = False) -> Any:
    """`policy` under peft: its own weights frozen, adapters trained. Adapter weights come from torch's random state."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if getattr(policy, "is_quantized", False):
        policy = prepare_model_for_kbit_training(policy, use_gradient_checkpointing=gradient_checkpointing)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_as_list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(policy, config)
    wrapped.all_tied_weights_keys = {}  # type: ignore[assignment]  # else the base's names are read as the wrapper's, one level too high
    return wrapped


def continued(base: Any, folder: Path, *, is_trainable: bool) -> Any:
    """`base` under peft with the adapter of `folder`, to be trained further or merged."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(base, folder, is_trainable=is_trainable)
    wrapped.all_tied_weights_keys = {}  # type: ignore[assignment]  # as above
    return wrapped


def merged(policy: PreTrainedModel | PeftModel, adapters: Path) -> PreTrainedModel:
    """`policy` as a plain causal LM: adapters merged into its weights; a model without adapters as it is.

    The adapters by themselves are kept in the folder `adapters`, as peft writes them. Merging into 4- or 8-bit weights
    would round the result, so the base is loaded again in full. To be called by every process.
    """
    from peft import PeftModel

    if not isinstance(policy, PeftModel):
        return policy
    if distributed.is_main():
        policy.save_pretrained(
            str(adapters), save_embedding_layers=False
        )  # "auto" asks the hub whether they were resized
    distributed.barrier()
    if not getattr(policy.get_base_model(), "is_quantized", False):
        return policy.merge_and_unload()
    base: Any = AutoModelForCausalLM.from_pretrained(str(policy.get_base_model().name_or_path), dtype="auto")
    return PeftModel.from_pretrained(base, adapters).merge_and_unload()
