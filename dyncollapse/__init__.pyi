"""Which dimensions of a contrastive embedding collapse, and why: trained, integrated and in closed form."""

from .claims.result import VerifyResult, verify
from .diagnostics.by_labels import ClassReports, diagnose_by
from .diagnostics.conventions import PublishedMeasure, compare_conventions
from .diagnostics.embeddings import diagnose
from .diagnostics.evidence import principal_directions
from .diagnostics.lidar import lidar, lidar_from_covariances
from .diagnostics.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
    unbiased_traces,
)
from .diagnostics.moments import Moments
from .diagnostics.monitor import Monitor
from .diagnostics.planted import Planted, planted_cases
from .diagnostics.readers import read_rows
from .diagnostics.remedies import Remedy
from .diagnostics.report import EmbeddingReport
from .diagnostics.shards import diagnose_shards
from .diagnostics.shared_signal import signal_rank
from .diagnostics.spectra import covariance_spectrum, mode_singular_values, noise_floor
from .diagnostics.spectrum_verdict import collapse_level, judge_spectrum
from .diagnostics.tokens import diagnose_tokens
from .diagnostics.verdict import COLLAPSED_BELOW, DimensionVerdict, Fate, Mechanism, Verdict
from .dynamics.comparison import LimitDistances, limit_distances, order_of_convergence, relative_distance
from .dynamics.flow import population_flow, sample_flow
from .dynamics.frozen import frozen_flow, mode_flow
from .dynamics.solver import FlowFailed
from .dynamics.training import Diverged, record_steps, train
from .dynamics.trajectory import Interrupted, TrainingFailed, Trajectory
from .model.coordinate_losses import barlow_normalised, vicreg
from .model.covariance import ContrastiveCovariance, blockwise_covariance, contrastive_covariance
from .model.gaussian import GaussianTask
from .model.initialisers import balanced_init, gaussian_init, spectrum_init, uniform_biases, uniform_init
from .model.loss_gradients import dot_gradients, infonce_gradients, ntxent_gradients, spectral_gradients
from .model.losses import dot_infonce, effective_negatives, infonce, infonce_weights, ntxent, spectral
from .model.moment_losses import barlow, vcreg
from .model.networks import end_to_end, forward, layer_gradients, layer_jacobian, singular_values
from .model.objective import Objective
from .model.own_loss import Loss, LossWithGradient, LossWithPopulation
from .model.pair_moments import PairMoments
from .model.pairs import Pairs, stack_pairs
from .model.pullback import layer_gradients_along
from .model.self_distillation import SelfDistillation, balanced_predictor
from .model.streams import JoinedStream, PairStream, join_streams
from .runtime.dispatch import Workers
from .runtime.executors import dask_workers, local_workers, slurm_workers
from .runtime.process import recycle_freed_memory
from .runtime.settings import SettingError
from .simulation.configuration import Configuration
from .simulation.dimensions import Dimensions, linear_dimensions, mode_dimensions, sampled_dimensions
from .simulation.result import SimulationResult, simulate
from .simulation.verdict import judge, natural_scale
from .sweeps.grid import expand_grid
from .sweeps.result import SweepResult, sweep
from .sweeps.sweep import Sweep
from .theory.alignment import (
    AlignmentReport,
    alignment_bound,
    alignment_matrix,
    alignment_report,
    block_alignment,
    module_alignment,
)
from .theory.equilibria import (
    collapse_threshold,
    escape_time,
    growth_rates,
    rest_gram,
    rest_singular_values,
    rest_variance,
)
from .theory.imbalance import imbalance, imbalance_drift, isotropic_rest_layers
from .theory.mode_forces import ModeForces, mode_forces
from .theory.mode_paths import mode_paths
from .theory.modes import generalised_modes, modes, relative_modes
from .theory.population import (
    POPULATION_FACTOR,
    negatives_needed,
    population_force,
    population_jacobian,
    population_loss,
    population_valid,
)
from .theory.probe_cost import excess_error, probe_cost
from .theory.projector import layer_values_at_rest, protection_rate
from .theory.rest_modes import RestModes, rest_modes
from .theory.riccati import riccati_gram
from .theory.self_distillation import ByolRest, byol_learning_times, byol_rest, predictor_imbalance
from .theory.velocities import (
    alignment_velocity,
    layer_value_velocities,
    singular_value_velocities,
    singular_vector_velocities,
)

