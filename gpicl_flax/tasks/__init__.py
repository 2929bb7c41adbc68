"""The sources of tasks: families of tasks, base datasets and the loader. Independent of models and training."""
