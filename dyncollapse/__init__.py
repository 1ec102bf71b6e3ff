"""Which dimensions of a contrastive embedding collapse, and why: trained, integrated and in closed form."""

from dyncollapse.alignment import alignment_matrix, block_alignment, imbalance, imbalance_drift
from dyncollapse.comparison import order_of_convergence, relative_distance
from dyncollapse.covariance import ContrastiveCovariance, contrastive_covariance
from dyncollapse.diagnosis import (
    COLLAPSED_BELOW,
    Dimensions,
    Verdict,
    judge,
    linear_dimensions,
    mode_dimensions,
    natural_scale,
    sampled_dimensions,
)
from dyncollapse.equilibria import collapse_threshold, escape_time, growth_rates, modes, rest_singular_values
from dyncollapse.flow import FlowFailed, frozen_flow, mode_flow, population_flow, sample_flow
from dyncollapse.gaussian import GaussianTask, Pairs, PairStream, stack_pairs
from dyncollapse.losses import dot_infonce, infonce, infonce_weights, ntxent, spectral
from dyncollapse.networks import (
    balanced_init,
    end_to_end,
    forward,
    gaussian_init,
    layer_gradients,
    singular_values,
    spectrum_init,
    uniform_biases,
    uniform_init,
)
from dyncollapse.objective import Objective
from dyncollapse.population import population_force, population_loss
from dyncollapse.spectra import covariance_spectrum, mode_singular_values
from dyncollapse.training import Diverged, record_steps, train
from dyncollapse.trajectory import Interrupted, Trajectory

__all__ = [
    "COLLAPSED_BELOW",
    "ContrastiveCovariance",
    "Dimensions",
    "Diverged",
    "FlowFailed",
    "GaussianTask",
    "Interrupted",
    "Objective",
    "PairStream",
    "Pairs",
    "Trajectory",
    "Verdict",
    "alignment_matrix",
    "balanced_init",
    "block_alignment",
    "collapse_threshold",
    "contrastive_covariance",
    "covariance_spectrum",
    "dot_infonce",
    "end_to_end",
    "escape_time",
    "forward",
    "frozen_flow",
    "gaussian_init",
    "growth_rates",
    "imbalance",
    "imbalance_drift",
    "infonce",
    "infonce_weights",
    "judge",
    "layer_gradients",
    "linear_dimensions",
    "mode_dimensions",
    "mode_flow",
    "mode_singular_values",
    "modes",
    "natural_scale",
    "ntxent",
    "order_of_convergence",
    "population_flow",
    "population_force",
    "population_loss",
    "record_steps",
    "relative_distance",
    "rest_singular_values",
    "sample_flow",
    "sampled_dimensions",
    "singular_values",
    "spectral",
    "spectrum_init",
    "stack_pairs",
    "train",
    "uniform_biases",
    "uniform_init",
]
