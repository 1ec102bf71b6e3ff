from .data.augmentations import View, batched_view, draw_views, worker_view
from .data.image_sets import FolderImages, HeldImages
from .data.images import open_data, some_images
from .data.pixels import Unreadable
from .data.skipped import Skipped
from .data.splits import Data
from .evaluation.check_pictures import draw_check, plot_d0, plot_relative_spectra
from .evaluation.check_rows import check_recipes
from .evaluation.check_runs import finish_run, run_check
from .evaluation.depth import StageRank, ranks_by_depth
from .evaluation.diagnose import Adjacent, DiagnosedSpaces, adjacent_layers, diagnose_spaces
from .evaluation.embed import Embedded, embed
from .evaluation.load import LoadedEncoder, load_encoder
from .evaluation.paper_tables import compare
from .evaluation.pictures import draw_curves, draw_spaces
from .evaluation.probe import Probed, logistic_probe
from .evaluation.sgd_probing import sgd_probe
from .models.backbones import build_backbone
from .models.encoders import Encoder, build_encoder
from .models.projectors import Diagonal, Fixed, RandomSubVector, SubVector, build_projector
from .prediction.directions import Directions, Measured, find_directions, measure_pairs
from .prediction.fates import Fates
from .prediction.options import PredictOptions
from .prediction.outcome import Prediction
from .prediction.page import prediction_html
from .prediction.pictures import draw_prediction
from .prediction.pipelines import Pipeline, ViewSettings, open_pipeline
from .prediction.prediction import LinearEncoder, LossPrediction, predict_loss
from .prediction.run import predict
from .prediction.table import AugmentationTable, Effect, OperationRow, augmentation_table
from .prediction.training import TrainedLinear, projected_pairs, train_linear_encoder
from .prediction.views import ViewPairs
from .presets import resolve
from .recipe import Recipe
from .training.distributed import GlobalBatchNorm, Process, gather, join_processes
from .training.loop import LossDiverged, Progress, Stopped
from .training.pretraining import TooBig, pretrain
from .training.run_folder import Run, add_probe, find_runs, read_run
from .training.trainer import Trainer, build_trainer, contrast

__all__ = [
    "Adjacent",
    "AugmentationTable",
    "Data",
    "DiagnosedSpaces",
    "Diagonal",
    "Directions",
    "Effect",
    "Embedded",
    "Encoder",
    "Fates",
    "Fixed",
    "FolderImages",
    "GlobalBatchNorm",
    "HeldImages",
    "LinearEncoder",
    "LoadedEncoder",
    "LossDiverged",
    "LossPrediction",
    "Measured",
    "OperationRow",
    "Pipeline",
    "PredictOptions",
    "Prediction",
    "Probed",
    "Process",
    "Progress",
    "RandomSubVector",
    "Recipe",
    "Run",
    "Skipped",
    "StageRank",
    "Stopped",
    "SubVector",
    "TooBig",
    "TrainedLinear",
    "Trainer",
    "Unreadable",
    "View",
    "ViewPairs",
    "ViewSettings",
    "add_probe",
    "adjacent_layers",
    "augmentation_table",
    "batched_view",
    "build_backbone",
    "build_encoder",
    "build_projector",
    "build_trainer",
    "check_recipes",
    "compare",
    "contrast",
    "diagnose_spaces",
    "draw_check",
    "draw_curves",
    "draw_prediction",
    "draw_spaces",
    "draw_views",
    "embed",
    "find_directions",
    "find_runs",
    "finish_run",
    "gather",
    "join_processes",
    "load_encoder",
    "logistic_probe",
    "measure_pairs",
    "open_data",
    "open_pipeline",
    "plot_d0",
    "plot_relative_spectra",
    "predict",
    "predict_loss",
    "prediction_html",
    "pretrain",
    "projected_pairs",
    "ranks_by_depth",
    "read_run",
    "resolve",
    "run_check",
    "sgd_probe",
    "some_images",
    "train_linear_encoder",
    "worker_view",
]