__all__ = [
    "COLLAPSED_BELOW",
    "POPULATION_FACTOR",
    "AlignmentReport",
    "ByolRest",
    "ClassReports",
    "Configuration",
    "ContrastiveCovariance",
    "DimensionVerdict",
    "Dimensions",
    "Diverged",
    "EmbeddingReport",
    "Fate",
    "FlowFailed",
    "GaussianTask",
    "Interrupted",
    "JoinedStream",
    "LimitDistances",
    "Loss",
    "LossWithGradient",
    "LossWithPopulation",
    "Mechanism",
    "ModeForces",
    "Moments",
    "Monitor",
    "Objective",
    "PairMoments",
    "PairStream",
    "Pairs",
    "Planted",
    "PublishedMeasure",
    "Remedy",
    "RestModes",
    "SelfDistillation",
    "SettingError",
    "SimulationResult",
    "Sweep",
    "SweepResult",
    "TrainingFailed",
    "Trajectory",
    "Verdict",
    "VerifyResult",
    "Workers",
    "alignment_bound",
    "alignment_matrix",
    "alignment_report",
    "alignment_velocity",
    "alpha_req",
    "balanced_init",
    "balanced_predictor",
    "barlow",
    "barlow_normalised",
    "block_alignment",
    "blockwise_covariance",
    "byol_learning_times",
    "byol_rest",
    "collapse_level",
    "collapse_threshold",
    "compare_conventions",
    "contrastive_covariance",
    "covariance_spectrum",
    "dask_workers",
    "diagnose",
    "diagnose_by",
    "diagnose_shards",
    "diagnose_tokens",
    "dot_gradients",
    "dot_infonce",
    "effective_negatives",
    "effective_rank",
    "end_to_end",
    "escape_time",
    "excess_error",
    "expand_grid",
    "forward",
    "frozen_flow",
    "gaussian_init",
    "generalised_modes",
    "growth_rates",
    "imbalance",
    "imbalance_drift",
    "infonce",
    "infonce_gradients",
    "infonce_weights",
    "intrinsic_dimension",
    "isotropic_rest_layers",
    "join_streams",
    "judge",
    "judge_spectrum",
    "layer_gradients",
    "layer_gradients_along",
    "layer_jacobian",
    "layer_value_velocities",
    "layer_values_at_rest",
    "lidar",
    "lidar_from_covariances",
    "limit_distances",
    "linear_dimensions",
    "local_workers",
    "mode_dimensions",
    "mode_flow",
    "mode_forces",
    "mode_paths",
    "mode_singular_values",
    "modes",
    "module_alignment",
    "natural_scale",
    "negatives_needed",
    "noise_floor",
    "ntxent",
    "ntxent_gradients",
    "order_of_convergence",
    "participation_ratio",
    "participation_ratio_unbiased",
    "planted_cases",
    "population_flow",
    "population_force",
    "population_jacobian",
    "population_loss",
    "population_valid",
    "predictor_imbalance",
    "principal_directions",
    "probe_cost",
    "protection_rate",
    "rankme",
    "rankme_from_eigenvalues",
    "read_rows",
    "record_steps",
    "recycle_freed_memory",
    "relative_distance",
    "relative_modes",
    "rest_gram",
    "rest_modes",
    "rest_singular_values",
    "rest_variance",
    "riccati_gram",
    "sample_flow",
    "sampled_dimensions",
    "signal_rank",
    "simulate",
    "singular_value_velocities",
    "singular_values",
    "singular_vector_velocities",
    "slurm_workers",
    "spectral",
    "spectral_gradients",
    "spectrum_init",
    "stable_rank",
    "stack_pairs",
    "sweep",
    "train",
    "unbiased_traces",
    "uniform_biases",
    "uniform_init",
    "vcreg",
    "verify",
    "vicreg",
]

__version__: str
