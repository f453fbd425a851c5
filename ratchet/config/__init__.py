"""One YAML, `ratchet.yaml`: read with `load`, described by `Config`."""

from ratchet.config.limits import LimitsConfig
from ratchet.config.load import BUILT_IN, load, schema
from ratchet.config.model import (
    ArtifactsConfig,
    Config,
    GateConfig,
    GrpoConfig,
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
from ratchet.config.routing import BreakerConfig, EjectionConfig, RetryConfig, RoutingConfig
from ratchet.config.serving import EngineConfig, GatewayConfig, LaunchConfig, StoreConfig

__all__ = [
    "BUILT_IN",
    "ArtifactsConfig",
    "BreakerConfig",
    "Config",
    "EjectionConfig",
    "EngineConfig",
    "GateConfig",
    "GatewayConfig",
    "GrpoConfig",
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
