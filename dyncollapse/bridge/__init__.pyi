from .data.augmentations import View, batched_view, draw_views, worker_view
from .data.image_sets import FolderImages, HeldImages
from .data.images import Data, open_data
from .data.pixels import Unreadable
from .data.skipped import Skipped
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
from .recipe import Recipe, resolve
from .training.distributed import GlobalBatchNorm, Process, gather, join_processes
from .training.loop import LossDiverged, Progress, Stopped
from .training.pretraining import TooBig, pretrain
from .training.run_folder import Run, add_probe, find_runs, read_run
from .training.trainer import Trainer, build_trainer, contrast

__all__ = [
    "Adjacent",
    "Data",
    "DiagnosedSpaces",
    "Diagonal",
    "Embedded",
    "Encoder",
    "Fixed",
    "FolderImages",
    "GlobalBatchNorm",
    "HeldImages",
    "LoadedEncoder",
    "LossDiverged",
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
    "Trainer",
    "Unreadable",
    "View",
    "add_probe",
    "adjacent_layers",
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
    "draw_spaces",
    "draw_views",
    "embed",
    "find_runs",
    "finish_run",
    "gather",
    "join_processes",
    "load_encoder",
    "logistic_probe",
    "open_data",
    "plot_d0",
    "plot_relative_spectra",
    "pretrain",
    "ranks_by_depth",
    "read_run",
    "resolve",
    "run_check",
    "sgd_probe",
    "worker_view",
]
