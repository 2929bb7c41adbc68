"""Where tasks come from: base datasets, task augmentation and the loader. Knows nothing of models or training."""
