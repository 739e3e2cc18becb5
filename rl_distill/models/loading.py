"""Models and tokenizers from a folder or the hub: whole and finite, or refused in one line.

Adapter folders of peft are loaded with the model they belong to. It will not run code that comes with a model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from .. import distributed
from ..config import ConfigError, RunConfig
from .lora import continued, quantization_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_FILE = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken*")
"""One of these is in every folder with a tokenizer; from a folder without, transformers makes an empty one."""
REFUSALS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
"""What transformers raises where a folder is not there, is torn, or is of an architecture that it does not know."""


def text_config(model: PreTrainedModel) -> Any:
    """The config of the model's language part: the whole of it, or a part where images or sound come with it."""
    return model.config.get_text_config()


def load(
    path: Path | str, dtype: str = "float32", quantization: str | None = None, *, who: str = "model"
) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder or hub id; `quantization` "4bit" or "8bit" loads the weights by bitsandbytes.

    Adapters are merged into their base. ConfigError, naming `who`, where anything is missing, torn or not finite.
    """
    return load_model(path, dtype, quantization, who=who), load_tokenizer(path, who=who)


def load_tokenizer(path: Path | str, *, who: str = "model") -> Any:
    """The tokenizer of a folder or hub id; for an adapter folder without one, that of its base model."""
    own = Path(path) / "tokenizer_config.json"
    place = path if adapter_base(path, who) is None or own.is_file() else adapter_base(path, who)
    folder = Path(str(place))
    if folder.is_dir() and not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        raise ConfigError(f"{who}: {str(place)!r} holds no tokenizer; copy the tokenizer files of its model into it")
    try:
        return AutoTokenizer.from_pretrained(place)
    except REFUSALS as error:
        raise _refused(who, f"the tokenizer of {str(place)!r}", error) from error


def load_config_of(path: Path | str, *, who: str = "model") -> PreTrainedConfig:
    """The model's configuration; an adapter's is that of its base."""
    try:
        return AutoConfig.from_pretrained(adapter_base(path, who) or path)
    except (*REFUSALS, StrictDataclassError) as error:
        raise _refused(who, repr(str(path)), error) from error


def load_model(
    path: Path | str,
    dtype: str = "float32",
    quantization: str | None = None,
    *,
    who: str = "model",
    continue_adapter: bool = False,
) -> Any:
    """The model, its adapter merged, or trained further under peft with `continue_adapter`."""
    base = adapter_base(path, who)
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization_config(quantization), "device_map": {"": distributed.device()}}
    model = _whole(str(base or path), dtype, who, options)
    if base is None:
        return model
    try:
        wrapped = continued(model, Path(path), is_trainable=continue_adapter)
    except REFUSALS as error:
        raise _refused(who, f"the adapter in {str(path)!r}", error) from error
    if continue_adapter:
        return wrapped
    if quantization is not None:
        raise ConfigError(f"{who}: an adapter cannot be merged into {quantization} weights: merge it once, in full")
    return wrapped.merge_and_unload().requires_grad_(True)  # peft froze it


def save_to_use(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes model and tokenizer as an ordinary folder that generates with its cache: Trainer switches `use_cache` off
    in the model's own config while it trains.
    """
    for config in (model.config, text_config(model)):
        config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_adapter(path: Path | str) -> bool:
    return (Path(path) / ADAPTER_FILE).is_file()


def adapter_base(path: Path | str, who: str = "model") -> str | None:
    """The model that an adapter folder belongs to; None where the path is no adapter folder."""
    if not is_adapter(path):
        return None
    base = json.loads((Path(path) / ADAPTER_FILE).read_text()).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{who}: {Path(path) / ADAPTER_FILE} does not say which model the adapter belongs to")
    return str(base)


def _whole(place: str, dtype: str, who: str, options: dict[str, Any]) -> PreTrainedModel:
    try:
        kind = auto_class(load_config_of(place, who=who))
        # weights of another shape are refused below, by name
        options = {"output_loading_info": True, "ignore_mismatched_sizes": True} | options
        model, info = kind.from_pretrained(place, dtype=dtype, **options)
    except ConfigError:
        raise
    except REFUSALS as error:
        raise _refused(who, repr(place), error) from error
    check_weights(model, info, f"{who} {place}")
    return model


def auto_class(config: PreTrainedConfig) -> Any:
    """Causal language models; those that also read images where the language part has no class of its own."""
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    multimodal = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if multimodal and not causal else AutoModelForCausalLM


def check_weights(model: PreTrainedModel, info: dict[str, Any], what: str) -> None:
    """ConfigError where a weight was not in the checkpoint, has another shape there, or is NaN or infinite."""
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ConfigError(
            f"{what}: {len(missing)} weights are not in the checkpoint and would be random, such as {missing[0]}; "
            "check that the folder holds this very architecture, with its head"
        )
    mismatched = sorted(info.get("mismatched_keys", ()))
    if mismatched:
        name, stored, built = mismatched[0]
        raise ConfigError(
            f"{what}: {len(mismatched)} weights have another shape in the checkpoint than config.json says, such as "
            f"{name}: {tuple(stored)} against {tuple(built)}; take the config.json that was saved with them"
        )
    broken = first_not_finite(model)
    if broken is not None:
        raise ConfigError(f"{what}: the weight {broken} holds NaN or infinity; take an earlier checkpoint of it")


@torch.no_grad()
def first_not_finite(model: PreTrainedModel) -> str | None:
    """The name of the first parameter with NaN or infinity; None where all are finite."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            return name
    return None


def _refused(who: str, what: str, error: Exception) -> ConfigError:
    place = what.removeprefix("the tokenizer of ").strip("'\"")
    if not Path(place).exists() and not what.startswith("the adapter"):
        return ConfigError(
            f"{who}: {what} cannot be loaded: there is no such folder here, and the Hugging Face hub has no model of "
            "that name or cannot be reached; check the path or the name"
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"{who}: {what} cannot be loaded ({type(error).__name__}: {reason[:300]})")


def student_dtype(config: RunConfig) -> str:
    """In which the student's weights are loaded: those that train in float32, unless DeepSpeed's bf16 engine keeps
    float32 copies. At a learning rate of 1e-6 an update is below half of bf16's spacing for 98 % of the weights.

    Raises ConfigError where bfloat16 is asked for by name and would be trained as it is.
    """
    wanted = config.student.dtype
    if config.student.lora is not None or (distributed.is_deepspeed() and config.ppo.bf16):
        return wanted
    if wanted == "bfloat16":
        raise ConfigError(
            "student.dtype: bfloat16 would round most updates away, as weights that train need float32 copies: set "
            "student.dtype: float32 and ppo.bf16: true to compute in bf16 (under DeepSpeed ppo.bf16 is enough), or "
            "student.lora to keep the weights frozen"
        )
    return "float32"
