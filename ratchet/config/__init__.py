"""One YAML, `ratchet.yaml`: read with `load`, described by `Config`."""

from ratchet.config.algorithm import AlgorithmConfig
from ratchet.config.launch import LaunchConfig
from ratchet.config.limits import LimitsConfig
from ratchet.config.load import BUILT_IN, load, schema
from ratchet.config.model import (
    ArtifactsConfig,
    Config,
    GateConfig,
    LearnerConfig,
    LoraConfig,
    MetricConfig,
    ModelConfig,
    PolicyConfig,
    PythonRewardConfig,
    ScheduleConfig,
    ShadowConfig,
)
from ratchet.config.outbox import OutboxConfig
from ratchet.config.quota import QuotaConfig
from ratchet.config.registry import ALGORITHMS, ENGINES
from ratchet.config.routing import BreakerConfig, EjectionConfig, RetryConfig, RoutingConfig
from ratchet.config.serving import EngineConfig, GatewayConfig, StoreConfig

__all__ = [
    "ALGORITHMS",
    "BUILT_IN",
    "ENGINES",
    "AlgorithmConfig",
    "ArtifactsConfig",
    "BreakerConfig",
    "Config",
    "EjectionConfig",
    "EngineConfig",
    "GateConfig",
    "GatewayConfig",
    "LaunchConfig",
    "LearnerConfig",
    "LimitsConfig",
    "LoraConfig",
    "MetricConfig",
    "ModelConfig",
    "OutboxConfig",
    "PolicyConfig",
    "PythonRewardConfig",
    "QuotaConfig",
    "RetryConfig",
    "RoutingConfig",
    "ScheduleConfig",
    "ShadowConfig",
    "StoreConfig",
    "load",
    "schema",
]
