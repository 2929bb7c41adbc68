"""Task families, one a file, behind one small interface (`family.TaskFamily`)."""

from gpicl_flax.tasks.families.family import FIRST_UNSEEN_ID, Sequences, TaskFamily
from gpicl_flax.tasks.families.noisy_linear_regression import NoisyLinearRegression
from gpicl_flax.tasks.families.projected_images import ProjectedImages

__all__ = ["FIRST_UNSEEN_ID", "NoisyLinearRegression", "ProjectedImages", "Sequences", "TaskFamily"]
