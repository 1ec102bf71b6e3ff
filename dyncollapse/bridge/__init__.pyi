from .both import Adjacent, Both, adjacent_layers, diagnose_both
from .check import check_recipes, finish_run, run_check
from .embedding import Embedded, embed
from .encoders import Encoder, build_backbone, build_encoder
from .experiments import Run, add_probe, find_runs, read_run
from .images import Data, FolderImages, HeldImages, Skipped, Unreadable, open_data
from .loaded import Loaded, load_encoder
from .pictures import draw_check, draw_curves, draw_spaces, plot_d0, plot_relative_spectra
from .pretraining import LossDiverged, Progress, Stopped, TooBig, pretrain
from .probe import Probed, logistic_probe, sgd_probe
from .processes import GlobalBatchNorm, Process, gather, join_processes
from .projectors import Diagonal, Fixed, RandomSubVector, SubVector, build_projector
from .recipe import Recipe, resolve
from .tables import compare
from .trainer import Trainer, build_trainer, contrast
from .views import View, batched_view, draw_views, worker_view

__all__ = [
    "Adjacent",
    "Both",
    "Data",
    "Diagonal",
    "Embedded",
    "Encoder",
    "Fixed",
    "FolderImages",
    "GlobalBatchNorm",
    "HeldImages",
    "Loaded",
    "LossDiverged",
    "Probed",
    "Process",
    "Progress",
    "RandomSubVector",
    "Recipe",
    "Run",
    "Skipped",
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
    "diagnose_both",
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
    "read_run",
    "resolve",
    "run_check",
    "sgd_probe",
    "worker_view",
]
