"""The sources of tasks: base datasets, task augmentation and the loader. Independent of models and training."""
