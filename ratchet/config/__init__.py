"""One YAML, `ratchet.yaml`: read with `load`, described by `Config`."""

from ratchet.config.load import BUILT_IN, load, schema
from ratchet.config.model import (
    Config,
    EngineConfig,
    GateConfig,
    GatewayConfig,
    GrpoConfig,
    LaunchConfig,
    LearnerConfig,
    LoraConfig,
    MetricConfig,
    ModelConfig,
    PolicyConfig,
    PythonRewardConfig,
    ScheduleConfig,
    ShadowConfig,
    StoreConfig,
)

__all__ = [
    "BUILT_IN",
    "Config",
    "EngineConfig",
    "GateConfig",
    "GatewayConfig",
    "GrpoConfig",
    "LaunchConfig",
    "LearnerConfig",
    "LoraConfig",
    "MetricConfig",
    "ModelConfig",
    "PolicyConfig",
    "PythonRewardConfig",
    "ScheduleConfig",
    "ShadowConfig",
    "StoreConfig",
    "load",
    "schema",
]
