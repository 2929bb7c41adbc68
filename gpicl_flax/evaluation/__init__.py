"""Meta-test: measures how well a meta-trained model learns tasks from context, on test examples only."""
