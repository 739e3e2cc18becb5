"""Settings of a run: schema, checks, loading and the command line. Imports no torch."""

from .loading import Config, load_config, teachers_of
from .reading import ConfigError
from .schema import (
    DataConfig,
    DemoConfig,
    LoraAdapterConfig,
    RunConfig,
    SFTStageConfig,
    StudentConfig,
    TeacherConfig,
    TeacherServerConfig,
    TinyModelConfig,
)
from .training import (
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
    "AnchorConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DemoConfig",
    "DistributedConfig",
    "EvaluationConfig",
    "GenerationConfig",
    "LoraAdapterConfig",
    "PPOConfig",
    "RewardRefreshConfig",
    "RunConfig",
    "SFTStageConfig",
    "StudentConfig",
    "TeacherConfig",
    "TeacherServerConfig",
    "TinyModelConfig",
    "VLLMConfig",
    "load_config",
    "teachers_of",
]
