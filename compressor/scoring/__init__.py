"""Scorers: how much each unit of a captured model is worth keeping.

A scorer is an object with one method, or a plain function of a weight and an axis; `score` runs it.
"""

from compressor.scoring.activation_scorer import ActivationScorer
from compressor.scoring.apoz import APoZ
from compressor.scoring.base import Scorer
from compressor.scoring.batch_norm_scale import BatchNormScale
from compressor.scoring.beta import Direction
from compressor.scoring.beta_rank import BetaRank, Positions
from compressor.scoring.chip import CHIP
from compressor.scoring.default import DEFAULT
from compressor.scoring.degeneracy import Degeneracies, GroupDegeneracy, degeneracies
from compressor.scoring.entry import score
from compressor.scoring.filter_quality import FilterQuality, Term
from compressor.scoring.filter_scorer import FilterScorer
from compressor.scoring.fisher import Fisher
from compressor.scoring.gate_taylor import GateTaylor
from compressor.scoring.geometric_median import GeometricMedian
from compressor.scoring.gradient_scorer import GradientScorer, Joint
from compressor.scoring.grasp import GraSP
from compressor.scoring.hessian import Hessian
from compressor.scoring.hrank import HRank
from compressor.scoring.lamp import LAMP
from compressor.scoring.mean_activation import MeanActivation
from compressor.scoring.mixed import Mixed, Product
from compressor.scoring.norm import Norm
from compressor.scoring.per_class import Combine, PerClass
from compressor.scoring.random_scores import Random
from compressor.scoring.reconstruction_error import ReconstructionError
from compressor.scoring.scores import Scores
from compressor.scoring.syn_flow import SynFlow
from compressor.scoring.taylor import Taylor
from compressor.scoring.torch_pruning import TorchPruning
from compressor.scoring.units import Normalize, Reduce
from compressor.scoring.weight_function import WeightFunction
from compressor.scoring.whc import WHC

__all__ = [
    "CHIP",
    "DEFAULT",
    "LAMP",
    "WHC",
    "APoZ",
    "ActivationScorer",
    "BatchNormScale",
    "BetaRank",
    "Combine",
    "Degeneracies",
    "Direction",
    "FilterQuality",
    "FilterScorer",
    "Fisher",
    "GateTaylor",
    "GeometricMedian",
    "GraSP",
    "GradientScorer",
    "GroupDegeneracy",
    "HRank",
    "Hessian",
    "Joint",
    "MeanActivation",
    "Mixed",
    "Norm",
    "Normalize",
    "PerClass",
    "Positions",
    "Product",
    "Random",
    "ReconstructionError",
    "Reduce",
    "Scorer",
    "Scores",
    "SynFlow",
    "Taylor",
    "Term",
    "TorchPruning",
    "WeightFunction",
    "degeneracies",
    "score",
]
