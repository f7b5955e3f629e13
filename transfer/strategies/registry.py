"""The strategy that settings name."""

from collections.abc import Callable

from transfer.strategies.bitfit import BiasOnly
from transfer.strategies.contract import Strategy
from transfer.strategies.gradual import GradualUnfreezing
from transfer.strategies.l2sp import DecayToStart
from transfer.strategies.last import LastBlocks
from transfer.strategies.linear import HeadOnly
from transfer.strategies.lora import LowRankTuning
from transfer.strategies.lpft import ProbeThenTune
from transfer.strategies.settings import StrategyName, StrategySettings
from transfer.strategies.wise import StartInterpolation

BUILDERS: dict[StrategyName, Callable[[StrategySettings], Strategy]] = {
    "full": lambda cfg: Strategy(),
    "linear": lambda cfg: HeadOnly(cfg.linear.head_lr),
    "last": lambda cfg: LastBlocks(cfg.last.count),
    "lpft": lambda cfg: ProbeThenTune(cfg.lpft.share, cfg.linear.head_lr),
    "gradual": lambda cfg: GradualUnfreezing(cfg.gradual.share),
    "bitfit": lambda cfg: BiasOnly(),
    "lora": lambda cfg: LowRankTuning(cfg.lora.rank, cfg.lora.alpha, cfg.lora.lr),
    "l2sp": lambda cfg: DecayToStart(cfg.l2sp.weight),
    "wise": lambda cfg: StartInterpolation(cfg.wise.alphas),
}


def build_strategy(settings: StrategySettings) -> Strategy:
    """The strategy of these settings."""
    return BUILDERS[settings.strategy](settings)
