"""What a model is to the core: named layers and their counts. Everybody reads it first."""
