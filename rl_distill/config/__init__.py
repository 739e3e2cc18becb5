"""Settings of a run: schema, checks, loading and the command line. Imports no torch."""

from .distillation import DistillConfig, GuidedConfig, InnerStatesConfig, ScheduleConfig, WarmUpConfig
from .loading import Config, load_config, teachers_of
from .reading import ConfigError
from .sampling import MixtureEntry, SamplingConfig
from .schema import (
    DataConfig,
    DemoConfig,
    LoraAdapterConfig,
    RunConfig,
    SFTStageConfig,
    StudentConfig,
    TeacherConfig,
    TeacherServerConfig,
    TextAPIConfig,
    TinyModelConfig,
)
from .training import (
    AlarmsConfig,
    AnchorConfig,
    CheckpointConfig,
    DistributedConfig,
    EvaluationConfig,
    GenerationConfig,
    PPOConfig,
    RewardRefreshConfig,
    VLLMConfig,
)

__all__ = [
    "AlarmsConfig",
    "AnchorConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DemoConfig",
    "DistillConfig",
    "DistributedConfig",
    "EvaluationConfig",
    "GenerationConfig",
    "GuidedConfig",
    "InnerStatesConfig",
    "LoraAdapterConfig",
    "MixtureEntry",
    "PPOConfig",
    "RewardRefreshConfig",
    "RunConfig",
    "SFTStageConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "StudentConfig",
    "TeacherConfig",
    "TeacherServerConfig",
    "TextAPIConfig",
    "TinyModelConfig",
    "VLLMConfig",
    "WarmUpConfig",
    "load_config",
    "teachers_of",
]
