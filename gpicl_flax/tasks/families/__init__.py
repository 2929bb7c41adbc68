"""Task families, one a file, behind one small interface (`family.TaskFamily`)."""

from gpicl_flax.tasks.families.family import FIRST_UNSEEN_ID, Sequences, TaskFamily
from gpicl_flax.tasks.families.function_classes import FunctionClasses
from gpicl_flax.tasks.families.gaussian_classes import GaussianClasses
from gpicl_flax.tasks.families.mixture import Mixture
from gpicl_flax.tasks.families.noisy_linear_regression import NoisyLinearRegression
from gpicl_flax.tasks.families.projected_images import ProjectedImages
from gpicl_flax.tasks.families.random_functions import RandomFunctions
from gpicl_flax.tasks.families.recall import Recall

__all__ = [
    "FIRST_UNSEEN_ID",
    "FunctionClasses",
    "GaussianClasses",
    "Mixture",
    "NoisyLinearRegression",
    "ProjectedImages",
    "RandomFunctions",
    "Recall",
    "Sequences",
    "TaskFamily",
]
